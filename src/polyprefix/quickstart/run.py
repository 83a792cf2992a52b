"""Every method on the packaged model and the packaged task: what the package is for, in one look.

Importing this is cheap; torch is imported when the first run begins.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyprefix.analysis import compare
from polyprefix.config import ModelConfig, RunConfig, TaskConfig, TrainConfig
from polyprefix.results import Progress, Silent

TASK = "polytopics"
MODEL = "polyprefix/nano"
PAGE = "quickstart.html"

STEPS = 100
BATCH_SIZE = 16
"""Nine passes over the 175 training sentences."""

SMALL = 0.1
"""Share of a model's parameters up to which an adapter is one to try on a large model."""

EXAMPLE_MODEL = "Qwen/Qwen3-0.6B-Base"
"""In the advice for the next step: small, multilingual, and open to everyone."""


def quickstart_config(
    output: Path, method: str, seed: int = 0, *, model: str = MODEL, steps: int = STEPS
) -> RunConfig:
    """What :func:`quickstart` runs for a method.

    Args:
        output: folder of runs.
        method: name of an adaptation method, with its own defaults.
        seed: of everything random.
        model: another backbone, a hub name or a folder.
        steps: optimizer steps.
    """
    return RunConfig(
        model=ModelConfig(name=model),
        method={"name": method},
        task=TaskConfig(name=TASK, languages="all"),
        train=TrainConfig(steps=steps, batch_size=BATCH_SIZE),
        seed=seed,
        output=str(output),
    )


def quickstart(
    output: Path,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    *,
    again: bool = False,
    progress: Progress | None = None,
    model: str = MODEL,
    steps: int = STEPS,
) -> list[dict[str, Any]]:
    """Adapt the packaged model to English topics by every method, and score every language.

    Runs that are there already are continued, or returned if they are finished.

    Args:
        output: folder of runs.
        methods: names of adaptation methods, each with its own defaults; ``None``: all there are.
        seed: of everything random.
        again: run anew what is there already.
        progress: shown what is going on.
        model: another backbone, a hub name or a folder.
        steps: optimizer steps.

    Returns:
        The runs' records, in the order of ``methods``.

    Raises:
        PolyprefixError: an unknown method, or a model that cannot be loaded.
    """
    from polyprefix.methods import get_method
    from polyprefix.methods import methods as registered
    from polyprefix.study import run

    progress = progress or Silent()
    chosen = list(registered() if methods is None else dict.fromkeys(methods))
    for method in chosen:  # a misspelt name is told before the first run, not after it
        get_method(method)
    records = []
    for number, method in enumerate(chosen, start=1):
        progress.say(f"method {number} of {len(chosen)}: {method}")
        config = quickstart_config(output, method, seed, model=model, steps=steps)
        records.append(run(config, again=again, progress=progress))
    return records


def next_step(records: Sequence[dict[str, Any]]) -> str:
    """What to do after a quickstart: commands for the adapter that carries over best, of those that
    a large model can have too, and for the user's own model."""
    runs = compare(records).runs
    small = [run for run in runs if 0 < run.share < SMALL] or runs
    chosen = max(small, key=lambda run: run.source if run.mean is None else run.mean).record
    output = Path(chosen["config"]["output"])
    adapter = shlex.quote(str(output / chosen["id"]))
    method = shlex.quote(chosen["method"]["name"])
    return f"""\
Ask an adapter just trained, in any language:

  polyprefix predict {adapter} --text "Timu ilishinda mechi."

The same with a model of your own, a hub name or a folder, and real data:

  polyprefix run --model {EXAMPLE_MODEL} --method {method} --task sib200 \\
      --languages all --output {shlex.quote(str(output))}

SIB-200 is read from the Hugging Face hub, in 205 languages; --data names a folder of your own.
For other methods, tasks and languages: polyprefix list methods|tasks|models|languages."""
