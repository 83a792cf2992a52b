"""The runs of a study: what they will take, and the execution of what is missing.

Everything a study knows stands in files that are written whole (``results/study_folder.py``), and a
run goes on from where a kill left it. So the same command continues a study, and two processes may
work on one: each run has its lock, and who finds one held takes the next.
"""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from polyprefix.config import (
    ConfigError,
    PolyprefixError,
    RunLocked,
    Study,
    StudyRun,
    Unwritable,
)
from polyprefix.methods import method_config
from polyprefix.report import duration
from polyprefix.results import Progress, Silent, State, StudyFolder
from polyprefix.study.kept import Kept
from polyprefix.study.prepare import choose_device, prepare
from polyprefix.study.probe import Probe, find_probe, make_probe, probe_key
from polyprefix.study.run import execute
from polyprefix.tasks import get_task

FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a full disk."""


@dataclass(frozen=True)
class Planned:
    """A run and what is known of it.

    Attributes:
        run: the run.
        state: how far it is.
        probe: what a probe measured; ``None``: there is none, or it failed.
        error: why the probe or the run failed.
    """

    run: StudyRun
    state: State
    probe: Probe | None
    error: str | None

    @property
    def seconds(self) -> float | None:
        """The whole run's, estimated."""
        return None if self.probe is None else self.probe.seconds(self.run.config)


def check(study: Study) -> None:
    """Refuse a study with a wrong task or method before the first of its runs.

    Raises:
        ConfigError: an unknown task, method, or key of a method.
    """
    for run in study.runs:
        try:
            method_config(run.config.method)
            get_task(run.config.task.name)
        except PolyprefixError as error:
            place = f"run {run.label}: " if run.label else ""
            raise ConfigError(f"{study.where}: {place}{error}") from None


def plan_study(
    study: Study,
    folder: StudyFolder,
    *,
    probing: bool = True,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> list[Planned]:
    """What each run will take, from one probe for all runs that differ in seed, learning rate,
    number of steps or sampling only. Finished runs need none.

    Args:
        study: its runs.
        folder: where they are written; probes are kept there.
        probing: ``False``: use what probes there are and make none.
        kept: keeps what was loaded, and what could not be.
        progress: told which probe is made.

    Raises:
        ConfigError: see :func:`check`.
    """
    progress, kept = progress or Silent(), kept or Kept()
    check(study)
    probes: dict[str, Probe | None] = {}
    errors: dict[str, str] = {}
    states = {run.key: folder.state(run.key) for run in study.runs}
    for run in _by_backbone(study.runs):
        key = _probe_key(run)
        if key not in probes:
            probes[key] = find_probe(folder, key)
        waits = states[run.key] in ("missing", "stopped")
        if probes[key] is not None or key in errors or not probing or not waits:
            continue
        progress.say(f"probing {_name(run)}")
        try:
            prepared = prepare(run.config, Silent(), kept)
            probes[key] = make_probe(prepared, folder, key)
        except Exception as error:  # the plan shows it, the run records it
            _stop_if_full(error)
            errors[key] = _text(error)
            kept.drop_backbone()
    return [
        Planned(
            run,
            states[run.key],
            probes[key := _probe_key(run)],
            folder.error(run.key) or errors.get(key),
        )
        for run in study.runs
    ]


def run_study(
    study: Study,
    folder: StudyFolder,
    *,
    again: bool = False,
    retry_failed: bool = False,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> Counter[State]:
    """Run what is missing, and go on where something was begun.

    A run that fails is recorded with its error and the rest goes on; it is tried anew when asked.
    Runs of one backbone come after one another, and it is loaded once. A run that another process
    is working on is left to it, and looked at again at the end.

    Args:
        study: its runs.
        folder: where they are written.
        again: run anew what is finished or was begun.
        retry_failed: try what has failed.
        kept: what planning has loaded, and what it could not load.
        progress: shown what is going on.

    Returns:
        How many runs are in which state.

    Raises:
        ConfigError: see :func:`check`.
        Unwritable: the disk is full, or the folder cannot be written to: no other run could go on.
    """
    progress, kept = progress or Silent(), kept or Kept()
    check(study)
    todo = [
        run
        for run in _by_backbone(study.runs)
        if again
        or (state := folder.state(run.key)) in ("missing", "stopped", "running")
        or (retry_failed and state == "failed")
    ]
    seconds = _seconds(todo, folder)
    left = []
    for number, run in enumerate(todo):
        state = folder.state(run.key)  # another process may have come first
        if state == "finished" and not again:
            continue
        to_go = f", about {duration(sum(seconds[number:]))} to go" if seconds else ""
        progress.say(f"run {number + 1} of {len(todo)}{to_go}: {_name(run)}")
        if state == "running" or not _one(run, folder, kept, again, progress):
            progress.say("another process is working on it: left for the end")
            left.append(run)
    for run in left:
        if folder.state(run.key) in ("missing", "stopped"):  # the other was killed meanwhile
            progress.say(f"continuing what another process left: {_name(run)}")
            _one(run, folder, kept, again=False, progress=progress)
    return Counter(folder.state(run.key) for run in study.runs)


def _one(run: StudyRun, folder: StudyFolder, kept: Kept, again: bool, progress: Progress) -> bool:
    """One run to its end, be it an error; ``False``: another process is working on it.

    Raises:
        Unwritable: the disk is full, or the folder cannot be written to.
    """
    try:
        prepared = prepare(run.config, progress, kept)
        folder.begin(run.key, prepared.folder.id)
        execute(prepared, again=again, progress=progress)
    except RunLocked:
        return False
    except Exception as error:
        _stop_if_full(error)
        unforeseen = not isinstance(error, PolyprefixError)
        folder.fail(run.key, _text(error), traceback.format_exc() if unforeseen else None)
        progress.say(f"failed: {_text(error)}")
        kept.drop_backbone()
    return True


def _stop_if_full(error: BaseException) -> None:
    """Raise what every other run would meet as well."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in FULL
        if full or isinstance(cause, Unwritable):
            raise Unwritable(
                f"{error}. No run can go on; once that is mended, the same command continues"
            ) from error
        cause = cause.__cause__ or cause.__context__


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, PolyprefixError) else repr(error)


def _by_backbone(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Runs of one backbone together, and of one task's data among them; otherwise as in the
    grid."""
    models: dict[str, int] = {}
    tasks: dict[str, int] = {}

    def place(run: StudyRun) -> tuple[int, int]:
        model, task = run.config.model.model_dump_json(), run.config.task.model_dump_json()
        return models.setdefault(model, len(models)), tasks.setdefault(task, len(tasks))

    return sorted(runs, key=place)


def _name(run: StudyRun) -> str:
    return run.label or "the only run"


def _seconds(runs: Sequence[StudyRun], folder: StudyFolder) -> list[float]:
    """What each run will take, nothing if that is not known of all."""
    probes = [find_probe(folder, _probe_key(run)) for run in runs]
    found = [
        probe.seconds(run.config)
        for probe, run in zip(probes, runs, strict=True)
        if probe is not None
    ]
    return found if len(found) == len(runs) else []


def _probe_key(run: StudyRun) -> str:
    return probe_key(run.config, str(choose_device(run.config.runtime.device)))
