"""Runs as jobs of SLURM, through submitit."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from polyprefix.config import ConfigError, RunError, StudyRun
from polyprefix.study.engines.base import Work, needed, register_engine
from polyprefix.study.engines.cluster import ClusterEngine, Job
from polyprefix.study.engines.needs import Needs, NeedsConfig
from polyprefix.study.engines.worker import Outcome, Ticket, work

ARRAY = 500
"""Jobs of one array at most; SLURM's own limit is 1001 unless a site sets another."""

LOOK = 15.0
"""Seconds between two looks at the queue. That a job has its result is seen without one."""

LINES = 5
"""Of a dead job's error stream that are shown."""


def minutes(value: Any) -> Any:
    """SLURM's forms of a time: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; rounded up."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value.strip())
    if found is None:
        raise ValueError("expected a time as SLURM writes it: 240, 4:00:00 or 1-12:00:00")
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is not None:
        return days * 1440 + (first or 0) * 60 + (second or 0) + math.ceil((third or 0) / 60)
    if third is not None:
        return (first or 0) * 60 + (second or 0) + math.ceil(third / 60)
    return (first or 0) + math.ceil((second or 0) / 60)


class SlurmConfig(NeedsConfig):
    """``time``: of a job, as SLURM writes it. Without it, three times what a probe says and half an
    hour. ``partition``, ``account``, ``qos``, ``constraint``: as sbatch has them.
    ``parallel``: jobs that run at once, at most. ``setup``: a shell command before each job.
    ``timeouts``: how often a job that reaches its time is put into the queue again, where the run
    goes on from its last checkpoint. ``sbatch.OPTION``: any other option of sbatch.
    ``cluster``: ``local`` starts the jobs as processes of this machine, all at once: for trying.
    """

    cluster: Literal["slurm", "local"] = "slurm"
    time: Annotated[int, Field(gt=0), BeforeValidator(minutes)] | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallel: Annotated[int, Field(gt=0)] = 256
    setup: str | None = None
    timeouts: Annotated[int, Field(ge=0)] = 10
    sbatch: dict[str, str] = Field(default_factory=dict)


class Resumed:
    """The worker's function; submitit asks it what to do when a job's time is up: the same again,
    since a run goes on from its checkpoint."""

    def __call__(self, ticket: Ticket) -> Outcome:
        return work(ticket)

    def checkpoint(self, ticket: Ticket) -> Any:
        """What is put into the queue again; see submitit's documentation of checkpointing."""
        return needed("submitit", "slurm").helpers.DelayedSubmission(Resumed(), ticket)


