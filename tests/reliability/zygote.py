"""A process that has imported everything and forks one for each command: a life of a run takes
about a second, begins with reading its configuration, and can be ended at a chosen moment.

Run as a program (``python -m tests.reliability.zygote``) it reads a JSON object a line: ``argv``,
``out`` (where output goes), ``watch`` (a folder), ``kill_at`` (the number of the write below that
folder before which the process kills itself; -1: none). It answers ``{"pid": ...}`` at once and,
once the process is over, ``{"pid", "status", "writes", "seconds"}``.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "fsync"}
"""Audit events of what changes a folder, beside files opened to be written."""


# The forked process -------------------------------------------------------------------------------


def count_writes(watch: str, kill_at: int, report: int) -> None:
    """Count what is about to change below a folder, and die before the one that was named."""
    writes = 0

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
        os.pwrite(report, str(writes).encode().ljust(12), 0)

    whole = os.fsync

    def fsync(handle: int) -> None:  # no audit event tells of it
        hook("fsync", (handle,))
        whole(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def child(command: dict[str, Any], report: int) -> None:
    from polyprefix.cli import main

    out = os.open(command["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if command["watch"]:
        count_writes(command["watch"], command["kill_at"], report)
    sys.argv = ["polyprefix", *command["argv"]]
    main()


def serve() -> None:
    """Fork for each line of standard input; say how each process ended."""
    import polyprefix.cli.app
    import polyprefix.study  # noqa: F401 - what takes long to import

    print(json.dumps({"ready": True}), flush=True)
    running: dict[int, tuple[float, int]] = {}
    chosen = selectors.DefaultSelector()
    chosen.register(0, selectors.EVENT_READ)
    lines, open_ = b"", True
    while open_ or running:
        if open_ and chosen.select(0.002):
            read = os.read(0, 65536)
            open_ = bool(read)
            lines += read
            while b"\n" in lines:
                line, lines = lines.split(b"\n", 1)
                report = os.memfd_create("writes")
                if (pid := os.fork()) == 0:
                    status = 70
                    try:
                        child(json.loads(line), report)
                    except SystemExit as stop:
                        status = stop.code if isinstance(stop.code, int) else 0
                    except BaseException:
                        import traceback

                        traceback.print_exc()
                    finally:
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os._exit(status)
                running[pid] = time.monotonic(), report
                print(json.dumps({"pid": pid}), flush=True)
        elif not open_:
            time.sleep(0.002)
        while running:
            pid, ended = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            started, report = running.pop(pid)
            answer = {
                "pid": pid,
                "status": os.waitstatus_to_exitcode(ended),
                "writes": int(os.pread(report, 12, 0) or 0),
                "seconds": time.monotonic() - started,
            }
            os.close(report)
            print(json.dumps(answer), flush=True)


# The test's side ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """How a process ended: ``status`` is -9 for one that was killed."""

    status: int
    writes: int
    seconds: float
    output: str


class Zygote:
    """Runs ``polyprefix`` commands."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.zygote"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._outputs: dict[int, Path] = {}
        self._ended: dict[int, Life] = {}
        self._count = 0
        assert self._answer() == {"ready": True}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the zygote is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self, argv: Sequence[str], *, watch: Path | None = None, kill_at: int = -1) -> int:
        """Begin a command; the number of its process."""
        self._count += 1
        out = self.place / f"output-{self._count}.txt"
        command = {
            "argv": list(argv),
            "out": str(out),
            "watch": "" if watch is None else str(watch),
            "kill_at": kill_at,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        while True:
            answer = self._answer()
            if "status" not in answer:
                pid: int = answer["pid"]
                self._outputs[pid] = out
                return pid
            self._keep(answer)

    def _keep(self, answer: dict[str, Any]) -> None:
        pid = answer.pop("pid")
        path = self._outputs.pop(pid)
        text = path.read_text(errors="replace") if path.exists() else ""
        self._ended[pid] = Life(**answer, output=text)

    def wait(self, pid: int) -> Life:
        """How a command ended."""
        while pid not in self._ended:
            self._keep(self._answer())
        return self._ended.pop(pid)

    def run(self, argv: Sequence[str], *, watch: Path | None = None, kill_at: int = -1) -> Life:
        """A command to its end."""
        return self.wait(self.start(argv, watch=watch, kill_at=kill_at))

    def run_for(self, seconds: float, argv: Sequence[str]) -> Life:
        """A command that is killed after some time, if it is not over by then."""
        pid = self.start(argv)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


if __name__ == "__main__":
    serve()
