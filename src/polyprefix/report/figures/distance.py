"""Transfer against closeness to the source language: gaps, and whose scores rise with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from polyprefix.analysis import (
    SourceBias,
    correlations,
    language_distances,
    language_means,
    source_bias,
    straight_line,
)
from polyprefix.languages import get
from polyprefix.report.figures.drawing import INK, SERIES, Figure, bare, canvas, finished_figure
from polyprefix.report.figures.marks import interval, label_points, legend, zero
from polyprefix.report.figures.material import Material

LEAST = 5
"""Languages that a line needs."""

WORDS = {
    "syntactic": "syntactic distance",
    "phonological": "phonological distance",
    "inventory": "phoneme inventory distance",
    "geographic": "geographic distance (half the Earth's circumference)",
}
"""Panels of the gap, and their x axes. Genetic distance is 1 for all but relatives: no line."""


def drawn(material: Material) -> Iterator[Figure]:
    """The figures of this file."""
    if (figure := gaps(material)) is not None:
        yield figure
    if (figure := slopes(material)) is not None:
        yield figure


def distances(material: Material) -> pd.DataFrame:
    """Of the target languages that all methods have scored, from the source."""
    table = material.common
    codes = table.loc[~table["source"].astype(bool), "language"].drop_duplicates()
    return language_distances(material.task["source_language"], list(codes))


def gaps(material: Material) -> Figure | None:
    """The leading method's transfer gap against four distances."""
    method = material.leader
    rows = material.common[material.common["method"] == method.label]
    means = language_means(rows)
    means = means[~means["source"].astype(bool)].set_index("language")
    features = distances(material)
    joined = features.join(means["gap"], how="inner")
    kinds = [
        kind
        for kind in WORDS
        if joined[[kind, "gap"]].dropna().shape[0] >= LEAST and joined[kind].nunique() > 1
    ]
    if not kinds or joined["gap"].nunique() < 2:
        return None
    found = correlations(rows, features, kinds, score="gap").set_index("feature")
    columns = min(2, len(kinds))
    lines = -(-len(kinds) // columns)
    drawing = canvas(4.3 * columns, 3.2 * lines)
    grid = drawing.subplots(lines, columns, squeeze=False, sharey=True)
    for ax in grid.flat[len(kinds) :]:
        ax.set_visible(False)
    parts, left = [], {}
    for number, (ax, kind) in enumerate(zip(grid.flat, kinds, strict=False)):
        part = joined[[kind, "gap"]].dropna()
        line = straight_line(part[kind], part["gap"])
        ax.fill_between(line.band["x"], line.band["low"], line.band["high"], color=SERIES[0],
                        alpha=0.16, linewidth=0)  # fmt: skip
        ax.plot(line.band["x"], line.band["y"], color=SERIES[0], linewidth=1.6)
        ax.plot(part[kind], part["gap"], "o", color=INK, markersize=3.2, alpha=0.75)
        zero(ax, vertical=False)
        bare(ax, "both")
        ax.set_xlabel(WORDS[kind])
        rho, low, high = found.loc[kind, ["correlation", "low", "high"]].astype(float)
        ax.set_title(
            f"Spearman {rho:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "\u2212"),
            fontsize=8.5,
            fontweight="normal",
            loc="left",
        )
        fitted = part["gap"] - np.interp(part[kind], line.band["x"], line.band["y"])
        left[number] = np.argsort(-np.abs(fitted.to_numpy()))
        parts.append(
            pd.DataFrame(
                {
                    "distance": kind,
                    "language": part.index,
                    "name": [get(code).name for code in part.index],
                    "x": part[kind].to_numpy(),
                    "gap": part["gap"].to_numpy(),
                    "fitted": (part["gap"] - fitted).to_numpy(),
                }
            )
        )
    for ax in grid[:, 0]:
        ax.set_ylabel(f"transfer gap ({material.score})")
    drawing.draw_without_rendering()
    for number, ax in enumerate(grid.flat[: len(kinds)]):
        part = parts[number]
        label_points(ax, list(part["x"]), list(part["gap"]), list(part["name"]),
                     order=left[number].tolist(), most=24)  # fmt: skip
    caption = (
        f"The transfer gap ({material.source} score minus the language's) of {material.leading} "
        "against how far a language is from "
        f"{material.source}: cosine distances between URIEL's features, and the great circle. Each "
        f"point is a language ({len(joined)}; the mean of {material.seeds}); above the line at 0 "
        "the skill carries less. Lines are least squares with 95% bands of the mean, languages "
        "taken as independent, which relatives are not: bands are too narrow rather than too wide. "
        "Above each panel: Spearman's correlation with its 95% bootstrap interval. Names where "
        "there is room, languages far from the line first."
    )
    title = f"Transfer gap against distance: {material.place}"
    table = pd.concat(parts, ignore_index=True)
    return finished_figure(drawing, f"{material.stem}-gap-by-distance", title, caption, table)


def similarity_slopes(material: Material) -> SourceBias | None:
    """Slopes of scores on syntactic similarity, of :func:`polyprefix.analysis.source_bias`."""
    if material.examples is None:
        return None
    away = language_distances(material.task["source_language"], material.examples.targets)
    for kind in ("syntactic", "geographic"):
        try:
            return source_bias(material.examples, (1 - away[kind]).to_dict())
        except ValueError:
            continue  # too few languages are described, or all are as close
    return None


def slopes(material: Material) -> Figure | None:
    """Whether a method favours languages close to the source more than another does."""
    bias = similarity_slopes(material)
    if bias is None or bias.points["score"].nunique() < 2:
        return None
    away = language_distances(material.task["source_language"], list(bias.points["language"]))
    measured = np.allclose(1 - away["syntactic"], bias.points["similarity"])
    kind = "syntactic" if measured else "geographic"
    methods = material.methods
    drawing = canvas(8.6, max(3.4, 1.5 + 0.42 * len(methods)))
    left, right = drawing.subplots(1, 2, width_ratios=[1.25, 1])
    _lines(left, material, bias, kind)
    table = bias.slopes.set_index("method")
    for number, method in enumerate(methods):
        row = table.loc[method.label]
        interval(right, row["slope"], row["low"], row["high"], -number + 0.14,
                 colour=method.colour, marker=method.marker)  # fmt: skip
        interval(right, row["family_slope"], row["family_low"], row["family_high"], -number - 0.14,
                 colour=method.colour, marker=method.marker, filled=False)  # fmt: skip
    zero(right)
    bare(right, "x")
    right.set_yticks([-i for i in range(len(methods))], [m.title for m in methods])
    right.tick_params(axis="y", length=0, labelcolor=INK)
    right.set_ylim(-len(methods) + 0.4, 0.6)
    right.set_xlabel(f"slope: {material.score} for similarity 0 to 1")
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=5, label="languages independent"),
        Line2D([], [], color=INK, marker="o", markersize=5, markerfacecolor="none",
               label="families random"),
    ]  # fmt: skip
    right.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8,
                 ncols=2, columnspacing=1)  # fmt: skip
    count = int(table["languages"].iloc[0])
    caption = (
        f"Does a method favour languages that are like {material.source}? Left: {material.score} "
        f"in {count} target languages against {kind} similarity to {material.source} (1 minus the "
        "distance), a point a language and method, least squares lines with 95% bands. Right: the "
        "lines' slopes. A steeper line favours close languages more; methods whose intervals lie "
        "apart differ in that. Filled: languages and examples resampled (95% bootstrap). Hollow: a "
        "regression in which relatives are alike, which a claim should rest on; it weighs "
        f"languages otherwise, so that its slope differs. {material.seeds.capitalize()} a method."
        f"{_steepest(bias)}{material.omission()}"
    )
    title = f"{material.score.capitalize()} and similarity to {material.source}: {material.place}"
    titles = {method.label: method.title for method in methods}
    shown = bias.slopes.assign(method=bias.slopes["method"].map(titles))
    return finished_figure(drawing, f"{material.stem}-similarity", title, caption, shown)


