"""Figures and tables of a study's report, from records alone.

Needs matplotlib, the extra ``report``. What a page needs to know of the SVG stands in
``drawing.py``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from polyprefix.analysis import Setting
from polyprefix.report.figures import (
    cost,
    differences,
    distance,
    groups,
    learning,
    sweeps,
    world,
)
from polyprefix.report.figures.drawing import VARIABLES, Figure, look
from polyprefix.report.figures.exports import write_exports
from polyprefix.report.figures.material import Material, default_stem, gather, silent
from polyprefix.report.figures.tables import Table, made

__all__ = [
    "VARIABLES",
    "Figure",
    "Material",
    "Table",
    "default_stem",
    "figures",
    "gather",
    "scaling_figures",
    "tables",
    "write_exports",
]


def figures(
    found: Sequence[Setting],
    select: Sequence[str],
    folder: Path,
    *,
    material: Material | None = None,
    say: Callable[[str], None] = silent,
) -> list[Figure]:
    """The figures of one group of settings, in reading order.

    A figure that the data does not support (one method has no differences, one language no line) is
    left out. Names begin with task and model; where several groups have the same, give each
    ``material`` a stem of its own.

    Args:
        found: settings of one task, source language and model, see ``report.study.groups``.
        select: keys that were selected on dev.
        folder: holds the runs' folders, with logs and predictions.
        material: what was read of these settings, to read it once for figures and tables.
        say: told what is left out because files are missing.

    Raises:
        RunError: two of the runs are the same but for their languages.
    """
    read = material or gather(found, select, folder, say=say)
    # The names of methods may be in scripts that the font of the PNG lacks.
    with look(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        return [
            *differences.drawn(read),
            *distance.drawn(read),
            *world.drawn(read),
            *groups.drawn(read),
            *sweeps.drawn(found, read.stem, read.place),
            *learning.drawn(read),
            *cost.drawn(read),
        ]


def scaling_figures(found: Sequence[Setting]) -> list[Figure]:
    """A scaling curve for each task that was run on models of two sizes or more.

    Args:
        found: all settings of a study.
    """
    by_task: dict[tuple[str, str], list[Setting]] = {}
    for setting in found:
        task = setting.runs[0].record["task"]
        by_task.setdefault((task["name"], task["source_language"]), []).append(setting)
    names = [name for name, _ in by_task]
    result = []
    with look():
        for (name, source), part in by_task.items():
            stem = name if names.count(name) == 1 else f"{name}-{source}"
            figure = sweeps.scaling(part, re.sub(r"[^A-Za-z0-9_-]+", "-", stem))
            if figure is not None:
                result.append(figure)
    return result


def tables(
    found: Sequence[Setting],
    select: Sequence[str],
    folder: Path,
    *,
    material: Material | None = None,
    say: Callable[[str], None] = silent,
) -> list[Table]:
    """The tables of one group of settings; for the arguments see :func:`figures`."""
    return list(made(material or gather(found, select, folder, say=say)))
