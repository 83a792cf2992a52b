"""What commands know of processes that a launcher started beside this one."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

GRACE = 3.0
"""Seconds that other processes leave the first one, before they end for the same reason: their
launcher ends all of them once one has, and the first one still has to say why."""


def several_processes() -> bool:
    """Whether a launcher started others beside this one."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def first_process() -> bool:
    """Whether this is the process that prints, of those that were started together."""
    return not several_processes() or os.environ["RANK"] == "0"


@contextmanager
def at_the_end() -> Iterator[None]:
    """Take leave of the other processes when a command is over, whichever way."""
    if not several_processes():
        yield
        return
    try:
        yield
    except SystemExit as end:
        if end.code not in (None, 0):
            if not first_process():
                time.sleep(GRACE)
            # Not by way of what torch tidies up at the end, which may wait for the others.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        from polyprefix.distributed import leave

        leave()
        raise
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