def _lines(ax: Axes, material: Material, bias: SourceBias, kind: str) -> None:
    for method in material.methods:
        points = bias.points[bias.points["method"] == method.label]
        ax.plot(points["similarity"], points["score"], method.marker, color=method.colour,
                markersize=2.6, alpha=0.3, markeredgewidth=0)  # fmt: skip
    for method in material.methods:
        line = bias.lines[bias.lines["method"] == method.label]
        ax.fill_between(line["similarity"], line["low"], line["high"], color=method.colour,
                        alpha=0.1, linewidth=0)  # fmt: skip
        ax.plot(line["similarity"], line["score"], color=method.colour, linestyle=method.dash,
                linewidth=1.9)  # fmt: skip
    bare(ax, "both")
    ax.set_xlabel(f"{kind} similarity to {material.source}")
    ax.set_ylabel(material.score)
    legend(ax, material.methods, lines=True)


def _steepest(bias: SourceBias) -> str:
    """In words, how many pairs of slopes differ."""
    if bias.differences.empty:
        return ""
    table = bias.differences
    differing = int((table["family_p_holm"] < 0.05).sum())
    if table["family_p_holm"].isna().all():
        return ""
    return (
        f" Of {len(table)} pairs of methods {differing} differ in slope (families random, "
        "Holm's correction, p < 0.05)."
    )
