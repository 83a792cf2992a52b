"""Progress bars on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from polyprefix.config import printable

EVERY = 15.0
"""Seconds between lines where there is no terminal to draw a bar on."""


class ConsoleProgress:
    """Shows one piece of work at a time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._description = ""
        self._total = self._done = 0
        self._last = 0.0

    def start(self, description: str, total: int, done: int = 0) -> None:
        self._description, self._total, self._done = description, total, done
        self._last = time.monotonic()
        if not self._console.is_terminal:
            if done:
                self.say(f"{description}: {done} of {total} were done before")
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._bar.start()
        self._task = self._bar.add_task(description, total=total, completed=done, note="")

    def advance(self, units: int = 1, note: str = "") -> None:
        self._done += units
        if self._bar is not None:
            if note:
                self._bar.update(self._task, advance=units, note=note)
            else:
                self._bar.update(self._task, advance=units)
        elif time.monotonic() - self._last > EVERY:
            self._last = time.monotonic()
            self.say(f"{self._description}: {self._done} of {self._total} {note}".rstrip())

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        shown = printable(text, keep="\n\t")
        self._console.print(shown, markup=False, highlight=False, soft_wrap=True)
