"""A finished run under lm-evaluation-harness, see :mod:`polyprefix.study.harness`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyprefix.config import ConfigError, RunConfig, RunError, digest, unknown
from polyprefix.results import Progress, RunFolder

# It says how the harness is installed, so all else of the harness is imported after it.
from polyprefix.study.harness import HarnessLM
from polyprefix.study.run import load_run


def evaluate_run(
    folder: Path,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    fewshot: int | None = None,
    max_length: int | None = None,
    samples: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run's adapter with lm-evaluation-harness.

    Args:
        folder: the run's.
        tasks: names of the harness's tasks, groups or tags, or patterns of them (``belebele_*``).
        include_path: a folder of further task configurations (YAML).
        limit: examples of each task.
        fewshot: examples in the prompt, in place of what the tasks say.
        max_length: tokens of context and continuation, by default what the model has.
        samples: keep every prompt and every answer in the results.
        device: where to compute, by default where the run's configuration says.
        progress: shown what is going on.

    Returns:
        The harness's results (``results``, ``configs``, ``versions``...), and under ``polyprefix``
        the run, its method, model and task, and how many contexts were cut.

    Raises:
        ConfigError: a task is not known, or asks for a decoding we do not have.
        RunError: the run is not finished, or a task's data cannot be loaded.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise ConfigError(f"{str(include_path)!r} is not a folder of task configurations")
    run = RunFolder(folder)
    run.record()  # a wrong folder is told at once, before thousands of tasks are looked through
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    names = list(dict.fromkeys(name for task in tasks for name in _named(manager, task)))
    if not names:
        raise ConfigError("no task is named; one would be belebele_swh_Latn")
    model, record = load_run(run, device)
    runtime = RunConfig.read(record["config"], where=str(folder)).runtime
    chosen: list[Any] = []
    for name in names:
        loaded = _loaded(manager, name)
        group = loaded["groups"].get(name)
        chosen += list(loaded["tasks"].values()) if group is None else [group]
    lm = HarnessLM(
        model,
        batch_tokens=runtime.evaluation_batch_tokens,
        max_length=max_length,
        progress=progress,
    )
    results: dict[str, Any] = simple_evaluate(
        model=lm,
        tasks=chosen,
        task_manager=manager,
        limit=limit,
        num_fewshot=fewshot,
        log_samples=samples,
    )
    if lm.truncated and progress is not None:
        progress.say(f"note: {lm.truncated} contexts lost their beginning to fit {lm.max_length}")
    told = {key: record[key] for key in ("id", "method", "model", "versions")}
    told |= {key: record["task"][key] for key in ("name", "source_language")}
    plain: dict[str, Any] = _plain(results | {"polyprefix": told | {"truncated": lm.truncated}})
    return plain


def results_path(folder: Path, tasks: Sequence[str], **settings: Any) -> Path:
    """Where results lie in a run's folder: by tasks, and by settings that are not the default."""
    name = "+".join(tasks)
    if len(name) > 80:
        name = f"{name[:60]}-{digest(list(tasks))[:8]}"
    for setting, value in settings.items():
        name += "" if value is None else f"-{setting}{value}"
    return folder / "harness" / f"{name.replace('*', '_').replace('/', '_')}.json"


def results_table(results: dict[str, Any]) -> str:
    """The harness's own tables of tasks and of groups."""
    from lm_eval.utils import make_table

    tables = [make_table(results)]
    if results.get("groups"):
        tables.append(make_table(results, "groups"))
    return "\n".join(tables)


def _named(manager: Any, task: str) -> list[str]:
    """What a name or a pattern means.

    Raises:
        ConfigError: nothing.
    """
    found: list[str] = manager.match_tasks([task])
    if not found:
        text = unknown("task of lm-evaluation-harness", task, manager.all_tasks)
        # There are thousands; only the suggestion is of use.
        raise ConfigError(text.partition(" Known: ")[0] + " 'lm_eval ls tasks' lists them.")
    return found


def _loaded(manager: Any, name: str) -> dict[str, Any]:
    """The tasks and groups of a name, with their data.

    Raises:
        RunError: they cannot be loaded.
    """
    try:
        loaded: dict[str, Any] = manager.load([name])
    except Exception as error:  # tasks run code of their own, and read from the hub
        raise RunError(
            f"lm-evaluation-harness cannot load {name!r}: {type(error).__name__}: {error}"
        ) from error
    return loaded


def _plain(value: Any) -> Any:
    """What JSON can hold: numpy's numbers as ours, what is not finite and all else as text."""

    def other(item: Any) -> Any:
        return item.item() if hasattr(item, "item") else str(item)

    return json.loads(json.dumps(value, default=other), parse_constant=str)
