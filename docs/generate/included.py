"""Files of the repository as pages, with links that work there too."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/polyprefix/polyprefix/blob/main/"

PAGES = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "benchmarks/README.md": "explanation/speed.md",
    "src/polyprefix/models/packaged/nano/README.md": "models/nano.md",
}
"""Where files of the repository are in the site. Others are linked to in the repository."""

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
MADE = re.compile(r"^<!-- generate: (.+?) -->$", re.MULTILINE)


def filled(markdown: str, made: Callable[[str], str]) -> str:
    """A text whose lines ``<!-- generate: NAME -->`` are what ``made`` gives for the name."""
    return MADE.sub(lambda found: made(found[1]), markdown)


def page(path: str) -> str:
    """A Markdown file of the repository as a page of the site, without front matter."""
    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return _moved(text, path, PAGES[path])


def section(path: str, heading: str) -> str:
    """What stands under a heading of the second level, for the page that the file is on.

    Raises:
        ValueError: the file has no such heading, or several.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    [found] = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    return _moved(found, path, PAGES[path])


def _moved(text: str, path: str, here: str) -> str:
    """A text of a file whose links lead on from a page."""

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found["target"]))
        place = PAGES.get(target)
        if place is None and target.startswith("docs/"):
            place = target.removeprefix("docs/")
        if place is None:
            return REPOSITORY + target + (found["anchor"] or "")
        return posixpath.relpath(place, posixpath.dirname(here) or ".") + (found["anchor"] or "")

    return LINK.sub(moved, text)


def source(path: str) -> str:
    """The address of a file of the repository."""
    return REPOSITORY + path
