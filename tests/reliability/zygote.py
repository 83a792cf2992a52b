"""``polyprefix`` commands in processes that can be killed at a chosen moment.

A life of a small run takes a second, and importing torch takes longer: so the processes are forked
by a server that has imported everything (``multiprocessing``'s), and begin with reading their
configuration.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "fsync"}
"""Audit events of what changes a folder, beside files opened to be written."""

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["polyprefix.cli.app", "polyprefix.study", "polyprefix.report.figures"]
)


def count_writes(watch: str, kill_at: int, report: Path) -> None:
    """Count in a file what is about to change below a folder, and die before one that is named.

    Args:
        watch: the folder.
        kill_at: the number of the change before which this process kills itself; -1: none.
        report: the file.
    """
    writes = 0
    count = os.open(report, os.O_WRONLY | os.O_CREAT)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal writes
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in CHANGES:
            return
        path = arguments[0]
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return
        if not os.fsdecode(path).startswith(watch):
            return
        if writes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        writes += 1
        os.pwrite(count, str(writes).encode(), 0)

    whole = os.fsync

    def fsync(handle: int) -> None:  # no audit event tells of it
        hook("fsync", (handle,))
        whole(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def live(argv: list[str], out: Path, watch: str, kill_at: int, largest: int) -> None:
    """What a process does: a command, whose output goes to a file."""
    from polyprefix.cli import main
    from polyprefix.report import figures

    vars(figures)["figures"] = lambda *_, **__: []  # to draw takes longer than all else together
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(out, os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if watch:
        count_writes(watch, kill_at, out.with_suffix(".writes"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, -1))
    sys.argv = ["polyprefix", *argv]
    main()


@dataclass(frozen=True)
class Life:
    """How a process ended: ``status`` is -9 for one that was killed."""

    status: int
    writes: int
    seconds: float
    output: str


class Zygote:
    """Begins ``polyprefix`` commands; their outputs are in a folder."""

    def __init__(self, place: Path) -> None:
        self._place, self._count = place, 0
        assert self.run(["--version"]).status == 0  # the server has started: lives are short now

    def start(
        self,
        argv: Sequence[str],
        *,
        watch: Path | None = None,
        kill_at: int = -1,
        largest: int = resource.RLIM_INFINITY,
    ) -> Process:
        """Begin a command.

        Args:
            argv: without the program's name.
            watch: a folder; what changes below it is counted.
            kill_at: the number of the change before which the process kills itself; -1: none.
            largest: bytes that a file may have; writing more is an error.
        """
        self._count += 1
        out = self._place / f"output-{self._count}.txt"
        return Process(list(argv), out, "" if watch is None else str(watch), kill_at, largest)

    def run(self, argv: Sequence[str], **options: Any) -> Life:
        """A command to its end, as in :meth:`start`."""
        return self.start(argv, **options).end()


class Process:
    """A command that was begun."""

    def __init__(self, argv: list[str], out: Path, *options: Any) -> None:
        self._out, self._started = out, time.monotonic()
        self._process = FORKED.Process(target=live, args=(argv, out, *options))
        self._process.start()

    def end(self, seconds: float | None = None) -> Life:
        """How it ended: by itself, or killed after some seconds."""
        self._process.join(seconds)
        if seconds is not None:
            self._process.kill()
            self._process.join()
        lasted = time.monotonic() - self._started
        count = self._out.with_suffix(".writes")
        writes = int(count.read_text() or 0) if count.exists() else 0
        output = self._out.read_text(errors="replace") if self._out.exists() else ""
        status = self._process.exitcode
        assert status is not None
        return Life(status, writes, lasted, output)
