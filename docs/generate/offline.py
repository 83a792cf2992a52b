"""What a page asks other places for; links that a reader may follow are not of it."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

LOADING = {"src", "srcset", "data", "poster", "action"}
"""Attributes whose address a browser loads by itself."""

HARMLESS_LINKS = {"canonical", "next", "prev"}
"""Relations of a ``link`` that is not loaded."""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        names = (
            LOADING if tag != "link" or values.get("rel") in HARMLESS_LINKS else LOADING | {"href"}
        )
        for name in names & values.keys():
            if values[name].startswith(("http:", "https:", "//")):
                self.found.append(values[name])


def loaded(page: str) -> Iterator[str]:
    """The addresses elsewhere that a page loads."""
    reader = _Reader()
    reader.feed(page)
    yield from reader.found
