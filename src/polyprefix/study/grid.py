"""The runs of a study: what they will take, and the execution of what is missing.

Everything a study knows stands in files that are written whole (``results/study_folder.py``), and a
run goes on from where a kill left it. So the same command continues a study, and two processes may
work on one: each run has its lock, and who finds one held takes the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from polyprefix.config import ConfigError, PolyprefixError, Study, StudyRun
from polyprefix.methods import method_config
from polyprefix.results import Progress, Silent, State, StudyFolder
from polyprefix.study.engines.base import Engine, Work, make_engine
from polyprefix.study.kept import Kept
from polyprefix.study.prepare import prepare
from polyprefix.study.probe import Probe, find_probe, make_probe, probe_key
from polyprefix.study.single import error_text, stop_if_full
from polyprefix.tasks import get_task


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
        key = probe_key(run.config)
        if key not in probes:
            probes[key] = find_probe(folder, key)
        waits = states[run.key] in ("missing", "stopped")
        if probes[key] is not None or key in errors or not probing or not waits:
            continue
        progress.say(f"probing {run.name}")
        try:
            prepared = prepare(run.config, Silent(), kept)
            probes[key] = make_probe(prepared, folder, key)
        except Exception as error:  # the plan shows it, the run records it
            stop_if_full(error)
            errors[key] = error_text(error)
            kept.drop_backbone()
    return [
        Planned(
            run,
            states[run.key],
            probes[key := probe_key(run.config)],
            folder.error(run.key) or errors.get(key),
        )
        for run in study.runs
    ]


def run_study(
    study: Study,
    folder: StudyFolder,
    *,
    engine: Engine | None = None,
    again: bool = False,
    retry_failed: bool = False,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> Counter[State]:
    """Run what is missing, and go on where something was begun.

    A run that fails is recorded with its error and the rest goes on; it is tried anew when asked.

    Args:
        study: its runs.
        folder: where they are written.
        engine: what executes them, by default this process.
        again: run anew what is finished or was begun.
        retry_failed: try what has failed.
        kept: what planning has loaded, and what it could not load.
        progress: shown what is going on.

    Returns:
        How many runs are in which state.

    Raises:
        ConfigError: see :func:`check`.
        Unwritable: the disk is full, or the folder cannot be written to: no other run could go on.
        RunError: the engine cannot go on.
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
    engine = engine or make_engine("local")
    engine.execute(Work(todo, folder, again, kept, progress))
    return Counter(folder.state(run.key) for run in study.runs)


def _by_backbone(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Runs of one backbone together, and of one task's data among them; otherwise as in the
    grid."""
    models: dict[str, int] = {}
    tasks: dict[str, int] = {}

    def place(run: StudyRun) -> tuple[int, int]:
        model, task = run.config.model.model_dump_json(), run.config.task.model_dump_json()
        return models.setdefault(model, len(models)), tasks.setdefault(task, len(tasks))

    return sorted(runs, key=place)
