"""Runs: train on the source language, score every language, leave a record.

A run can be killed at any moment and started again with the same configuration: it goes on from
its last checkpoint, keeps the predictions it has, and ends with the same files. Runs whose adapters
are on one backbone are trained together (:mod:`polyprefix.study.together`); a run by itself is the
case of one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from filelock import FileLock, Timeout

from polyprefix.config import (
    ConfigError,
    PolyprefixError,
    RunConfig,
    RunError,
    RunLocked,
    Unwritable,
)
from polyprefix.distributed import in_plain_words, joined, shard, world
from polyprefix.evaluation import summarise
from polyprefix.methods import (
    AdaptedModel,
    Adapter,
    SavedConfig,
    described,
    load_adapter,
    save_adapter,
)
from polyprefix.models import load_backbone
from polyprefix.results import Progress, RunFolder, Silent
from polyprefix.study.fit import Fitting
from polyprefix.study.memory import forget_memory, memory_used
from polyprefix.study.prepare import Prepared, choose_device, prepare
from polyprefix.study.record import now, opening
from polyprefix.tasks import AnswerTask, TaskData
from polyprefix.training import Job, Trained, train_together

LOOKED_AT = 1.0
"""Seconds to wait for a lock: who asks how far a run is holds it for an instant."""

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
    with joined() as here:
        progress = progress if progress is not None and here.main else Silent()
        prepared = here.each(lambda: prepare(config, progress))
        return execute(prepared, again=again, progress=progress)


def execute(prepared: Prepared, *, again: bool, progress: Progress) -> dict[str, Any]:
    """What :func:`run` does once it is clear which run it is."""
    [outcome] = execute_together([prepared], again=again, progress=progress)
    if isinstance(outcome, PolyprefixError):
        raise outcome
    return outcome


def execute_together(
    runs: Sequence[Prepared], *, again: bool, progress: Progress
) -> list[dict[str, Any] | PolyprefixError]:
    """Execute runs whose adapters are trained together.

    Args:
        runs: different ones, of one backbone and one precision, of methods that can be mixed.
        again: run anew what is there already.
        progress: shown what is going on.

    Returns:
        For each its record, or why it failed; its record says so too, unless another process is
        working on it.

    Raises:
        Unwritable: the disk is full, or the folder cannot be written to.
    """
    if len(found := {tuple(ids) for ids in world().gather([run.folder.id for run in runs])}) > 1:
        raise ConfigError(
            "processes of this run come to different runs, "
            f"{' and '.join(sorted(ids[0] for ids in found))}: model, data and options have to be "
            "the same on all hosts"
        )
    outcomes: dict[str, dict[str, Any] | PolyprefixError] = {}
    begun: list[_Run] = []
    with ExitStack() as locks:
        for prepared in runs:
            folder = prepared.folder
            try:
                locks.enter_context(_locked(folder))
                if again:
                    folder.clear()
                if folder.finished():
                    progress.say(f"{folder.path} is finished already; --again runs it anew")
                    outcomes[folder.id] = folder.record()
                    folder.tidy()  # it may have been killed between its record and this
                else:
                    begun.append(_Run(prepared, progress))
            except Unwritable:
                raise
            except PolyprefixError as error:
                outcomes[folder.id] = error
        try:
            with in_plain_words():
                _work(begun, progress)
        except Exception as error:  # whatever it was, no record must say "running" for ever
            for run in begun:
                if run.outcome is None:
                    run.fail(error)
            raise
    for run in begun:
        assert run.outcome is not None
        outcomes[run.folder.id] = run.outcome
    return [outcomes[prepared.folder.id] for prepared in runs]


@contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    """Hold the lock of a run's folder."""
    lock = FileLock(folder.lock, timeout=LOOKED_AT)

    def acquire() -> None:
        try:
            folder.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise RunLocked(f"another process is working on {str(folder.path)!r}") from None
        except OSError as error:
            raise Unwritable(
                f"cannot write to {str(folder.path.parent)!r} (key output): "
                f"{error.strerror or error}"
            ) from error

    world().first(acquire)
    try:
        yield
    finally:
        lock.release()


