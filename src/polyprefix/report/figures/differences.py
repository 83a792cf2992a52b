"""Forest plots of the differences between methods, and who wins how often."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from polyprefix.analysis import (
    Examples,
    WinMatrix,
    adjust,
    compare_languages,
    compare_means,
    compare_seeds,
    pool_languages,
    win_matrix,
)
from polyprefix.languages import get
from polyprefix.report.figures.drawing import (
    GRID,
    INK,
    MUTED,
    SERIES,
    Figure,
    bare,
    canvas,
    finished_figure,
    printable,
)
from polyprefix.report.figures.marks import interval, intervals, signed, zero
from polyprefix.report.figures.material import Material, Method

WIDE = 28
"""Characters of a method's name in one line, beside a row or above a column."""

NAMED = 45
"""Languages that have a row of their own with a name."""

KINDS = {
    "examples": ("o", SERIES[0], "other examples (bootstrap)"),
    "languages": ("D", SERIES[1], "other languages (random effects)"),
    "seeds": ("s", SERIES[2], "other trainings (Welch's t)"),
}
"""What a difference is generalised to: mark, colour, words."""


QUESTIONS = {
    "examples": "with other test examples (bootstrap of examples, paired)",
    "languages": (
        "in other languages (random-effects model over languages and families; dots: where the "
        "difference in one more language is expected)"
    ),
    "seeds": "after another training (Welch's t over seeds)",
}


def pairs(material: Material) -> list[tuple[Method, Method]]:
    """Who is compared with whom: all with the baseline, then all others with the leader."""
    base, leader = material.baseline, material.leader
    found = [(method, base) for method in material.methods if method != base]
    if leader != base:
        found += [(m, leader) for m in material.methods if m not in (base, leader)]
    return found


@lru_cache(maxsize=2)
def pooled_differences(material: Material) -> pd.DataFrame:
    """Every pair's difference of the mean over target languages, three times.

    Columns: ``first``, ``second``, ``over`` (see :data:`KINDS`), ``difference``, ``low``, ``high``,
    ``p``, ``p_holm`` (corrected over the pairs of an ``over``), ``expected_low`` and
    ``expected_high`` (of one more language, for ``languages``).
    """
    examples = material.examples
    if examples is None or len(material.methods) < 2 or not examples.targets:
        return pd.DataFrame()
    rows = []
    for first, second in pairs(material):
        names = (first.label, second.label)
        mean = compare_means(examples, *names)
        one = {"first": first.title, "second": second.title}
        rows.append(one | {"over": "examples", "difference": mean.difference, "low": mean.low,
                           "high": mean.high, "p": mean.p})  # fmt: skip
        seeds = compare_seeds(examples, *names)
        if np.isfinite(seeds.stderr):
            rows.append(one | {"over": "seeds", "difference": seeds.difference, "low": seeds.low,
                               "high": seeds.high, "p": seeds.p})  # fmt: skip
        if len(examples.targets) > 2:
            families = len({get(code).family for code in examples.targets}) > 2
            try:
                pooled = pool_languages(examples, *names, families=families)
            except ValueError:
                continue  # a language with one example
            rows.append(
                one
                | {
                    "over": "languages",
                    "difference": pooled.estimate,
                    "low": pooled.low,
                    "high": pooled.high,
                    "p": pooled.p,
                    "expected_low": pooled.expected_low,
                    "expected_high": pooled.expected_high,
                }
            )
    columns = ["first", "second", "over", "difference", "low", "high", "p", "p_holm"]
    table = pd.DataFrame(rows, columns=[*columns, "expected_low", "expected_high"])
    for _, part in table.groupby("over"):
        table.loc[part.index, "p_holm"] = adjust(part["p"])
    return table.astype({"p_holm": float})


@lru_cache(maxsize=2)
def language_differences(material: Material) -> dict[str, pd.DataFrame]:
    """By method, its difference from the baseline in every language: of ``compare_languages``."""
    examples = material.examples
    if examples is None or len(material.methods) < 2:
        return {}
    base = material.baseline
    return {
        method.label: compare_languages(examples, method.label, base.label)
        for method in material.methods
        if method != base
    }


