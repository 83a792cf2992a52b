"""Runs one after another in this process; several processes may share a study."""

from __future__ import annotations

from collections.abc import Sequence

from polyprefix.config import StudyRun
from polyprefix.report import duration
from polyprefix.results import StudyFolder
from polyprefix.study.engines.base import Engine, Work, register_engine
from polyprefix.study.probe import find_probe, probe_key
from polyprefix.study.single import run_single


@register_engine
class LocalEngine(Engine):
    """The backbone is loaded once for the runs that have it in common. A run that another process
    is working on is left to it, and looked at again at the end."""

    name = "local"
    title = "one run after another in this process"

    def execute(self, work: Work) -> None:
        folder, progress = work.folder, work.progress
        seconds = _seconds(work.runs, folder)
        left = []
        for number, run in enumerate(work.runs):
            # another process may have come first
            state = None if work.again else folder.state(run.key)
            if state == "finished":
                continue
            to_go = f", about {duration(sum(seconds[number:]))} to go" if seconds else ""
            progress.say(f"run {number + 1} of {len(work.runs)}{to_go}: {run.name}")
            if state == "running" or not self._one(run, work, work.again):
                progress.say("another process is working on it: left for the end")
                left.append(run)
        for run in left:
            if folder.state(run.key) in ("missing", "stopped"):  # the other was killed meanwhile
                progress.say(f"continuing what another process left: {run.name}")
                self._one(run, work, again=False)

    def _one(self, run: StudyRun, work: Work, again: bool) -> bool:
        return run_single(run, work.folder, work.kept, again=again, progress=work.progress)


def _seconds(runs: Sequence[StudyRun], folder: StudyFolder) -> list[float]:
    """What each run will take, nothing if that is not known of all."""
    probes = [find_probe(folder, probe_key(run.config)) for run in runs]
    found = [
        probe.seconds(run.config)
        for probe, run in zip(probes, runs, strict=True)
        if probe is not None
    ]
    return found if len(found) == len(runs) else []
