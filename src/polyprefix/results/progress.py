"""How long work tells what it is doing, whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One line of progress at a time."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Work of ``total`` units begins, of which ``done`` were done before."""

    def advance(self, units: int = 1, note: str = "") -> None:
        """``units`` more are done; ``note`` is what a watcher wants to know now."""

    def finish(self) -> None:
        """The work that was started is over."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """Shows nothing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        pass

    def advance(self, units: int = 1, note: str = "") -> None:
        pass

    def finish(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass
