"""One run: train on the source language, score every language, leave a record.

A run can be killed at any moment and started again with the same configuration: it goes on from
its last checkpoint, keeps the predictions it has, and ends with the same files.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
from filelock import FileLock, Timeout

from polyprefix.config import PolyprefixError, RunConfig, RunError, RunLocked, Unwritable
from polyprefix.evaluation import summarise
from polyprefix.methods import AdaptedModel, load_adapter, save_adapter
from polyprefix.models import load_backbone
from polyprefix.results import (
    Progress,
    RunFolder,
    Silent,
    machine,
    package_versions,
    source_commit,
)
from polyprefix.study.fit import Fitting
from polyprefix.study.memory import forget_memory, memory_used
from polyprefix.study.prepare import Prepared, choose_device, prepare
from polyprefix.study.texts import text_counts
from polyprefix.tasks import AnswerTask, Prompt, TaskData

INIT_PROMPTS = 4
"""Training prompts whose text a prefix starts from (``initialization: activations``)."""


def run(
    config: RunConfig, *, again: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Execute a run, or continue it, or return the record it has.

    Args:
        config: what to run.
        again: remove what an earlier run of this configuration left, and run anew.
        progress: shown what is going on.

    Returns:
        The run's record.

    Raises:
        PolyprefixError: whatever the user can mend; the record then says ``failed`` and why, if
            there was a run to speak of.
    """
    progress = progress or Silent()
    return execute(prepare(config, progress), again=again, progress=progress)


def execute(prepared: Prepared, *, again: bool, progress: Progress) -> dict[str, Any]:
    """What :func:`run` does once it is clear which run it is."""
    folder = prepared.folder
    lock = FileLock(folder.lock, timeout=0)
    try:
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RunLocked(f"another process is working on {str(folder.path)!r}") from None
    except OSError as error:
        raise Unwritable(
            f"cannot write to {str(folder.path.parent)!r} (key output): {error.strerror or error}"
        ) from error
    try:
        return _locked(prepared, again, progress)
    finally:
        lock.release()


def _locked(prepared: Prepared, again: bool, progress: Progress) -> dict[str, Any]:
    folder = prepared.folder
    if again:
        folder.clear()
    if folder.has_record():
        record = folder.record()
        if record["status"] == "finished":
            progress.say(f"{folder.path} is finished already; --again runs it anew")
            return record
        progress.say(f"continuing {folder.path}")
        started = record["started"]
    else:
        progress.say(f"starting {folder.path}")
        started = _now()
    record = _opening(prepared, started)
    folder.write_config(prepared.config.model_dump(mode="json"))
    folder.write_record(record)
    try:
        _work(prepared, record, progress)
    except Exception as error:  # whatever it was, the record must not say "running" for ever
        text = str(error) if isinstance(error, PolyprefixError) else repr(error)
        folder.write_record(record | {"status": "failed", "error": text})
        raise
    folder.write_record(record | {"status": "finished", "finished": _now()})
    folder.drop_checkpoints()
    return folder.record()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _opening(prepared: Prepared, started: str) -> dict[str, Any]:
    """What the record says from the start."""
    config, data, backbone = prepared.config, prepared.data, prepared.backbone
    return {
        "id": prepared.folder.id,
        "status": "running",
        "started": started,
        "identity": prepared.identity,
        "config": config.model_dump(mode="json"),
        "method": {
            "name": prepared.adapter_type.method,
            "title": prepared.adapter_type.title,
            "paper": prepared.adapter_type.paper,
            **prepared.method.model_dump(mode="json"),
        },
        "learning_rate": prepared.learning_rate,
        "model": {
            "name": backbone.name,
            "revision": backbone.revision,
            "model_type": backbone.family.model_type,
            "parameters": sum(value.numel() for value in backbone.model.parameters()),
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "device": str(backbone.device),
        },
        "task": {
            "name": data.task.name,
            "title": data.task.title,
            "headline": data.task.headline,
            "labels": list(getattr(data.task, "labels", ())),
            "prompt": _prompt(data.prompts[data.source_language]),
            # Of the languages that are asked in another way than the source.
            "prompts": {
                code: _prompt(prompt)
                for code, prompt in data.prompts.items()
                if prompt != data.prompts[data.source_language]
            },
            "source_language": data.source_language,
            "languages": data.languages,
            "data_revision": data.revision,
            "sizes": data.sizes,
            "parallel": data.task.parallel,
            "texts": text_counts(data, backbone.tokenizer),
            "bad_rows": [str(row) for row in data.bad_rows],
            "notes": data.notes,
        },
        "versions": package_versions(),
        "commit": source_commit(),
        "machine": machine() | {"threads": torch.get_num_threads()},
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"version": prompt.version, **asdict(prompt)}