def overview(material: Material, table: pd.DataFrame) -> Figure | None:
    """The pooled differences: a row a pair, an interval for each thing that may be another.

    Where nothing differs there is nothing to see.
    """
    if table.empty or not table["difference"].any():
        return None
    keys = list(table[["first", "second"]].drop_duplicates().itertuples(index=False, name=None))
    kinds = [kind for kind in KINDS if (table["over"] == kind).any()]
    opponents = list(dict.fromkeys(second for _, second in keys))
    drawing = canvas(7.2, 1.1 + 0.4 * len(keys) + 0.3 * len(opponents))
    ax = drawing.add_subplot()
    y, ticks, names = 0.0, [], []
    for opponent in opponents:
        ax.text(
            0.012,
            y,
            f"minus {opponent}",
            transform=ax.get_yaxis_transform(),
            va="center",
            fontweight="bold",
            fontsize=8.5,
        )
        y -= 0.8
        for first in [one for one, other in keys if other == opponent]:
            part = table[(table["first"] == first) & (table["second"] == opponent)]
            for row in part.itertuples():
                marker, colour, _ = KINDS[row.over]
                place = y + 0.22 * ((len(kinds) - 1) / 2 - kinds.index(row.over))
                if row.over == "languages":
                    ends = [row.expected_low, row.expected_high]
                    ax.plot(ends, [place, place], ":", color=colour, linewidth=1)
                interval(ax, row.difference, row.low, row.high, place, colour=colour, marker=marker)
            ticks.append(y)
            names.append(fill(first, WIDE))
            y -= 1
    zero(ax)
    bare(ax, "x")
    ax.set_ylim(y + 0.3, 0.5)
    ax.set_yticks(ticks, names)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_xlabel(f"difference of the mean {material.score} over {material.targets} languages")
    handles = [
        Line2D([], [], color=KINDS[k][1], marker=KINDS[k][0], markersize=5, label=KINDS[k][2])
        for k in kinds
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=3)
    caption = (
        f"Differences of the mean {material.score} over the target languages, each language "
        f"counting once: {_sizes(material)}. Right of the line the method named is better than the "
        "one it is compared with. A difference has a 95% interval for each question that these "
        f"runs can answer: would it be so {', '.join(QUESTIONS[kind] for kind in kinds)}? "
        f"Intervals are not corrected for the number of pairs.{material.omission()}"
    )
    title = f"How much methods differ: {material.place}"
    return finished_figure(drawing, f"{material.stem}-differences", title, caption, table)


def _sizes(material: Material) -> str:
    examples = material.examples
    counts = [] if examples is None else [len(ids) for ids in examples.ids.values()]
    low, high = min(counts, default=0), max(counts, default=0)
    number = str(high) if low == high else f"{low} to {high}"
    return f"{material.targets} languages of {number} test examples, {material.seeds}"


