"""An extension of griffe: docstrings here use reStructuredText's roles and ``::``, and the site is
Markdown. Roles become links, blocks become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")


LISTED = re.compile(r"(?m)^Class attributes:\n((?: +.*\n)+)")
"""A section of ours that is none of Google's."""


def _list(found: re.Match[str]) -> str:
    """Its items as a list; what goes on is indented further."""
    items = re.sub(r"(?m)^ {4}(\w+): ", r"* **`\1`** – ", found[1])
    return f"**Class attributes:**\n\n{items}"


class Docstrings(griffe.Extension):
    """Rewrites docstrings once all of a package is read, so that names can be looked up."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Every docstring of a package."""
        rewrite(pkg)


def rewrite(thing: griffe.Object) -> None:
    """The docstring of a thing and of all that it holds; roles become links to what they name,
    seen from where they stand."""
    for member in thing.members.values():
        if isinstance(member, griffe.Object):  # aliases are of things that stand elsewhere
            rewrite(member)
    if thing.docstring is None:
        return

    def link(found: re.Match[str]) -> str:
        name = found[1]
        try:
            path = name if name.startswith("polyprefix.") else thing.resolve(name)
        except griffe.NameResolutionError:
            return f"`{name}`"
        if not path.startswith("polyprefix."):
            return f"`{name}`"
        # Optional: not everything that a docstring names is in the reference.
        shown = name.rpartition(".")[2]
        return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'

    text = LISTED.sub(_list, ROLE.sub(link, thing.docstring.value))
    # "Text::" ends in a colon, "::" alone is nothing; what follows is indented, and so is code.
    thing.docstring.value = re.sub(r"(?m)^ *::$", "", text).replace("::\n", ":\n")
