"""Figures and tables as files: SVG, PNG, CSV and LaTeX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from polyprefix.report.figures.drawing import Figure
from polyprefix.report.figures.tables import Table
from polyprefix.results import write_atomically


def write_exports(figures: Sequence[Figure], tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write ``NAME.svg`` and ``NAME.png`` of figures, ``NAME.csv`` and ``NAME.tex`` of tables.

    Args:
        figures: with light colours, on paper.
        tables: CSV has all numbers unrounded, LaTeX a selection for a paper.
        folder: is made where it is missing.

    Returns:
        The files, in the order of figures and tables.

    Raises:
        Unwritable: the folder cannot be written to.
        ValueError: two figures or two tables have one name.
    """
    for kind in (figures, tables):
        counts = Counter(one.name for one in kind)
        if again := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"names of files come twice: {', '.join(again)}")
    paths = []
    for figure in figures:
        for ending, content in (("svg", figure.standalone()), ("png", figure.png())):
            paths.append(_write(folder / f"{figure.name}.{ending}", content))
    for table in tables:
        # lineterminator: the same bytes on every system.
        text = table.table.to_csv(index=False, lineterminator="\n")
        paths.append(_write(folder / f"{table.name}.csv", text))
        paths.append(_write(folder / f"{table.name}.tex", table.latex))
    return paths


def _write(path: Path, content: str | bytes) -> Path:
    write_atomically(path, content)
    return path
