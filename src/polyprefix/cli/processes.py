"""What commands know of processes that a launcher started beside this one."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NoReturn

GRACE = 3.0
"""Seconds that other processes leave the first one, before they say why they end: most often for
the same reason, and their launcher ends all of them once one has ended."""


def several_processes() -> bool:
    """Whether a launcher started others beside this one."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def first_process() -> bool:
    """Whether this is the process that prints, of those that were started together."""
    return not several_processes() or os.environ["RANK"] == "0"


@cache
def let_the_first_speak() -> None:
    """Where a command fails: wait, in all processes but the first one."""
    if not first_process():
        time.sleep(GRACE)


def started_alone() -> str | None:
    """What there is to say where ``accelerate launch --cpu`` was to start several processes."""
    alone = "RANK" not in os.environ and "MASTER_ADDR" in os.environ
    if alone and os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1"):
        return (
            "note: accelerate launch --cpu has started one process, whatever --num_processes says; "
            "torchrun --nproc-per-node 2 -m polyprefix run ... starts two on the CPU"
        )
    return None


@contextmanager
def at_the_end() -> Iterator[None]:
    """Take leave of the other processes when a command is over, whichever way."""
    try:
        yield
    except SystemExit as end:
        if not _connected():
            raise
        if end.code in (None, 0):
            from polyprefix.distributed import leave

            leave()
            raise
        _end(end.code if isinstance(end.code, int) else 1)
    except Exception:
        if not _connected():
            raise
        let_the_first_speak()
        traceback.print_exc()
        _end(1)


def _connected() -> bool:
    """Whether this process has met the others: what has not imported torch has not."""
    if "polyprefix.distributed" not in sys.modules:
        return False
    from polyprefix.distributed import connected

    return connected()


def _end(status: int) -> NoReturn:
    """Not by way of what torch tidies up at the end, which may wait for the others."""
    let_the_first_speak()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
