"""Languages by methods as a table whose cells are shaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isnan

import pandas as pd

from polyprefix.analysis import Setting
from polyprefix.languages import Language
from polyprefix.report.console import signed
from polyprefix.report.group import Group

SHADES = 9
"""Steps of the palette, see ``templates/page.css``: cividis (Nuñez, Anderton and Renslow 2018),
which grows lighter all along and is read alike with and without red-green vision."""

LEAST_RANGE = 0.2
"""Scores the whole palette spans at least: what lies closer has closer colours."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One method in one language: texts of its score and gap, their errors, and their shades."""

    score: str
    gap: str
    error: str
    score_shade: int
    gap_shade: int
    title: str
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A language; ``None`` where a method has not scored it."""

    language: Language
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class Total:
    """A method's mean over the languages other than the source."""

    score: str
    gap: str
    error: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The table: ``rows`` begin with the source; the ends of both palettes as texts."""

    names: list[str]
    notes: list[str]
    rows: list[Row]
    totals: list[Total]
    scores: tuple[str, str]
    gaps: tuple[str, str]
    over_seeds: bool

    @property
    def has_best(self) -> bool:
        """Whether a cell is called the best of its language."""
        return any(cell is not None and cell.best for row in self.rows for cell in row.cells)


def heat_map(group: Group) -> HeatMap:
    """The heat map of a group."""
    cells = {(row.method, row.language): row for row in group.means.itertuples()}
    scores = _ends([row.score for row in cells.values()])
    gaps = _ends([row.gap for row in cells.values() if not row.source] or [0.0])
    rows = []
    for language in group.languages:
        found = [cells.get((name, language.code)) for name in group.names]
        there = [round(row.score, 3) for row in found if row is not None]
        # Of one method, and where all are the same, none is best.
        best = max(there) if len(set(there)) > 1 else None
        rows.append(
            Row(
                language,
                [None if row is None else _cell(group, row, scores, gaps, best) for row in found],
            )
        )
    return HeatMap(
        names=list(group.shown.values()),
        notes=[
            f"best of {s.candidates} on dev" if s.candidates > 1 else "" for s in group.settings
        ],
        rows=rows,
        totals=[
            Total(
                "" if s.target is None else f"{s.target:.3f}",
                "" if s.gap is None else signed(s.gap),
                "" if s.spread is None or not _varies(s) else f"± {s.spread:.3f}",
            )
            for s in group.settings
        ],
        scores=(f"{scores[0]:.2f}", f"{scores[1]:.2f}"),
        gaps=(signed(gaps[0])[:-1], signed(gaps[1])[:-1]),
        over_seeds=any(map(_varies, group.settings)),
    )


def _cell(
    group: Group,
    row: pd.Series,
    scores: tuple[float, float],
    gaps: tuple[float, float],
    best: float | None,
) -> Cell:
    setting = group.settings[group.names.index(row.method)]
    several = _varies(setting)
    error = row.seed_sd if several else row.stderr
    title = f"standard error {row.stderr:.3f} (n = {row.n})"
    if several:
        title += f"; {row.seeds} seeds, standard deviation {row.seed_sd:.3f}"
    if not isnan(row.calibrated):
        title += f"; calibrated {row.calibrated:.3f}"
    if not isnan(row.majority):
        title += f"; majority class {row.majority:.3f}"
    return Cell(
        score=f"{row.score:.3f}",
        gap="source" if row.source else signed(row.gap),
        error=f"± {error:.3f}",
        score_shade=_shade(row.score, scores),
        # A small gap is as good as a high score, and has its colour.
        gap_shade=SHADES - 1 - _shade(row.gap, gaps),
        title=title,
        best=round(row.score, 3) == best,
    )


def _varies(setting: Setting) -> bool:
    """Whether there are seeds that can differ: those of a method that trains nothing cannot."""
    return len(setting.runs) > 1 and "training" in setting.runs[0].record


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Round numbers around the values, :data:`LEAST_RANGE` apart or more."""
    low, high = floor(min(values) * 20) / 20, ceil(max(values) * 20) / 20
    return low, max(high, low + LEAST_RANGE)


def _shade(value: float, ends: tuple[float, float]) -> int:
    share = (value - ends[0]) / (ends[1] - ends[0])
    return min(SHADES - 1, max(0, int(share * SHADES)))
