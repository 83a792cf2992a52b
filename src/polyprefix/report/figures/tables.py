"""The numbers as tables: CSV for a program, LaTeX with booktabs for a paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from polyprefix.analysis import language_means, method_costs
from polyprefix.report.figures import differences, groups
from polyprefix.report.figures.drawing import printable
from polyprefix.report.figures.material import Material

LONG = 45
"""Rows that a page of a paper holds; longer tables go over pages."""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: stem of its files.
        title: what it is.
        caption: what the numbers are.
        table: all numbers, unrounded.
        latex: a selection of them for a paper, with fixed decimals, the best in bold.
    """

    name: str
    title: str
    caption: str
    table: pd.DataFrame
    latex: str


def made(material: Material) -> Iterator[Table]:
    """The tables that there are numbers for."""
    yield _scores(material)
    if (table := _groups(material)) is not None:
        yield table
    yield from _differences(material)
    yield _methods(material)


def _scores(material: Material) -> Table:
    means = language_means(material.table)
    order = means.groupby("language").agg(source=("source", "first"), score=("score", "mean"))
    order = order.sort_values(["source", "score"], ascending=False, kind="stable")
    first = means.drop_duplicates("language").set_index("language").loc[order.index]
    wide = first[["name", "family", "script", "resource_level", "n"]].copy()
    shown = pd.DataFrame({"Language": first["name"], "$n$": [f"{n:d}" for n in first["n"]]})
    values = pd.DataFrame(index=order.index)
    for method in material.methods:
        part = means[means["method"] == method.label].set_index("language").reindex(order.index)
        for column in ("score", "stderr", "seed_sd", "seeds", "gap"):
            wide[f"{method.title}: {column}"] = part[column]
        several = (part["seeds"] > 1).any()
        spread = part["seed_sd" if several else "stderr"]
        shown[method.title] = [
            pair(score, beside) for score, beside in zip(part["score"], spread, strict=True)
        ]
        values[method.title] = part["score"]
    caption = (
        f"{material.score.capitalize()} by language: {material.place}. Means over seeds "
        f"({material.seeds}), with the standard deviation between them, or the standard error over "
        "test examples for a method with one run. The best of a language is bold."
    )
    name = f"{material.stem}-scores"
    bold = best(values.round(3))
    return Table(
        name,
        f"Scores by language: {material.place}",
        caption,
        wide.reset_index(),
        latex(shown, caption, name, text=("Language",), bold=bold),
    )


def _groups(material: Material) -> Table | None:
    parts = []
    for by, words in groups.KINDS.items():
        found = groups.group_table(material, by)
        if not found.empty and found["group"].nunique() > 1:
            parts.append(found.assign(kind=words.partition(" (")[0]))
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    titles = {method.label: method.title for method in material.methods}
    table["method"] = table["method"].map(titles)
    keys = table[["kind", "group", "languages"]].drop_duplicates(["kind", "group"])
    shown = keys.rename(columns={"kind": "By", "group": "Group", "languages": "Languages"})
    shown["Languages"] = [f"{count:d}" for count in shown["Languages"]]
    shown["By"] = shown["By"].where(~shown["By"].duplicated(), "")
    index = pd.MultiIndex.from_frame(keys[["kind", "group"]])
    values = pd.DataFrame(index=shown.index)
    for title in titles.values():
        own = table[table["method"] == title].set_index(["kind", "group"])["score"]
        values[title] = own.reindex(index).to_numpy()
        shown[title] = [decimals(value) for value in values[title]]
    caption = (
        f"Mean {material.score} over the target languages of a group, each counting once: "
        f"{material.place}, {material.seeds}. The best of a group is bold."
    )
    name = f"{material.stem}-groups"
    columns = ["kind", "group", "method", "languages", "score", "low", "high", "gap", "calibrated"]
    return Table(
        name,
        f"Scores by group of languages: {material.place}",
        caption,
        table[columns],
        latex(shown, caption, name, text=("By", "Group"), bold=best(values.round(3))),
    )


def _differences(material: Material) -> Iterator[Table]:
    pooled = differences.pooled_differences(material)
    if not pooled.empty:
        shown = pd.DataFrame(
            {
                "First": pooled["first"],
                "Second": pooled["second"],
                "Over": pooled["over"],
                "Difference": [signed(value) for value in pooled["difference"]],
                "95% interval": spans(pooled),
                "$p$": [p_value(p) for p in pooled["p"]],
                "$p$ (Holm)": [p_value(p) for p in pooled["p_holm"]],
            }
        )
        caption = (
            f"First minus second, mean {material.score} over {material.targets} target languages: "
            f"{material.place}. Over: whether it would be so with other test examples (paired "
            "bootstrap, sign flips), in other languages (random-effects model), after other "
            "trainings (Welch's t over seeds). Holm's correction is over the pairs of a kind."
        )
        name = f"{material.stem}-differences"
        text = ("First", "Second", "Over")
        yield Table(name, f"Differences between methods: {material.place}", caption, pooled,
                    latex(shown, caption, name, text=text))  # fmt: skip
    found = differences.language_differences(material)
    if found:
        titles = {method.label: method.title for method in material.methods}
        table = pd.concat(
            [part.reset_index().assign(method=titles[label]) for label, part in found.items()],
            ignore_index=True,
        )
        table.insert(0, "method", table.pop("method"))
        names = language_means(material.table).drop_duplicates("language").set_index("language")
        table.insert(2, "name", table["language"].map(names["name"]))
        shown = pd.DataFrame(
            {
                "Method": table["method"],
                "Language": table["name"],
                "$n$": [f"{n:d}" for n in table["n"]],
                "Difference": [signed(value) for value in table["difference"]],
                "95% interval": spans(table),
                "$p$": [p_value(p) for p in table["p"]],
                "$p$ (Holm)": [p_value(p) for p in table["p_holm"]],
            }
        )
        base = material.baseline.title
        caption = (
            f"{material.score.capitalize()} minus that of {base} in every language: "
            f"{material.place}. Bootstrap intervals over test examples; p by sign flips, corrected "
            "over the target languages of a method."
        )
        name = f"{material.stem}-differences-by-language"
        yield Table(name, f"Differences from {base} by language: {material.place}", caption, table,
                    latex(shown, caption, name, text=("Method", "Language")))  # fmt: skip