@register_engine
class SlurmEngine(ClusterEngine):
    """A job a run. Jobs outlive the driver: started again, it waits for those it had submitted."""

    name = "slurm"
    title = "a job of SLURM for each run"
    Config = SlurmConfig
    config: SlurmConfig

    def __init__(self, config: SlurmConfig) -> None:
        super().__init__(config)
        self.submitit = needed("submitit", "slurm")
        self._looked = time.monotonic()
        self._missing: set[str] = set()
        self._earlier: set[str] | None = None

    def connect(self, work: Work) -> None:
        try:
            self._executor(work)
        except RuntimeError as error:
            raise RunError(
                f"this machine cannot submit to SLURM: {error} Start the study where sbatch and "
                "srun are; --engine-set cluster=local tries it on this machine"
            ) from None

    def _executor(self, work: Work) -> Any:
        folder = _jobs(work) / "%j"
        limits = {f"{self.config.cluster}_max_num_timeout": self.config.timeouts}
        return self.submitit.AutoExecutor(folder, cluster=self.config.cluster, **limits)

    def _job(self, work: Work, name: str) -> Any:
        module = getattr(self.submitit, self.config.cluster)
        kinds = {"slurm": "SlurmJob", "local": "LocalJob"}
        kind = getattr(getattr(module, self.config.cluster), kinds[self.config.cluster])
        return kind(folder=_jobs(work) / "%j", job_id=name)

    def find(self, run: StudyRun, work: Work) -> Job | None:
        found = work.folder.job(run.key)
        if found is None or found.get("cluster") != self.config.cluster:
            return None
        job = self._job(work, found["job"])
        if job.paths.result_pickle.exists():
            return None  # it has ended, and left the run as its files say
        if self._earlier is None:
            self._earlier = self._queue()
        if self._earlier is None:
            raise RunError("squeue does not answer, so it is not known which jobs there are")
        return job if job.job_id in self._earlier else None

    def _queue(self) -> set[str] | None:
        """The user's jobs that wait or are running; ``None``: SLURM does not answer now.

        submitit asks sacct, which sites without accounting do not have.
        """
        if self.config.cluster == "local":
            return set()
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        return set(done.stdout.split())

    def submit(self, tickets: Sequence[tuple[Ticket, Needs]], work: Work) -> Sequence[Job]:
        jobs: dict[str, Any] = {}
        kinds: dict[Needs, list[Ticket]] = {}
        for ticket, needs in tickets:
            kinds.setdefault(self._rounded(needs), []).append(ticket)
        for needs, alike in kinds.items():
            executor = self._executor(work)
            executor.update_parameters(**self._parameters(needs, work))
            for first in range(0, len(alike), ARRAY):
                part = alike[first : first + ARRAY]
                try:
                    made = executor.map_array(Resumed(), part)
                except Exception as error:  # sbatch says no: submitit passes on what it printed
                    raise RunError(f"SLURM does not take the jobs: {error}") from None
                for ticket, job in zip(part, made, strict=True):
                    work.folder.write_job(ticket.key, self.config.cluster, job.job_id)
                    jobs[ticket.key] = job
        return [jobs[ticket.key] for ticket, _ in tickets]

    def _rounded(self, needs: Needs) -> Needs:
        """So that runs that are nearly alike are one array."""
        memory = None if needs.memory is None else math.ceil(needs.memory / 2**30) * 2**30
        time_ = self.config.time
        if time_ is None and needs.seconds is None and self.config.cluster == "slurm":
            raise ConfigError(
                "how long will a run take? There is no estimate: say --engine-set time=4:00:00, or "
                "let this machine make one with --estimates"
            )
        if time_ is None:
            time_ = math.ceil((3 * (needs.seconds or 0) / 60 + 30) / 30) * 30
        for key, value in (("cpus", needs.cpus), ("gpus", needs.gpus)):
            if value != int(value):
                raise ConfigError(f"--engine-set {key}={value:g}: SLURM gives whole ones only")
        return Needs(needs.cpus, needs.gpus, memory, time_ * 60)

    def _parameters(self, needs: Needs, work: Work) -> dict[str, Any]:
        config = self.config
        found = {
            "name": "polyprefix",
            "timeout_min": int((needs.seconds or 0) // 60),
            "cpus_per_task": int(needs.cpus),
            "gpus_per_node": int(needs.gpus) or None,
            "mem_gb": None if needs.memory is None else needs.memory / 2**30,
            "slurm_partition": config.partition,
            "slurm_account": config.account,
            "slurm_qos": config.qos,
            "slurm_constraint": config.constraint,
            "slurm_array_parallelism": config.parallel,
            "slurm_additional_parameters": dict(config.sbatch) or None,
            f"{config.cluster}_setup": None if config.setup is None else [config.setup],
        }
        return {key: value for key, value in found.items() if value is not None}

    def poll(self, jobs: Sequence[Job], seconds: float) -> list[tuple[Job, Outcome]]:
        ended = [(job, self._result(job)) for job in jobs if _has_result(job)]
        if ended:
            return ended
        if self.config.cluster == "local":
            gone = [job for job in jobs if job.done()]
        else:
            gone = self._gone(jobs)
        # A result that came just before the job went.
        ended = [(job, self._result(job) if _has_result(job) else _died(job)) for job in gone]
        if not ended:
            time.sleep(seconds)
        return ended

    def _result(self, job: Job) -> Outcome:
        try:
            outcome: Outcome = job.result()
        except self.submitit.core.utils.FailedJobError as error:
            trace = str(error).rpartition("-----\nYou can")[0].strip("- \n")
            text = f"job {job.job_id} cannot work: {trace.rpartition(chr(10))[2]}; see its log, "
            return Outcome("stop", text=f"{text}{job.paths.stderr}")
        return outcome

    def _gone(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs that two looks at the queue, some seconds apart, did not find."""
        if time.monotonic() - self._looked < LOOK:
            return []
        self._looked = time.monotonic()
        queue = self._queue()
        if queue is None:
            return []
        missing = {job.job_id for job in jobs} - queue
        gone = [job for job in jobs if job.job_id in missing & self._missing]
        self._missing = missing
        return gone

    def stop(self, jobs: Sequence[Job], work: Work) -> None:
        for job in jobs:
            job.cancel(check=False)

    def interrupted(self, jobs: Sequence[Job], work: Work) -> None:
        """Jobs stay: who waits in a queue for days does not want to lose the place."""
        names = [job.job_id for job in jobs]
        if not names or self.config.cluster == "local":  # those have had the same Ctrl-C
            self.stop(jobs, work)
            return
        arrays = " ".join(dict.fromkeys(name.partition("_")[0] for name in names))
        work.progress.say(
            f"{len(names)} jobs are left in the queue; the same command waits for them. To cancel "
            f"them: scancel {arrays}"
        )


def _jobs(work: Work) -> Path:
    """Where submitit keeps a folder for each job, with its log."""
    return work.folder.path.absolute() / "study" / "slurm"


def _has_result(job: Job) -> bool:
    # Its folder's mode is set anew, which lets NFS look again; submitit does the same.
    with suppress(OSError):
        job.paths.folder.chmod(job.paths.folder.stat().st_mode)
    found: bool = job.paths.result_pickle.exists()
    return found


def _died(job: Job) -> Outcome:
    said = (job.stderr() or "").strip().splitlines()[-LINES:]
    text = f"job {job.job_id} ended without a result; the end of its log, {job.paths.stderr}: "
    return Outcome("died", text=text + (" / ".join(line.strip() for line in said) or "nothing"))
