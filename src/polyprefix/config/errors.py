"""Errors a user can act on.

Everything that goes wrong because of what the user gave is a :class:`PolyprefixError`; its text
says what was wrong, where, and what to do. The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PolyprefixError(Exception):
    """Base of all errors caused by input, configuration or environment rather than by a bug."""


class ConfigError(PolyprefixError):
    """A configuration that cannot be used: unknown key, wrong type, value out of range."""


class DataError(PolyprefixError):
    """Data that is missing, malformed or not what the task expects."""


class UnsupportedModel(PolyprefixError):
    """A backbone, or a combination of backbone and method, that cannot work."""


class RunError(PolyprefixError):
    """A run that cannot start, continue or be read."""


class Unwritable(RunError):
    """A folder that cannot be written to, or a full disk."""


class OutOfMemory(RunError):
    """Memory does not suffice, however little is computed at once."""


class RunLocked(RunError):
    """Another process is working on the run."""


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: what was given, a suggestion, what exists."""
    known = sorted(known)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {given!r}.{hint} Known: {', '.join(known) or 'none'}."