def by_language(
    material: Material, found: dict[str, pd.DataFrame], pooled: pd.DataFrame
) -> Figure | None:
    """The differences from the baseline in every language, a panel a method."""
    if not found or any(len(table) < 3 for table in found.values()):
        return None
    if not any(table["difference"].any() for table in found.values()):
        return None
    methods = [m for m in material.methods if m.label in found]
    count = len(next(iter(found.values())))
    columns = min(len(methods), 3 if count > NAMED else 4)
    rows = -(-len(methods) // columns)
    named = count <= NAMED
    height = 0.9 + (0.16 * (count + 2) if named else 3.2)
    drawing = canvas(1.3 * named + 2.4 * columns, 0.4 + height * rows)
    grid = drawing.subplots(rows, columns, squeeze=False, sharex=True, sharey=named)
    codes = _order(found)
    parts, summarised = [], False
    for ax in grid.flat[len(methods) :]:
        ax.set_visible(False)
    for ax, method in zip(grid.flat, methods, strict=False):
        table = found[method.label]
        order = codes if named else list(table["difference"].sort_values().index)
        part = table.loc[order]
        places = np.arange(len(order), dtype=float)
        intervals(
            ax, part["difference"], part["low"], part["high"], places, method=method,
            filled=part["p_holm"] < 0.05, size=4 if named else 2.5, width=1.2 if named else 0.5,
        )  # fmt: skip
        bottom = _summary(ax, material, method, pooled, named)
        summarised = summarised or bottom < 0
        zero(ax)
        bare(ax, "x")
        ax.set_ylim(bottom - 1, len(order))
        ax.set_title(fill(method.title, WIDE), fontsize=9)
        ax.tick_params(axis="y", length=0, labelcolor=INK, labelsize=7.5)
        if named:
            names = [get(code).name for code in order]
            ax.set_yticks([*places, *([-1.5] if bottom < 0 else [])],
                          [*names, *(["all (pooled)"] if bottom < 0 else [])])  # fmt: skip
        else:
            ax.set_yticks([])
            _ends(ax, part)
        parts.append(part.reset_index().assign(method=method.title))
    if not named:
        _room(grid.flat[0], found)
    drawing.supxlabel(
        f"{material.score} minus {material.baseline.title}'s", fontsize=9, color=MUTED
    )
    table = pd.concat(parts, ignore_index=True)
    caption = (
        f"{material.score.capitalize()} minus that of {material.baseline.title} in every language, "
        f"the mean of a method's seeds, on the same examples ({_sizes(material)}). Bars are 95% "
        "bootstrap intervals over test examples, not corrected for the number of languages; filled "
        "marks differ from 0 by sign flips with Holm's correction over languages (p < 0.05)."
    )
    if summarised:
        caption += (
            " The black diamond at the bottom is the mean of other languages with its 95% "
            "interval, by the random-effects model."
        )
    if not named:
        caption += " Each panel is sorted by its own differences; names of both ends."
    caption += material.omission()
    title = f"Differences from {material.baseline.title} by language: {material.place}"
    return finished_figure(
        drawing, f"{material.stem}-differences-by-language", title, caption, table
    )


def _order(found: dict[str, pd.DataFrame]) -> list[str]:
    """Languages by their mean difference, smallest first."""
    mean = pd.concat([table["difference"] for table in found.values()], axis=1).mean(axis=1)
    return list(mean.sort_values(kind="stable").index)


def _summary(
    ax: Axes, material: Material, method: Method, pooled: pd.DataFrame, named: bool
) -> float:
    """The pooled difference below the languages; the lowest place that was drawn at."""
    if pooled.empty:
        return 0.0
    rows = pooled[
        (pooled["first"] == method.title)
        & (pooled["second"] == material.baseline.title)
        & (pooled["over"] == "languages")
    ]
    if rows.empty:
        return 0.0
    row = rows.iloc[0]
    place = -1.5 if named else -12.0
    ax.fill(
        [row["low"], row["difference"], row["high"], row["difference"]],
        [place, place + 0.45 * (1 if named else 10), place, place - 0.45 * (1 if named else 10)],
        color=INK,
        linewidth=0,
    )
    return place


def _ends(ax: Axes, ordered: pd.DataFrame) -> None:
    """The languages with the largest and smallest differences, in the corners that are free."""
    for part, corner, words in (
        (ordered.iloc[::-1].head(4), (0.02, 0.985), "largest"),
        (ordered.head(4).iloc[::-1], (0.98, 0.13), "smallest"),
    ):
        lines = [
            f"{printable(get(str(code)).name, 14)} {signed(difference)}"
            for code, difference in part["difference"].items()
        ]
        right = corner[0] > 0.5
        ax.text(
            *corner,
            "\n".join([words, *lines] if not right else [*lines, words]),
            transform=ax.transAxes,
            ha="right" if right else "left",
            va="bottom" if right else "top",
            fontsize=6.5,
            color=MUTED,
            linespacing=1.25,
        )


def _room(ax: Axes, found: dict[str, pd.DataFrame]) -> None:
    """Widen the axis that all panels share, for the names in its corners."""
    low = min(table["low"].min() for table in found.values())
    high = max(table["high"].max() for table in found.values())
    ax.set_xlim(low - 0.42 * (high - low), high + 0.24 * (high - low))


def wins(material: Material, examples: Examples) -> tuple[Figure, WinMatrix] | None:
    """In how many languages a method is better, no different, worse than another.

    Where no method wins anywhere, all cells would say the same.
    """
    if len(material.methods) < 2 or not examples.targets:
        return None
    matrix = win_matrix(examples)
    if not matrix.wins.to_numpy(dtype=float).any():
        return None
    methods = material.methods
    size = len(methods)
    titles = [fill(method.title, WIDE) for method in methods]
    longest = max(len(line) for title in titles for line in title.splitlines())
    drawing = canvas(0.8 + 0.11 * longest + 0.85 * size, 0.7 + 0.045 * longest + 0.46 * size)
    ax = drawing.add_subplot()
    total = len(examples.targets)
    for y, row in enumerate(methods):
        for x, column in enumerate(methods):
            if row == column:
                text, share = "–", 0.0
            else:
                won = int(matrix.wins.loc[row.label, column.label])
                lost = int(matrix.losses.loc[row.label, column.label])
                tied = int(matrix.ties.loc[row.label, column.label])
                text, share = f"{won} / {tied} / {lost}", (won - lost) / total
            ax.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5),
                    1,
                    1,
                    facecolor=SERIES[0 if share > 0 else 1],
                    alpha=0.55 * abs(share),
                    linewidth=0,
                )
            )
            ax.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=GRID, linewidth=0.8)
            )
            ax.text(x, y, text, ha="center", va="center", fontsize=8)
    ax.set_xlim(-0.5, size - 0.5)
    ax.set_ylim(size - 0.5, -0.5)
    ax.patch.set_alpha(0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(range(size), titles, rotation=30, ha="left")
    ax.set_yticks(range(size), titles)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelcolor=INK)
    table = matrix.tests.groupby(["first", "second", "outcome"]).size().unstack(fill_value=0)
    table = table.reindex(columns=["win", "tie", "loss"], fill_value=0).reset_index()
    table.columns = ["first", "second", "wins", "ties", "losses"]
    caption = (
        f"Wins / ties / losses of the row's method against the column's in {total} target "
        "languages. A win is a difference on the same examples that sign flips tell from 0 with "
        "Holm's correction over the languages of a pair (p < 0.05); everything else is a tie. "
        "Shading: blue where the row wins more languages than it loses, orange where fewer. "
        f"{_sizes(material).capitalize()}.{material.omission()}"
    )
    title = f"Wins, ties and losses: {material.place}"
    figure = finished_figure(drawing, f"{material.stem}-wins", title, caption, table)
    return figure, matrix


def drawn(material: Material) -> Iterator[Figure]:
    """The figures of this file."""
    pooled = pooled_differences(material)
    if (figure := overview(material, pooled)) is not None:
        yield figure
    if (figure := by_language(material, language_differences(material), pooled)) is not None:
        yield figure
    if material.examples is not None and (found := wins(material, material.examples)) is not None:
        yield found[0]
