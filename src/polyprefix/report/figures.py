"""Figures of a group of settings, as inline SVG with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from polyprefix.analysis import Setting


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of its files.
        title: above it.
        caption: below it.
        svg: the drawing, inline.
        table: its numbers.
    """

    name: str
    title: str
    caption: str
    svg: str
    table: pd.DataFrame


def figures(found: Sequence[Setting], select: Sequence[str], folder: Path) -> list[Figure]:
    """The figures of one group: none yet."""
    del found, select, folder
    return []
