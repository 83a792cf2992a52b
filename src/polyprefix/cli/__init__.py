"""The command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of ``polyprefix``: run a command; a user's mistake gets a message, not a
    traceback. Exit status 2 for such a mistake, 130 for Ctrl-C."""
    from polyprefix.cli.app import app
    from polyprefix.config import PolyprefixError

    try:
        app(standalone_mode=True)
    except PolyprefixError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, head for instance, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
