"""A finished run's adapter, written for other programs: one file a target."""

from polyprefix.export import hub, merged, peft, vocabulary
from polyprefix.export.base import Source, Target, Told, export, register_target, targets

__all__ = [
    "Source",
    "Target",
    "Told",
    "export",
    "hub",
    "merged",
    "peft",
    "register_target",
    "targets",
    "vocabulary",
]
