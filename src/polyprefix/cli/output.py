"""What commands have in common: where they print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from polyprefix.cli.processes import first_process
from polyprefix.results import Progress, Silent


@contextmanager
def resumable() -> Iterator[None]:
    """Say, after Ctrl-C, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        if first_process():
            typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def progress_on(quiet: bool) -> Progress:
    """Bars or lines on standard error, or nothing."""
    from polyprefix.cli.progress import ConsoleProgress

    return Silent() if quiet or not first_process() else ConsoleProgress(Console(stderr=True))


def console() -> Console:
    """Standard output; as wide as it needs to be where it is no terminal."""
    out = Console(highlight=False, emoji=False, quiet=not first_process())
    if not out.is_terminal:
        out = Console(highlight=False, emoji=False, width=200, quiet=not first_process())
    return out
