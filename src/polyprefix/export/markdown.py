"""Texts of data sets in Markdown: shown as they are, never as markup."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

_MARKUP = re.compile(r"([\\`*_\[\]|~#$])")
_JOINERS = {"\u200c", "\u200d"}
"""Invisible characters that words of some scripts are written with."""


class Raw(str):
    """A text that is Markdown already."""

    __slots__ = ()


def one_line(value: str) -> str:
    """Without line breaks, and with control characters and those that turn text around shown."""
    return _visible(" ".join(value.split()))


def _visible(value: str) -> str:
    return "".join(
        c if c in _JOINERS or unicodedata.category(c) not in {"Cc", "Cf", "Cs"} else "\ufffd"
        for c in value
    )


def text(value: Any) -> str:
    """Anything as a piece of a paragraph or of a table's cell; :class:`Raw` stays as it is."""
    if isinstance(value, Raw):
        return value
    return _MARKUP.sub(r"\\\1", html.escape(one_line(str(value)), quote=False))


def fenced(value: str, language: str = "text") -> Raw:
    """A block of code, whatever is in it."""
    lines = [_visible(line) for line in value.replace("\t", "    ").split("\n")]
    longest = max(map(len, re.findall("`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return Raw("\n".join([f"{fence}{language}", *lines, fence]))
