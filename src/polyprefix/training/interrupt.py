"""Ctrl-C between two steps instead of within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:  # a second one does not wait
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def held_back() -> Iterator[Interrupt]:
    """Hold SIGINT back while a step is half done: the caller looks at ``requested`` between steps,
    where what it leaves behind is whole. Outside the main thread, where Python delivers no
    signals, and under a handler of somebody else's, nothing changes."""
    interrupt = Interrupt()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
