"""Scores on a map of the world: points at the languages' coordinates.

The projection is Equal Earth (Savric, Patterson and Jenny 2018): areas are true. Land is Natural
Earth's, without borders: see ``languages/SOURCES.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from polyprefix.analysis import language_means
from polyprefix.languages import get
from polyprefix.report.figures.drawing import (
    GRID,
    INK,
    LAND,
    MUTED,
    SCALE,
    SERIES,
    Figure,
    canvas,
    finished_figure,
)
from polyprefix.report.figures.marks import label_points
from polyprefix.report.figures.material import Material

Array = npt.NDArray[np.float64]

_A = (1.340264, -0.081106, 0.000893, 0.003796)


def equal_earth(latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> tuple[Array, Array]:
    """Equal Earth, on a sphere of radius 1.

    ``sin(theta) = sqrt(3)/2 sin(latitude)``, ``y = theta (A1 + A2 theta² + theta⁶ (A3 + A4
    theta²))`` and ``x = 2 sqrt(3) longitude cos(theta) / (3 dy/dtheta)``.
    """
    phi, turn = np.radians(latitude), np.radians(longitude)
    theta = np.arcsin(np.sqrt(3) / 2 * np.sin(phi))
    square = theta**2
    sixth = square**3
    y = theta * (_A[0] + _A[1] * square + sixth * (_A[2] + _A[3] * square))
    rise = _A[0] + 3 * _A[1] * square + sixth * (7 * _A[2] + 9 * _A[3] * square)
    x = 2 * np.sqrt(3) * turn * np.cos(theta) / (3 * rise)
    return np.asarray(x), np.asarray(y)


def drawn(material: Material) -> Iterator[Figure]:
    """A map of the leading method's scores, where five languages have a place."""
    method = material.leader
    means = language_means(material.table[material.table["method"] == method.label])
    means["latitude"] = [get(code).latitude for code in means["language"]]
    means["longitude"] = [get(code).longitude for code in means["language"]]
    means = means.dropna(subset=["latitude", "longitude"])
    if len(means) < 5 or means["score"].nunique() < 2:
        return
    drawing = canvas(8.2, 4.6)
    ax = drawing.add_subplot()
    _earth(ax)
    # The best lie on top.
    means = means.sort_values("score", kind="stable")
    edges = score_classes(means["score"].to_numpy())
    place = np.clip(np.searchsorted(edges, means["score"], side="right") - 1, 0, len(SCALE) - 1)
    means["class"] = place + 1
    x, y = equal_earth(means["latitude"], means["longitude"])
    for number, colour in enumerate(SCALE):
        here = place == number
        ax.plot(x[here], y[here], "o", color=colour, markersize=_size(number), markeredgecolor=INK,
                markeredgewidth=0.4, zorder=3 + number)  # fmt: skip
    source = (means["language"] == material.task["source_language"]).to_numpy()
    ax.plot(x[source], y[source], "*", color=SERIES[1], markersize=11, markeredgecolor=INK,
            markeredgewidth=0.5, zorder=20)  # fmt: skip
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colour, markersize=_size(number),
               markeredgecolor=INK, markeredgewidth=0.4,
               label=f"{edges[number]:.2f} to {edges[number + 1]:.2f}")
        for number, colour in enumerate(SCALE)
    ]  # fmt: skip
    if source.any():
        handles.append(
            Line2D([], [], marker="*", linestyle="none", color=SERIES[1], markersize=9,
                   markeredgecolor=INK, label=f"{material.source} (source)")
        )  # fmt: skip
    drawing.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8,
                   handletextpad=0.1, columnspacing=1.0)  # fmt: skip
    drawing.draw_without_rendering()
    order = np.argsort(np.abs(means["score"].to_numpy() - means["score"].median()))[::-1]
    label_points(ax, x.tolist(), y.tolist(), list(means["name"]), order=order.tolist(), size=6.5,
                 most=28)  # fmt: skip
    caption = (
        f"{material.score.capitalize()} of {material.leading} where languages are spoken (one "
        f"point for each, from the language table; {len(means)} languages, the mean of "
        f"{material.seeds}). Darker and larger "
        "is better. Names where there is room, languages far from the median first. Equal Earth "
        "projection, areas are true; land by Natural Earth; grid lines every 30 degrees."
    )
    title = f"{material.score.capitalize()} on the map: {material.place}"
    columns = ["language", "name", "latitude", "longitude", "score", "class"]
    yield finished_figure(drawing, f"{material.stem}-map", title, caption, means[columns])


def score_classes(scores: Array) -> Array:
    """Edges of as many classes as there are colours, of equal width, with round numbers."""
    low, high = float(scores.min()), float(scores.max())
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        start = np.floor(low / step + 1e-9) * step
        if start + step * len(SCALE) > high:
            return np.asarray(start + step * np.arange(len(SCALE) + 1))
    return np.linspace(low, high, len(SCALE) + 1)


def _size(number: int) -> float:
    return 4.0 + 0.75 * number


@cache
def land() -> tuple[Array, ...]:
    """Outlines of land, each ``[points, 2]``: degrees east and north.

    An inner one, of a lake, runs the other way round, so that a filled path leaves it out.
    """
    text = resources.files(__package__).joinpath("land.txt").read_text(encoding="utf-8")
    return tuple(
        np.array(line.split(), dtype=np.float64).reshape(-1, 2) / 10 for line in text.splitlines()
    )


def _earth(ax: Axes) -> None:
    """Land, meridians and parallels, and the outline of the map."""
    outlines = [
        Outline(np.column_stack(equal_earth(ring[:, 1], ring[:, 0])), closed=True)
        for ring in (np.concatenate([ring, ring[:1]]) for ring in land())
    ]
    whole = Outline.make_compound_path(*outlines)
    ax.add_patch(PathPatch(whole, facecolor=LAND, linewidth=0, zorder=0))
    along = np.linspace(-90, 90, 37)
    for meridian in range(-150, 180, 30):
        ax.plot(*equal_earth(along, np.full_like(along, meridian)), color=GRID, linewidth=0.5)
    across = np.linspace(-180, 180, 37)
    for parallel in range(-60, 90, 30):
        ax.plot(*equal_earth(np.full_like(across, parallel), across), color=GRID,
                linewidth=1.0 if parallel == 0 else 0.5)  # fmt: skip
    edge = np.concatenate([along, along[::-1]])
    sides = np.concatenate([np.full_like(along, 180), np.full_like(along, -180)])
    x, y = equal_earth(edge, sides)
    ax.plot(np.append(x, x[0]), np.append(y, y[0]), color=MUTED, linewidth=0.8)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.margins(0.01)
