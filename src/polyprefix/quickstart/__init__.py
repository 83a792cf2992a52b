"""Packaged sentences, and one run on them with the packaged model: no network, no GPU."""

from polyprefix.quickstart.run import (
    DATA,
    LANGUAGES,
    METHOD,
    MODEL,
    STEPS,
    next_step,
    quickstart,
    quickstart_config,
)

__all__ = [
    "DATA",
    "LANGUAGES",
    "METHOD",
    "MODEL",
    "STEPS",
    "next_step",
    "quickstart",
    "quickstart_config",
]