def _methods(material: Material) -> Table:
    table = method_costs(list(material.records))
    titles = {method.label: method.title for method in material.methods}
    table["method"] = table["method"].map(titles)
    shown = pd.DataFrame(
        {
            "Method": table["method"],
            "Seeds": [f"{n:d}" for n in table["seeds"]],
            "Parameters": [f"{n:,d}" for n in table["parameters"].astype(int)],
            "Training (s)": [decimals(v, 0) for v in table["training_seconds"]],
            "Scoring (s)": [decimals(v, 0) for v in table["scoring_seconds"]],
            "Memory (MiB)": [decimals(v / 2**20, 0) for v in table["memory"]],
            printable(material.source): list(map(pair, table["source"], table["source_sd"])),
            "Mean of others": list(map(pair, table["score"], table["score_sd"])),
            "Gap": [signed(value) for value in table["gap"]],
        }
    )
    values = pd.DataFrame(
        {printable(material.source): table["source"], "Mean of others": table["score"]}
    )
    caption = (
        f"{material.place}: what methods cost and bring. {material.score.capitalize()} in "
        f"{material.source} and on average over {material.targets} other languages, with the "
        "standard deviation between seeds; the gap is the difference. Memory is the process's "
        "peak. The best is bold."
    )
    name = f"{material.stem}-methods"
    return Table(
        name,
        f"Methods: {material.place}",
        caption,
        table,
        latex(shown, caption, name, text=("Method",), bold=best(values.round(3).T).T),
    )


# Cells -------------------------------------------------------------------------------------------


def decimals(value: float, places: int = 3) -> str:
    """A number with fixed decimals; nothing for what is not there."""
    if not np.isfinite(value):
        return ""
    text = f"{round(value, places) + 0.0:.{places}f}"
    return text if value >= 0 or not text.startswith("-") else f"${text}$"


def signed(value: float) -> str:
    """Three decimals with a sign."""
    return f"${_rounded(value):+.3f}$" if np.isfinite(value) else ""


def _rounded(value: float) -> float:
    """Three decimals; 0 has no sign."""
    return round(value, 3) + 0.0


def pair(value: float, spread: float) -> str:
    """A number and how far it may be off."""
    beside = rf" $\pm$ {spread:.3f}" if np.isfinite(spread) and np.isfinite(value) else ""
    return f"{decimals(value)}{beside}"


def spans(table: pd.DataFrame) -> list[str]:
    """Intervals: their ends in brackets."""
    return [
        rf"$[{round(low, 3) + 0.0:+.3f},\ {round(high, 3) + 0.0:+.3f}]$"
        if np.isfinite(low) and np.isfinite(high)
        else ""
        for low, high in zip(table["low"], table["high"], strict=True)
    ]


def p_value(p: float) -> str:
    """Three decimals, or that it is smaller."""
    if not np.isfinite(p):
        return ""
    return "$<$0.001" if p < 0.001 else f"{p:.3f}"


def best(values: pd.DataFrame) -> pd.DataFrame:
    """Where a row has its largest value, as it is printed; nowhere where all are the same."""
    top = values.max(axis=1)
    apart = values.nunique(axis=1) > 1
    return values.eq(top, axis=0) & apart.to_numpy()[:, None]


def latex(
    shown: pd.DataFrame,
    caption: str,
    label: str,
    *,
    text: tuple[str, ...],
    bold: pd.DataFrame | None = None,
) -> str:
    """A table with booktabs' rules.

    Args:
        shown: the cells as LaTeX, but for columns of ``text``.
        caption: below it.
        label: to refer to it.
        text: columns to escape, which stand left; all others stand right.
        bold: of some columns, whether a cell is bold.
    """
    frame = shown.reset_index(drop=True)
    own = tuple(name for name in frame.columns if name in text)
    long = len(frame) > LONG
    style = frame.style.hide(axis="index").format(_safe, subset=list(own))
    style = style.format_index(lambda name: name if name.startswith("$") else _safe(name), axis=1)
    if bold is not None:
        flags = bold.reset_index(drop=True).reindex(columns=frame.columns, fill_value=False)
        marks = flags.map(lambda flag: "textbf:--rwrap;" if flag else "")
        style = style.apply(lambda _: marks, axis=None)
    body: str = style.to_latex(
        hrules=True,
        caption=_safe(caption),
        label=f"tab:{label}",
        column_format="".join("l" if name in own else "r" for name in frame.columns),
        environment="longtable" if long else None,
        position=None if long else "tbp",
        position_float=None if long else "centering",
    )
    packages = "booktabs, longtable" if long else "booktabs"
    return f"% \\usepackage{{{packages}}}\n{body}"


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _safe(value: object) -> str:
    """A text of others as LaTeX that prints it."""
    return "".join(SPECIAL.get(character, character) for character in printable(str(value)))
