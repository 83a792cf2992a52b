"""Plots of how cost grows, as SVG, from the lines that ``growth`` writes.

The look is that of a study's figures (``report/figures/drawing.py``); names stand at the lines.
There is no background, and everything has enough contrast with black and with white.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes

from benchmarks.wording import MEMORY, named
from polyprefix.report.figures.drawing import MARKERS, SERIES, bare, canvas, look, raw_svg

LABELS = {
    "questions": "examples that share a passage",
    "passages": "passages in an optimizer step",
    "length": "prefix length P (tokens)",
    "layers": "adapted layers (the upper k)",
    "languages": "languages scored",
}
"""What the x axis of each axis of ``growth`` says."""

OURS = "Polyprefix"
STYLES = {OURS: (SERIES[0], MARKERS[0]), "floor": (SERIES[2], MARKERS[2])}
PEER = (SERIES[1], MARKERS[1])
"""Colour and mark of the lines, the same in all plots: ours, the floor, and any other peer."""

TEXT = "#777777"
GAP = 0.09
"""Least distance of two names, as a share of the height."""


@dataclass
class Series:
    """One line of a plot: x to seconds per example of every round, and to MiB."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)


Key = tuple[str, str]
"""The axis, and the rest of the case in words: one plot."""


def plots_of(lines: Sequence[dict[str, Any]]) -> dict[Key, dict[str, Series]]:
    """The plots, and the lines of each by who is measured. Where a point of ours was measured
    against several peers, all its rounds count."""
    found: dict[Key, dict[str, Series]] = {}
    for line in lines:
        case = dict(line["case"])
        axis, value = case.pop("axis"), case.pop("value")
        case.pop("layers", None)  # says k again
        series = found.setdefault((axis, named(case)), {OURS: Series()})
        for side, name in (("ours", OURS), ("theirs", line["peer"])):
            own = series.setdefault(name, Series())
            own.seconds.setdefault(value, []).extend(s / line["work"] for s in line[side])
            if side in line["more"].get(MEMORY, {}):
                own.memory[value] = line["more"][MEMORY][side]
    return found


def file_name(report: str, key: Key) -> str:
    """Of a plot of a report."""
    words = "-".join((report, *key)).replace(" ", "-").replace("=", "").replace("/", "-")
    return f"{words}.svg"


def draw(axis: str, series: dict[str, Series]) -> str:
    """The SVG: time per example, and peak memory where it was measured."""
    panels = 2 if any(one.memory for one in series.values()) else 1
    with look(colour=TEXT):
        figure = canvas(4.8 * panels, 3.1)
        grid = figure.subplots(1, panels, squeeze=False)[0]
        times = {
            name: {x: [1000 * s for s in rounds] for x, rounds in one.seconds.items()}
            for name, one in series.items()
        }
        _panel(grid[0], axis, "time per example (ms)", times)
        if panels == 2:
            peaks = {
                name: {x: [mib] for x, mib in one.memory.items()} for name, one in series.items()
            }
            _panel(grid[1], axis, "peak memory (MiB)", peaks)
        return raw_svg(figure)


def _panel(ax: Axes, axis: str, label: str, values: dict[str, dict[int, list[float]]]) -> None:
    """Medians as lines, smallest to largest as a band."""
    ends: list[tuple[float, str, str]] = []
    ticks = sorted({x for points in values.values() for x in points})
    for name, points in values.items():
        if not points:
            continue
        colour, mark = STYLES.get(name, PEER)
        xs = sorted(points)
        middle = [statistics.median(points[x]) for x in xs]
        ax.plot(xs, middle, color=colour, marker=mark, linewidth=1.8, markersize=5)
        low, high = [min(points[x]) for x in xs], [max(points[x]) for x in xs]
        if len(xs) > 1:
            ax.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0)
        else:
            ax.vlines(xs, low, high, color=colour, alpha=0.5)
        ends.append((middle[-1], name, colour))
    top = 1.08 * max(y for points in values.values() for rounds in points.values() for y in rounds)
    ax.set_ylim(0, top)
    ax.set_xticks(ticks)
    ax.set_xlabel(LABELS[axis])
    ax.set_ylabel(label)
    bare(ax)
    ax.grid(axis="y", color=TEXT, alpha=0.25)
    for (_, name, colour), place in zip(
        sorted(ends), spread([y / top for y, _, _ in sorted(ends)]), strict=True
    ):
        ax.annotate(
            name, (1.02, place), xycoords="axes fraction", color=colour, va="center", fontsize=9
        )


def spread(places: Sequence[float]) -> list[float]:
    """Places from below, moved up where they are closer than :data:`GAP`."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + GAP) if found else place)
    return found