class _Run:
    """A run under way.

    Attributes:
        adapter: the name of its adapter on the model: what tells its folder from others.
        outcome: its record or its error, once it is over.
    """

    def __init__(self, prepared: Prepared, progress: Progress) -> None:
        self.prepared, self.folder = prepared, prepared.folder
        self.adapter = self.folder.id.rpartition("-")[2]
        self.outcome: dict[str, Any] | PolyprefixError | None = None
        started = now()
        if self.folder.has_record():
            progress.say(f"continuing {self.folder.path}")
            started = self.folder.record()["started"]
        else:
            progress.say(f"starting {self.folder.path}")
        self.record = opening(prepared, started)
        self.folder.write_config(prepared.config.model_dump(mode="json"))
        self.folder.write_record(self.record)

    def fail(self, error: Exception) -> None:
        """Record an error. One that is not the user's to mend is raised by whoever calls this."""
        mendable = isinstance(error, PolyprefixError)
        text = str(error) if mendable else repr(error)
        self.folder.write_alone(self.record | {"status": "failed", "error": text})
        if isinstance(error, PolyprefixError):
            self.outcome = error

    @contextmanager
    def failing(self) -> Iterator[None]:
        """A :class:`PolyprefixError` ends this run and no other, but where nothing can be
        written."""
        try:
            yield
        except Unwritable:
            raise
        except PolyprefixError as error:
            self.fail(error)

    def attach(self, model: AdaptedModel, progress: Progress) -> Job | None:
        """Attach the adapter; its training, if there is something to train."""
        config, data, record = self.prepared.config, self.prepared.data, self.record
        adapter = model.attach(
            self.prepared.method, self.adapter, seed=config.seed, text=starting_text(data)
        )
        if isinstance(self.prepared.method, SavedConfig):
            self._tell_saved(self.prepared.method, adapter, progress)
        parameters = adapter.num_trainable()
        share = parameters / record["model"]["parameters"]
        progress.say(
            f"{adapter.title}: {parameters:,} trainable parameters ({share:.3%} of the model)"
        )
        record["trainable_parameters"] = parameters
        self.fitting = Fitting(
            model,
            data,
            config.task.max_length,
            config.runtime,
            config.decoding,
            seed=config.seed,
            say=progress.say,
        )
        if isinstance(data.task, AnswerTask):
            record["decoding"] = asdict(self.fitting.decodings[data.source_language])
        if self.prepared.adapter_type.trains:
            return self.fitting.job(config.train, self.folder.path, seed=config.seed)
        world().first(lambda: save_adapter(adapter, self.folder.adapter) and None)
        return None

    def _tell_saved(self, config: SavedConfig, adapter: Adapter, progress: Progress) -> None:
        """Record which adapter it is that was read."""
        backbone = self.prepared.backbone.name
        writer, trained_on = described(config.folder)
        self.record["method"] |= {
            "title": f"{adapter.title}, saved by {writer}",
            "paper": adapter.paper,
            "adapter": {"name": adapter.method, **adapter.config.model_dump(mode="json")},
            "trained_on": trained_on,
        }
        if trained_on not in (None, backbone):
            progress.say(
                f"note: the adapter says that it was trained on {trained_on!r}, not {backbone!r}"
            )

    def trained(self, trained: Trained) -> None:
        """Record what training amounted to."""
        self.record["training"] = {
            "steps": trained.steps,
            "seconds": round(trained.seconds, 3),
            "micro_batch_tokens": trained.micro_batch_tokens,
            "best_step": trained.best_step,
            "best_dev_score": trained.best_dev,
            "best_dev_tie_break": trained.best_tie_break,
            "truncated_prompts": self.fitting.truncated,
        }

    def finish(self, progress: Progress) -> None:
        """Score every language, under the adapter in use, and complete the record."""
        record = self.record
        record["scores"], record["evaluation"] = _evaluate(self.prepared, self.fitting, progress)
        used = world().gather(memory_used(self.prepared.device))
        record["peak_memory_bytes"] = max((size for size in used if size), default=None)
        self.folder.write_record(record | {"status": "finished", "finished": now()})
        self.folder.tidy()
        self.outcome = self.folder.record()


def starting_text(data: TaskData) -> str | None:
    """What a prefix may start from: the first training prompts."""
    prompt = data.prompts[data.source_language]
    return "\n".join(prompt.render(e.fields) for e in data.train[:INIT_PROMPTS]) or None


