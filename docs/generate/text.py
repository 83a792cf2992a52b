"""Markdown, and the words of docstrings in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars and line breaks in cells are kept from ending them."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines) + "\n"


def cell(text: str) -> str:
    """A text that stays within a cell. In code a bar ends none, and is not to be escaped."""
    # Every third part is what stands between backticks, and that before it their fence.
    parts = re.split(r"(`+)(.+?)\1(?!`)", re.sub(r"[ \t\n]+", " ", text))
    for place in range(0, len(parts), 3):
        parts[place] = parts[place].replace("|", r"\|")
    for place in range(2, len(parts), 3):
        parts[place] += parts[place - 1]
    return "".join(parts)


def code(text: str) -> str:
    """Inline code, also of what has backticks."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def fenced(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def prose(docstring: str) -> str:
    """reStructuredText of docstrings as Markdown: roles are code, a closing ``::`` is a colon."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring)
    return re.sub(r"(?<=\S)::$", ":", text.replace("``", "`"), flags=re.MULTILINE)


def linked(text: str) -> str:
    """A text whose addresses and arXiv numbers are links."""
    text = re.sub(r"(?<![\[(<])(https?://[^\s,;)]+[^\s,;).])", r"<\1>", text)
    return re.sub(r"(?<!/)arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


@cache
def _package() -> griffe.Module:
    loader = griffe.GriffeLoader(search_paths=[ROOT / "src"])
    module = loader.load("polyprefix", submodules=True)
    assert isinstance(module, griffe.Module)
    return module


def docstring(module: str, name: str, attribute: str | None = None) -> str:
    """The docstring of a class or function, or the text under one of a class's attributes.

    Raises:
        KeyError: there is no such thing, or it has no text.
    """
    thing = _package()[module.removeprefix("polyprefix.")][name]
    if attribute is not None:
        thing = thing[attribute]
    if thing.docstring is None:
        raise KeyError(
            f"{module}.{name}{'' if attribute is None else '.' + attribute}: no docstring"
        )
    return " ".join(prose(thing.docstring.value).split())
