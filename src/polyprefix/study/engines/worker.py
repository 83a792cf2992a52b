"""A run on a machine that is not the driver's.

The driver sends a ticket: plain values, and what the worker is to find. A worker that does not see
the study's folder, the data or the same version says so before it does anything: its error is of
the machine and not of the run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from polyprefix.config import RunConfig, StudyRun, Unwritable, is_task_file
from polyprefix.results import Silent, StudyFolder, package_versions
from polyprefix.study.kept import Kept
from polyprefix.study.single import run_single

SEEN = 15.0
"""Seconds in which a shared file system shows what another machine has written."""


@dataclass(frozen=True)
class Ticket:
    """A run, as it is sent to a worker.

    Attributes:
        key, labels, config: the run's.
        again: run it anew.
        driver: the host that sends it.
        folder: the study's, from the root.
        mark: what the folder is known by, whoever sees it.
        cwd: the driver's working folder, where one of the run's paths starts there.
        paths: by their key, local files and folders that the run reads and the driver has seen.
        version: Polyprefix's.
    """

    key: str
    labels: dict[str, Any]
    config: dict[str, Any]
    again: bool
    driver: str
    folder: str
    mark: str
    cwd: str | None
    paths: dict[str, str]
    version: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    ``over``: it has finished or failed, as its files say. ``held``: another process is working on
    it. ``stop``: no run could go on there, for the reason in ``text``; ``full``: for want of room.
    ``died``: its worker ended without a word; ``text`` says what is known.
    """

    kind: Literal["over", "held", "stop", "full", "died"]
    host: str = ""
    text: str = ""


def write_ticket(run: StudyRun, folder: StudyFolder, *, again: bool) -> Ticket:
    """The ticket of a run.

    Raises:
        Unwritable: the study's folder cannot be written to.
    """
    config = run.config
    given = {"task.data": config.task.data, "task.train_data": config.task.train_data}
    given["model.name"] = config.model.name
    if is_task_file(config.task.name):
        given["task.name"] = config.task.name
    paths = {key: path for key, path in given.items() if path and _there(path)}
    relative = [path for path in (*paths.values(), config.output) if not _path(path).is_absolute()]
    return Ticket(
        key=run.key,
        labels=run.labels,
        config=config.model_dump(mode="json"),
        again=again,
        driver=socket.gethostname(),
        folder=str(folder.path.absolute()),
        mark=folder.mark(),
        cwd=os.getcwd() if relative else None,
        paths=paths,
        version=package_versions()["polyprefix"],
    )


def work(ticket: Ticket) -> Outcome:
    """Do what a ticket says, in the worker's process."""
    host = socket.gethostname()
    folder = StudyFolder(Path(ticket.folder))
    if (installed := package_versions()["polyprefix"]) != ticket.version:
        text = f"{host} has polyprefix {installed}, {ticket.driver} has {ticket.version}"
        return Outcome("stop", host, f"{text}: install the same version on both")
    if not _in_time(partial(folder.marked, ticket.mark)):
        return Outcome(
            "stop",
            host,
            f"{host} does not see the study's folder {ticket.folder!r} of {ticket.driver}: put it "
            "where all machines see it under the same path (--output)",
        )
    if ticket.cwd is not None and not Path(ticket.cwd).is_dir():
        return Outcome(
            "stop",
            host,
            f"{host} has no folder {ticket.cwd!r}, where {ticket.driver} works: start the study in "
            "a folder that all machines see, or give paths from the root",
        )
    with _working_in(ticket.cwd):
        for key, path in ticket.paths.items():
            if not _in_time(partial(_there, path)):
                text = f"{host} does not have {path!r} (key {key!r}), {ticket.driver} does"
                return Outcome("stop", host, f"{text}: put it where all machines see it")
        run = StudyRun(RunConfig.read(ticket.config), ticket.labels, ticket.key)
        try:
            ours = run_single(run, folder, Kept(), again=ticket.again, progress=Lines())
        except Unwritable as error:
            return Outcome("full", host, f"{host}: {error}")
    return Outcome("over" if ours else "held", host)


class Lines(Silent):
    """What is said goes to standard output, which clusters keep for each worker."""

    def say(self, text: str) -> None:
        print(text, flush=True)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _there(text: str) -> bool:
    return _path(text).exists()


def _in_time(seen: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SEEN
    while not seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


@contextmanager
def _working_in(folder: str | None) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder or before)
    try:
        yield
    finally:
        os.chdir(before)