def _work(runs: Sequence[_Run], progress: Progress) -> None:
    """Train all, then score one after another: a batch of scoring fills the device by itself."""
    if not runs:
        return
    prepared = runs[0].prepared
    forget_memory(prepared.device)
    model = AdaptedModel(prepared.backbone)
    jobs: list[tuple[_Run, Job]] = []
    try:
        for run in runs:
            with run.failing():
                if (job := run.attach(model, progress)) is not None:
                    jobs.append((run, job))
        if world().shards and model.adapters:
            shard(model, prepared.device)
        if len(jobs) > 1:
            for run, _ in jobs:
                run.record["together"] = [other.folder.id for other, _ in jobs]
        results = train_together(
            model, [job for _, job in jobs], runtime=prepared.config.runtime, progress=progress
        )
        for (run, _), result in zip(jobs, results, strict=True):
            if isinstance(result, PolyprefixError):
                run.fail(result)
            else:
                run.trained(result)
        for run in runs:
            if run.outcome is None:
                with run.failing():
                    model.use(run.adapter)
                    run.finish(progress)
    finally:
        for name in list(model.adapters):  # other runs may use the backbone
            model.detach(name)


def _evaluate(
    prepared: Prepared, fitting: Fitting, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by language; a language whose predictions are there is not scored again."""
    data, folder = prepared.data, prepared.folder
    ready = {
        code: found
        for code in data.languages
        if (found := _scored_before(prepared, code)) is not None
    }
    total = sum(map(len, data.test.values()))
    progress.start("scoring", total, done=sum(len(data.test[code]) for code in ready))
    started, scored = time.perf_counter(), 0
    scores: dict[str, Any] = {}
    try:
        for code, examples in data.test.items():
            if code in ready:
                scores[code] = ready[code]
                continue
            progress.advance(0, code)
            if world().size == 1:
                rows = fitting.predict(code, examples, progress.advance)
            else:  # of which this process has a part
                rows = fitting.predict(code, examples)
                progress.advance(len(rows))
            folder.write_predictions(code, rows)
            scored += len(rows)
            scores[code] = summarise(data.task, rows)
    finally:
        progress.finish()
    seconds = time.perf_counter() - started
    # Of this process only: what an earlier, killed one scored is not in its time.
    return scores, {
        "seconds": round(seconds, 3),
        "examples_scored": scored,
        "batch_tokens": min(world().gather(fitting.budget.tokens)),
    }


def _scored_before(prepared: Prepared, code: str) -> dict[str, Any] | None:
    """The scores of a language by the predictions that are there, if there are any.

    Raises:
        RunError: they are damaged, or not one of each example: the rest would have a score too.
    """
    folder, examples = prepared.folder, prepared.data.test[code]
    try:
        rows = folder.predictions(code)
        if rows is None:
            return None
        if [row.get("id") for row in rows] != [example.id for example in examples]:
            raise RunError(
                f"{folder.predictions_path(code)} is damaged: it does not have one row of each "
                f"example of {code}"
            )
        return summarise(prepared.data.task, rows)
    except RunError as error:
        problem = str(error)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        problem = f"{folder.predictions_path(code)} is damaged: {type(error).__name__}: {error}"
    raise RunError(f"{problem}. Remove it, and {code} is scored again")


def load_run(
    folder: RunFolder, device: str | None = None, *, name: str = "default"
) -> tuple[AdaptedModel, dict[str, Any]]:
    """The adapted model of a finished run, and its record.

    Args:
        folder: the run's.
        device: where to compute, by default where the run's configuration says.
        name: of the adapter.

    Raises:
        RunError: the run is not finished, or its files are damaged.
    """
    record = finished_record(folder)
    config = RunConfig.read(record["config"], where=str(folder.path / "record.json"))
    backbone = load_backbone(config.model, choose_device(device or config.runtime.device))
    if backbone.revision != record["model"]["revision"]:
        raise RunError(
            f"model {config.model.name!r} is not the one the run was made with: revision "
            f"{backbone.revision}, the record says {record['model']['revision']}"
        )
    model = AdaptedModel(backbone)
    load_adapter(model, folder.adapter, name)
    return model, record


def finished_record(folder: RunFolder) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        RunError: the run is not finished, or its record is damaged.
    """
    record = folder.record()
    if record["status"] != "finished":
        raise RunError(f"{str(folder.path)!r} is {record['status']}: run it to its end first")
    return record
