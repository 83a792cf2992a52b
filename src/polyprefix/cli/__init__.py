"""The command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``polyprefix``: run a command. A user's mistake gets a message instead of a
    traceback, and exit status 2."""
    from polyprefix.cli.app import app
    from polyprefix.cli.processes import at_the_end, let_the_first_speak
    from polyprefix.config import PolyprefixError, printable

    with at_the_end():
        try:
            app()
        except PolyprefixError as error:
            let_the_first_speak()
            print(printable(f"error: {error}", keep="\n\t"), file=sys.stderr)
            sys.exit(2)
