"""Mean scores of groups of languages: families, scripts, resource levels, seen in pretraining."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from polyprefix.analysis import group_means
from polyprefix.languages import languages
from polyprefix.report.figures.drawing import INK, Figure, bare, canvas, finished_figure
from polyprefix.report.figures.marks import interval, legend
from polyprefix.report.figures.material import Material

MOST = 10
"""Groups of a figure."""

KINDS = {
    "family": "language family",
    "script": "script",
    "resource_level": "resource level (0 least, 5 most; Joshi et al. 2020)",
    "seen": "seen in the backbone's pretraining",
}


def group_table(material: Material, by: str) -> pd.DataFrame:
    """Means of groups, see :func:`polyprefix.analysis.group_means`; the largest group first.

    Of languages that every method has scored.
    """
    table = material.common
    if table.empty or table[by].isna().all():
        return pd.DataFrame()
    found = group_means(table, by)
    found = found[found["group"].notna()].copy()
    if by == "resource_level":
        found["group"] = found["group"].astype(int).astype(str)
        order = found.sort_values("group")["group"].drop_duplicates()
    else:
        found["group"] = found["group"].map({True: "yes", False: "no"}).fillna(found["group"])
        sizes = found.drop_duplicates("group").sort_values(
            ["languages", "group"], ascending=[False, True], kind="stable"
        )
        order = sizes["group"]
    place = {group: i for i, group in enumerate(order)}
    labels = {method.label: i for i, method in enumerate(material.methods)}
    found["_group"], found["_method"] = found["group"].map(place), found["method"].map(labels)
    found = found.sort_values(["_group", "_method"]).drop(columns=["_group", "_method"])
    return found.reset_index(drop=True)


def drawn(material: Material) -> Iterator[Figure]:
    """A figure for each kind of group of which there are two or more.

    Where every group is a single language, it would show those languages' scores again.
    """
    for by, words in KINDS.items():
        table = group_table(material, by)
        if table.empty or table["group"].nunique() < 2 or table["languages"].max() < 2:
            continue
        yield _figure(material, by, words, table)


def _figure(material: Material, by: str, words: str, table: pd.DataFrame) -> Figure:
    groups = list(table["group"].drop_duplicates())
    kept = groups[:MOST]
    table = table[table["group"].isin(kept)]
    methods = material.methods
    step = max(0.34, 0.085 * len(methods) + 0.14)
    drawing = canvas(7.2, 1.2 + step * len(kept))
    ax = drawing.add_subplot()
    names = []
    for place, group in enumerate(kept):
        part = table[table["group"] == group].set_index("method")
        count = int(part["languages"].iloc[0])
        names.append(f"{_named(by, group)} ({count})")
        if place % 2:
            ax.axhspan(-place - 0.5, -place + 0.5, color=INK, alpha=0.045, linewidth=0)
        for number, method in enumerate(methods):
            if method.label not in part.index:
                continue
            row = part.loc[method.label]
            spread = 0.76 / len(methods)
            at = -place + spread * ((len(methods) - 1) / 2 - number)
            interval(ax, row["score"], row["low"], row["high"], at, colour=method.colour,
                     marker=method.marker, size=4.5, width=1.1)  # fmt: skip
    bare(ax, "x")
    ax.set_yticks([-i for i in range(len(kept))], names)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(-len(kept) + 0.5, 0.5)
    ax.set_xlabel(f"mean {material.score}")
    ax.set_xlim(*_span(table))
    if len(methods) > 1:
        legend(ax, methods)
    caption = (
        f"Mean {material.score} over the target languages by {words}, each language counting once; "
        f"the number of languages stands in brackets ({material.targets} in all, "
        f"{material.seeds}). Bars are 95% intervals of the mean over languages (Student's t): what "
        "other languages of the group would give; a group of one language has none, and those of "
        "two or three may reach beyond the picture."
    )
    if len(groups) > len(kept):
        caption += f" The {len(kept)} largest of {len(groups)} groups."
    title = f"{material.score.capitalize()} by {words.partition(' (')[0]}: {material.place}"
    name = f"{material.stem}-{by.replace('_', '-')}"
    titles = {method.label: method.title for method in methods}
    shown = table.assign(method=table["method"].map(titles))
    return finished_figure(drawing, name, title, caption + material.omission(), shown)


def _named(by: str, group: str) -> str:
    """Scripts have codes in the table of languages, and names for people."""
    if by != "script":
        return group
    return next(one.script_name for one in languages().values() if one.script == group)


def _span(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: the interval of two or three languages may be cut, and shares end at 1."""
    low, high = float(table["score"].min()), float(table["score"].max())
    reach = max(high - low, 0.02)
    sure = table[(table["languages"] > 3) & table["low"].notna()]
    ends = (
        min([low - 0.2 * reach, *(sure["low"] - 0.03 * reach)]),
        max([high + 0.2 * reach, *(sure["high"] + 0.03 * reach)]),
    )
    if low >= 0 and high <= 1:
        ends = max(ends[0], -0.01), min(ends[1], 1.01)
    return ends
