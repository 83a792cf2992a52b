"""What several figures draw: intervals, legends, labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from polyprefix.report.figures.drawing import INK, MUTED, PAPER, printable
from polyprefix.report.figures.material import Method


def interval(
    ax: Axes,
    middle: float,
    low: float,
    high: float,
    at: float,
    *,
    colour: str,
    marker: str,
    vertical: bool = False,
    filled: bool = True,
    size: float = 5,
    width: float = 1.4,
) -> None:
    """A mark with a whisker; ``at`` is its place on the other axis. No whisker where it is NaN."""
    if np.isfinite(low) and np.isfinite(high):
        ends, place = [low, high], [at, at]
        ax.plot(*((place, ends) if vertical else (ends, place)), "-", color=colour, linewidth=width)
    ax.plot(
        *((at, middle) if vertical else (middle, at)),
        marker=marker,
        markersize=size,
        color=colour,
        markerfacecolor=colour if filled else PAPER,
        markeredgecolor=colour,
        linestyle="none",
        zorder=3,
    )


def intervals(
    ax: Axes,
    middle: pd.Series,
    low: pd.Series,
    high: pd.Series,
    places: np.ndarray,
    *,
    method: Method,
    filled: pd.Series,
    size: float,
    width: float,
) -> None:
    """Many horizontal intervals of one method, as one path: two hundred languages are a page."""
    gap = np.full(len(places), np.nan)
    ends = np.column_stack([low, high, gap]).ravel()
    ax.plot(ends, np.repeat(places, 3), "-", color=method.colour, linewidth=width)
    full = filled.to_numpy(dtype=bool)
    for part, face in ((full, method.colour), (~full, PAPER)):
        ax.plot(
            middle.to_numpy()[part],
            places[part],
            method.marker,
            color=method.colour,
            markerfacecolor=face,
            markersize=size,
            zorder=3,
        )


def zero(ax: Axes, *, vertical: bool = True) -> None:
    """The line of no difference."""
    draw = ax.axvline if vertical else ax.axhline
    draw(0, color=INK, linewidth=0.9, zorder=1)


def legend(ax: Axes, methods: Sequence[Method], *, lines: bool = False, **options: Any) -> None:
    """Colours and marks of methods; ``lines``: and their dashes."""
    handles = [
        Line2D(
            [],
            [],
            color=method.colour,
            marker=method.marker,
            markersize=5,
            linestyle=method.dash if lines else "none",
        )
        for method in methods
    ]
    # matplotlib leaves out what begins with an underscore.
    names = [m.title if not m.title.startswith("_") else f"\u200b{m.title}" for m in methods]
    # Names as long as the longest of them, side by side while they have room.
    room = ax.figure.bbox.width / ax.figure.dpi / (0.08 * max(map(len, names)) + 0.5)
    columns = max(1, min(len(methods), 4, int(room)))
    options = {"loc": "outside upper center", "ncols": columns} | options
    where = ax.figure if "outside" in str(options["loc"]) else ax
    where.legend(handles, names, **options)


def signed(value: float) -> str:
    """Three decimals with a sign, as matplotlib writes it on axes."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "\u2212")


def label_points(
    ax: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    texts: Sequence[str],
    *,
    order: Sequence[int] | None = None,
    size: float = 7.5,
    most: int = 60,
) -> list[int]:
    """Write names beside points where there is room; those that would overlap are left out.

    The layout must be settled (``draw_without_rendering``): room is counted in points of the page.

    Args:
        ax: the axes.
        xs: of the points.
        ys: of the points.
        texts: their names.
        order: who is served first; by default from the first to the last.
        size: of the text.
        most: names at most.

    Returns:
        The places of the points that have a name.
    """
    scale = 72 / ax.figure.dpi
    points = ax.transData.transform(np.column_stack([xs, ys])) * scale
    box = ax.get_window_extent()
    left, bottom, right, top = (v * scale for v in (box.x0, box.y0, box.x1, box.y1))
    taken: list[tuple[float, float, float, float]] = []
    named: list[int] = []
    for place in order if order is not None else range(len(texts)):
        if len(named) == most:
            break
        text = printable(texts[place], 30)
        wide, tall = 0.58 * size * len(text), 1.15 * size
        x, y = points[place]
        for dx, dy, side in _PLACES:
            start = x + dx - (0 if side == "left" else wide if side == "right" else wide / 2)
            low = y + dy - tall / 2
            here = (start, low, start + wide, low + tall)
            inside = left <= here[0] and here[2] <= right and bottom <= here[1] and here[3] <= top
            if inside and not _hits(here, taken) and not _covers(here, points, place):
                ax.annotate(
                    text,
                    (xs[place], ys[place]),
                    (dx, dy),
                    textcoords="offset points",
                    ha=side,
                    va="center_baseline",
                    fontsize=size,
                    color=MUTED,
                    annotation_clip=False,
                )
                taken.append(here)
                named.append(place)
                break
    return named


_PLACES = (
    (5, 0, "left"),
    (-5, 0, "right"),
    (0, 8, "center"),
    (0, -8, "center"),
    (4, 7, "left"),
    (4, -7, "left"),
    (-4, 7, "right"),
    (-4, -7, "right"),
)

Box = tuple[float, float, float, float]


def _hits(box: Box, others: Sequence[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )


def _covers(box: Box, points: np.ndarray, own: int) -> bool:
    x, y = points[:, 0], points[:, 1]
    pad = 2.5
    inside = (box[0] - pad < x) & (x < box[2] + pad) & (box[1] - pad < y) & (y < box[3] + pad)
    inside[own] = False
    return bool(inside.any())
