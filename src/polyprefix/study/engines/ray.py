"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from polyprefix.config import ConfigError, RunError
from polyprefix.results import Progress
from polyprefix.study.engines.base import Work, needed, register_engine
from polyprefix.study.engines.cluster import ClusterEngine, Job
from polyprefix.study.engines.needs import Needs, NeedsConfig
from polyprefix.study.engines.worker import Outcome, Ticket, work

CONNECT = 5.0
"""Seconds for a cluster's head to answer. Ray itself would go on asking for minutes."""

STOP = 120.0
"""Seconds for runs to write their checkpoints after Ctrl-C."""


class RayConfig(NeedsConfig):
    """``address``: of the cluster's head, ``host:6379``; ``auto``: the cluster that this machine is
    a node of, or what ``RAY_ADDRESS`` says; ``local``: a cluster of this machine alone, for the
    time of the study, which spreads runs over its GPUs."""

    address: str = "auto"


@register_engine
class RayEngine(ClusterEngine):
    """A task a run, in a process of its own. The driver must be on a node of the cluster. A driver
    that ends takes its tasks along: they go on from their checkpoints when it is started again."""

    name = "ray"
    title = "a task of a Ray cluster for each run"
    Config = RayConfig
    config: RayConfig

    def __init__(self, config: RayConfig) -> None:
        super().__init__(config)
        self.ray = needed("ray", "ray")
        self._connected = False

    def connect(self, work: Work) -> None:
        if not self.ray.is_initialized():
            self._connect()
        self.auto_gpus = self.ray.cluster_resources().get("GPU", 0) > 0

    def _connect(self) -> None:
        address = self.config.address
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS") or "auto"
        options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        elif address != "auto" and "://" not in address:
            _answers(address)
        try:
            self.ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # Ray has no error of its own for this
            raise RunError(
                f"no Ray cluster at {address!r}: {_first_line(error)}. Start one with 'ray start "
                "--head', or name one: --engine-set address=HOST:6379; address=local makes one of "
                "this machine. The driver must be on a node of the cluster"
            ) from None
        self._connected = True

    def disconnect(self) -> None:
        if self._connected:
            self.ray.shutdown()
            self._connected = False

    def submit(self, tickets: Sequence[tuple[Ticket, Needs]], work_: Work) -> Sequence[Job]:
        # A process of its own for each run: memory that a worker keeps would not be counted.
        # Retries are the driver's, who says so.
        task = self.ray.remote(max_calls=1, max_retries=0)(work)
        _tell_what_no_node_has(self.ray.nodes(), {n for _, n in tickets}, work_.progress)
        return [
            task.options(
                num_cpus=needs.cpus,
                num_gpus=needs.gpus,
                memory=needs.memory,
                name=f"polyprefix {ticket.key}",
            ).remote(ticket)
            for ticket, needs in tickets
        ]

    def poll(self, jobs: Sequence[Job], seconds: float) -> list[tuple[Job, Outcome]]:
        ended, _ = self.ray.wait(list(jobs), num_returns=len(jobs), timeout=seconds)
        return [(job, self._outcome(job)) for job in ended]

    def _outcome(self, job: Job) -> Outcome:
        errors = self.ray.exceptions
        try:
            outcome: Outcome = self.ray.get(job)
        except errors.LocalRayletDiedError as error:
            return Outcome("stop", text=f"this machine has left the Ray cluster: {error}")
        except errors.TaskUnschedulableError as error:
            return Outcome("stop", text=f"Ray cannot place a run: {error}")
        except errors.RayTaskError as error:
            text = f"a worker cannot work: {_last_line(error)}"
            return Outcome("stop", text=f"{text}. Is polyprefix installed on all nodes?")
        except errors.OutOfMemoryError:
            return Outcome("died", text="Ray stopped a worker, as its node was out of memory")
        except errors.RayError as error:
            return Outcome("died", text=f"a worker died ({type(error).__name__})")
        return outcome

    def stop(self, jobs: Sequence[Job], work: Work) -> None:
        """Runs that are under way write a checkpoint, as after Ctrl-C, and end."""
        if not jobs:
            return
        work.progress.say("stopping the runs: each writes a checkpoint; Ctrl-C does not wait")
        with suppress(KeyboardInterrupt):
            for job in jobs:
                self.ray.cancel(job, force=False, recursive=False)
            self.ray.wait(list(jobs), num_returns=len(jobs), timeout=STOP)


def _answers(address: str) -> None:
    """Whether something listens at an address.

    Raises:
        ConfigError: it is no address.
        RunError: nothing answers.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ConfigError(f"--engine-set address={address}: expected HOST:PORT, 'auto' or 'local'")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"no Ray cluster at {address!r}: {error}. 'ray start --head' starts one and says its "
            "address"
        ) from None


def _tell_what_no_node_has(
    nodes: Sequence[dict[str, Any]], all_needs: set[Needs], progress: Progress
) -> None:
    """A cluster may grow, so a run that fits nowhere waits; but somebody should know."""
    for needs in all_needs:
        asked = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory or 0}
        fits = any(
            node["Alive"] and all(node["Resources"].get(k, 0) >= v for k, v in asked.items())
            for node in nodes
        )
        if not fits:
            progress.say(f"no node of the cluster has {needs}: waiting for one that does")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0].rstrip(".")


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[-1].rstrip(".")