def starting_text(data: TaskData) -> str | None:
    """What a prefix may start from: the first training prompts."""
    prompt = data.prompts[data.source_language]
    return "\n".join(prompt.render(e.fields) for e in data.train[:INIT_PROMPTS]) or None


def _work(prepared: Prepared, record: dict[str, Any], progress: Progress) -> None:
    """Train, then score; fill in the record."""
    config, data, device = prepared.config, prepared.data, prepared.backbone.device
    forget_memory(device)
    model = AdaptedModel(prepared.backbone)
    adapter = model.attach(prepared.method, seed=config.seed, text=starting_text(data))
    parameters = adapter.num_trainable()
    share = parameters / record["model"]["parameters"]
    progress.say(f"{adapter.title}: {parameters:,} trainable parameters ({share:.3%} of the model)")
    record["trainable_parameters"] = parameters
    fitting = Fitting(
        model, data, config.task.max_length, config.runtime, config.decoding, seed=config.seed
    )
    if isinstance(data.task, AnswerTask):
        record["decoding"] = asdict(fitting.decodings[data.source_language])
    if adapter.trains:
        trained = fitting.train(
            config.train,
            prepared.folder.path,
            seed=config.seed,
            progress=progress,
        )
        record["training"] = {
            "steps": trained.steps,
            "seconds": round(trained.seconds, 3),
            "best_step": trained.best_step,
            "best_dev_score": trained.best_dev,
            "best_dev_tie_break": trained.best_tie_break,
            "truncated_prompts": fitting.truncated,
        }
    else:
        save_adapter(adapter, prepared.folder.adapter)
    record["scores"], record["evaluation"] = _evaluate(prepared, fitting, progress)
    record["peak_memory_bytes"] = memory_used(device)
    model.detach()  # the next run may use the backbone


def _evaluate(
    prepared: Prepared, fitting: Fitting, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by language; a language whose predictions are there is not scored again."""
    data, folder = prepared.data, prepared.folder
    ready = {code: rows for code in data.languages if (rows := folder.predictions(code))}
    total = sum(map(len, data.test.values()))
    progress.start("scoring", total, done=sum(map(len, ready.values())))
    started, scored = time.perf_counter(), 0
    scores: dict[str, Any] = {}
    try:
        for code, examples in data.test.items():
            rows = ready.get(code)
            if rows is None:
                progress.advance(0, code)
                rows = fitting.predict(code, examples, progress.advance)
                folder.write_predictions(code, rows)
                scored += len(rows)
            scores[code] = summarise(data.task, rows)
    finally:
        progress.finish()
    seconds = time.perf_counter() - started
    # Of this process only: what an earlier, killed one scored is not in its time.
    return scores, {"seconds": round(seconds, 3), "examples_scored": scored}


def load_run(folder: RunFolder, device: str | None = None) -> tuple[AdaptedModel, dict[str, Any]]:
    """The adapted model of a finished run, and its record.

    Args:
        folder: the run's.
        device: where to compute, by default where the run's configuration says.

    Raises:
        RunError: the run is not finished, or its files are damaged.
    """
    record = folder.record()
    if record["status"] != "finished":
        raise RunError(f"{str(folder.path)!r} is {record['status']}: run it to its end first")
    config = RunConfig.read(record["config"], where=str(folder.path / "record.json"))
    backbone = load_backbone(config.model, choose_device(device or config.runtime.device))
    if backbone.revision != record["model"]["revision"]:
        raise RunError(
            f"model {config.model.name!r} is not the one the run was made with: revision "
            f"{backbone.revision}, the record says {record['model']['revision']}"
        )
    model = AdaptedModel(backbone)
    load_adapter(model, folder.adapter)
    return model, record
