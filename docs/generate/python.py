"""The Python reference: what packages export, each thing on one page; mkdocstrings shows it."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PACKAGES = {
    "polyprefix": "What most programs need: load, attach, train, evaluate, save.",
    "polyprefix.config": "Strict specifications, run identity, and errors that a user can act on.",
    "polyprefix.languages": "The table of languages, and how one is asked for.",
    "polyprefix.models": "Backbones: loading, families, prefix-aware attention.",
    "polyprefix.models.batching": "Packing: texts in rows, with what they share computed once.",
    "polyprefix.tasks": "Tasks and the data of a run.",
    "polyprefix.methods": "Adaptation methods, and the model they are attached to.",
    "polyprefix.training": "The one training loop.",
    "polyprefix.evaluation": "Scoring of choices, writing of answers, and metrics.",
    "polyprefix.results": "What a run leaves behind: whole files or none.",
    "polyprefix.analysis": "Statistics over records, without torch.",
}
"""Documented packages, in the order of the floors, the top first; what one exports that an earlier
one has shown is a link."""


def pages() -> dict[str, str]:
    """A page a package."""
    shown: dict[str, str] = {}
    found = {}
    for package, about in PACKAGES.items():
        lines = [f"---\ntitle: {package}\n---\n\n# `{package}` {{#{package}}}\n\n{about}\n"]
        again = []
        for name in exported(import_module(package)):
            key = identity(import_module(package), name)
            thing = key if is_module(package, name) else f"{package}.{name}"
            if key in shown:
                again.append(f"[`{name}`][{shown[key]}]")
            else:
                shown[key] = thing
                lines.append(f"\n::: {thing}\n")
        if again:
            lines.insert(1, f"\nAlso here: {', '.join(again)}.\n")
        found[f"reference/python/{package}.md"] = "".join(lines)
    return found


def exported(package: ModuleType) -> list[str]:
    """What a package exports, without its modules; of a module its public functions and classes."""
    names = getattr(package, "__all__", None) or [
        name
        for name, thing in vars(package).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == package.__name__
    ]
    return [name for name in names if not inspect.ismodule(getattr(package, name))]


def is_module(package: str, name: str) -> bool:
    """Whether a package has a module of that name, which would be shown in the thing's place."""
    return (
        hasattr(import_module(package), "__path__") and find_spec(f"{package}.{name}") is not None
    )


def identity(package: ModuleType, name: str) -> str:
    """The same for a thing under each of its names."""
    thing: Any = getattr(package, name)
    module, own = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return (
        f"{module}.{own}"
        if module and own and module.startswith("polyprefix")
        else f"{package.__name__}.{name}"
    )
