"""Runs on other machines: what every engine that hands them out has in common.

The driver sends tickets, looks at what comes back and writes nothing that a worker writes. What a
run is, stands in the study's folder, which all machines see: a driver that died is started again.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from polyprefix.config import RunError, Spec, StudyRun, Unwritable
from polyprefix.study.engines.base import Engine, Work
from polyprefix.study.engines.needs import Needs, NeedsConfig, needs_of
from polyprefix.study.engines.worker import Outcome, Ticket, write_ticket

POLL = 1.0
"""Seconds between two looks at what has ended."""

HELD = 3.0
"""Seconds between two looks at runs that other processes hold."""

Job = Any
"""What an engine knows a submitted run by; it can be the key of a dictionary."""


class ClusterEngine(Engine):
    """An engine whose runs are executed by workers on other machines.

    To add one: say how to submit tickets, which of the submitted have ended, and how to stop them.
    """

    Config: ClassVar[type[Spec]] = NeedsConfig
    config: NeedsConfig

    auto_gpus = False
    """Whether ``runtime.device: auto`` will find a GPU on a worker."""

    def connect(self, work: Work) -> None:
        """Reach the cluster. Raises ``RunError`` or ``ConfigError``: what is in the way."""

    def disconnect(self) -> None:
        """Let go of the cluster; also called where it could not be reached."""

    def find(self, run: StudyRun, work: Work) -> Job | None:
        """A job of an earlier driver that still waits for its turn or is at the run."""
        return None

    @abstractmethod
    def submit(self, tickets: Sequence[tuple[Ticket, Needs]], work: Work) -> Sequence[Job]:
        """Hand out runs; a job for each."""

    @abstractmethod
    def poll(self, jobs: Sequence[Job], seconds: float) -> list[tuple[Job, Outcome]]:
        """What has ended, each once; waits so long at most where nothing has."""

    @abstractmethod
    def stop(self, jobs: Sequence[Job], work: Work) -> None:
        """No other run can go on: take back what was handed out."""

    def interrupted(self, jobs: Sequence[Job], work: Work) -> None:
        """Ctrl-C: by default the same as :meth:`stop`."""
        self.stop(jobs, work)

    # The driver's work ---------------------------------------------------------------------------

    def execute(self, work: Work) -> None:
        if work.runs:
            driver = _Driver(self, work)
            work.kept.drop_backbone()  # that probes have loaded: workers may be on this machine
            try:
                self.connect(work)
                driver.drive()
            finally:
                self.disconnect()


class _Driver:
    """The runs that are out, and those that other processes hold."""

    def __init__(self, engine: ClusterEngine, work: Work) -> None:
        self.engine, self.work = engine, work
        self.out: dict[Job, StudyRun] = {}
        self.held: list[StudyRun] = []
        self.deaths: Counter[str] = Counter()
        self.over = 0

    def drive(self) -> None:
        self.work.progress.start("runs", len(self.work.runs))
        try:
            self._begin()
            self._until_all_are_over()
        except KeyboardInterrupt:
            self.engine.interrupted(list(self.out), self.work)
            raise
        except Exception:
            self.engine.stop(list(self.out), self.work)
            raise
        finally:
            self.work.progress.finish()

    def _begin(self) -> None:
        new = []
        for run in self.work.runs:
            state = self.work.folder.state(run.key)
            if state == "finished" and not self.work.again:
                continue
            job = None if self.work.again else self.engine.find(run, self.work)
            if job is not None:
                self.out[job] = run
            elif state == "running":
                self._hold(run)
            else:
                new.append(run)
        if self.out:
            self.work.progress.say(f"{len(self.out)} runs were handed out before: waiting for them")
        asked = self._submit(new, again=self.work.again)
        for needs, count in Counter(map(str, asked)).items():
            self.work.progress.say(f"{self.engine.name}: {count} runs, each asking for {needs}")

    def _submit(self, runs: Sequence[StudyRun], *, again: bool) -> list[Needs]:
        engine, folder = self.engine, self.work.folder
        tickets = [
            (
                write_ticket(run, folder, again=again),
                needs_of(run, folder, engine.config, auto_gpus=engine.auto_gpus),
            )
            for run in runs
        ]
        if tickets:
            self.out |= dict(zip(engine.submit(tickets, self.work), runs, strict=True))
        return [needs for _, needs in tickets]

    def _hold(self, run: StudyRun) -> None:
        self.work.progress.say(f"another process is working on it: {run.name}")
        self.held.append(run)

    def _until_all_are_over(self) -> None:
        looked = last = time.monotonic()
        while self.out or self.held:
            if self.out:
                for job, outcome in self.engine.poll(list(self.out), POLL):
                    self._ended(self.out.pop(job), outcome)
                last = time.monotonic()
            else:
                time.sleep(min(POLL, self.engine.config.patience))
                if time.monotonic() - last > self.engine.config.patience:
                    self.work.progress.say(f"{len(self.held)} runs are left to other processes")
                    break
            if self.held and time.monotonic() - looked > HELD:
                looked = time.monotonic()
                self._look_at_held()

    def _look_at_held(self) -> None:
        """Take over what another process has left; forget what it has brought to its end."""
        states = [(run, self.work.folder.state(run.key)) for run in self.held]
        self.held = [run for run, state in states if state == "running"]
        left = [run for run, state in states if state in ("missing", "stopped")]
        for run in left:
            self.work.progress.say(f"continuing what another process left: {run.name}")
        self._submit(left, again=False)

    def _ended(self, run: StudyRun, outcome: Outcome) -> None:
        if outcome.kind == "stop":
            raise RunError(outcome.text)
        if outcome.kind == "full":
            raise Unwritable(outcome.text)
        if outcome.kind == "held":
            self._hold(run)
        elif outcome.kind == "died":
            self._died(run, outcome)
        else:
            self._say(run, self._settled(run, outcome), outcome.host)

    def _died(self, run: StudyRun, outcome: Outcome) -> None:
        folder = self.work.folder
        if folder.state(run.key) == "finished":  # it died after its work
            self._say(run, "finished", outcome.host)
            return
        self.deaths[run.key] += 1
        if self.deaths[run.key] <= self.engine.config.retries:
            tries = f"{self.deaths[run.key]} of {self.engine.config.retries}"
            self.work.progress.say(f"{outcome.text}: trying again ({tries}): {run.name}")
            self._submit([run], again=self.work.again)
            return
        folder.fail(run.key, f"{outcome.text}; {self.deaths[run.key]} times in all")
        self._say(run, "failed", outcome.host)

    def _settled(self, run: StudyRun, outcome: Outcome) -> str:
        """The state of a run that is over, once this machine's file system shows it."""
        deadline = time.monotonic() + self.engine.config.patience
        while (state := self.work.folder.state(run.key)) not in ("finished", "failed"):
            if time.monotonic() > deadline:
                raise RunError(
                    f"{outcome.host} has brought a run to its end ({run.name}), and the study's "
                    f"folder {str(self.work.folder.path)!r} does not show it on this machine"
                )
            time.sleep(0.2)
        return state

    def _say(self, run: StudyRun, state: str, host: str) -> None:
        self.over += 1
        self.work.progress.advance()
        at = f" on {host}" if host else ""
        why = f": {self.work.folder.error(run.key)}" if state == "failed" else ""
        self.work.progress.say(f"{self.over} of {len(self.work.runs)} {state}{at}: {run.name}{why}")
