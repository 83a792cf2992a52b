"""A run's scores as tables for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from polyprefix.analysis import (
    Comparison,
    GroupScore,
    LanguageScore,
    MethodRun,
    group_scores,
    language_scores,
    mean_calibrated,
)
from polyprefix.config import printable
from polyprefix.languages import get


def show_record(record: dict[str, Any], console: Console) -> None:
    """Print what a run was, its score table, and means by family and script."""
    console.print(plain(_headline(record), style="bold"))
    if record["status"] != "finished":
        console.print(
            plain(f"status: {record['status']} {record.get('error', '')}".rstrip(), keep="\n")
        )
    if "scores" not in record:
        return
    rows = language_scores(record)
    headline = record["task"]["headline"]
    console.print(_languages(headline, rows))
    targets = [row for row in rows if not row.source]
    if not targets:
        return
    console.print(
        Group(
            _groups("family", headline, group_scores(rows, lambda language: language.family)),
            _groups("script", headline, group_scores(rows, lambda language: language.script)),
        )
    )
    console.print(plain(_verdict(rows, targets)))


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print runs side by side: a column for each, what it cost, then a row for each language.

    The best score of a language is bold.
    """
    runs, source = comparison.runs, comparison.languages[0]
    record = runs[0].record
    console.print(plain(f"{record['task']['title']} on {record['model']['name']}", style="bold"))
    # In a narrow terminal a name breaks where it has its underscore.
    table = new_table("", *(run.name.replace("_", "_\u200b") for run in runs))
    for column in table.columns:
        column.no_wrap = False
    table.add_row("parameters", *(_short(run.parameters) for run in runs))
    table.add_row("seconds", *(f"{run.seconds:.0f}" for run in runs))
    table.add_row("mean of others", *(number(run.mean) for run in runs))
    if any(run.calibrated is not None for run in runs):
        table.add_row("calibrated", *(number(run.calibrated) for run in runs))
    table.add_row("mean gap", *(_gap(run) for run in runs), end_section=True)
    for code in comparison.languages:
        scores = [run.languages[code].score for run in runs]
        best = comparison.best(code)
        cells = [Text(f"{v:.3f}", style="bold" if v == best else "") for v in scores]
        table.add_row(Text(get(code).name), *cells, end_section=code == source)
    console.print(table)
    note = f"The score is {named(comparison.headline)}"
    if comparison.majority is not None:
        note += f"; always giving the most frequent label has {comparison.majority:.3f}"
    console.print(plain(f"{note}."))


def _gap(run: MethodRun) -> str:
    return "" if run.gap is None else signed(run.gap)


def _short(number: int) -> str:
    """Three digits and a unit: 25.6k, 11.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _headline(record: dict[str, Any]) -> str:
    parts = [
        f"{record['task']['title']}: {record['method']['title']} on {record['model']['name']}",
    ]
    if "trainable_parameters" in record:
        parts.append(f"{record['trainable_parameters']:,} trainable parameters")
    if "training" in record:
        training = record["training"]
        parts.append(
            f"{training['steps']} steps in {training['seconds']:.0f} s, best dev "
            f"{named(record['task']['headline'])} {training['best_dev_score']:.3f} at step "
            f"{training['best_step']}"
        )
    return ", ".join(parts)


def plain(text: str, style: str = "", keep: str = "") -> Text:
    """A text as one: nothing in it is markup, moves the cursor or turns the line around, but what
    is to be kept."""
    return Text(printable(text, keep), style=style)


class _Table(Table):
    """A table whose cells are texts."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        texts = (plain(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*texts, **options)


def new_table(*columns: str, left: int = 1) -> Table:
    """An empty table whose first columns, ``left`` of them, stand left and the others right."""
    table = _Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        side: JustifyMethod = "left" if place < left else "right"
        table.add_column(plain(column), justify=side, no_wrap=0 < place < left)
    return table


WORDS = {
    "number": "accuracy of numbers",
    "harness_number": "accuracy of numbers as the harness reads them",
    "exact": "exact match",
}
"""Scores whose names say too little to people."""


def named(score: str) -> str:
    """A score's name for people: ``exact_match`` is exact match, ``macro_f1`` macro F1."""
    words = WORDS.get(score, score.removesuffix("_language").replace("_", " "))
    return words.replace("f1", "F1").replace("mlqa", "MLQA")


def titled(named_methods: Sequence[tuple[Mapping[str, Any], str, Sequence[str]]]) -> list[str]:
    """Methods' names for people: their titles, and what sets them apart.

    What was selected on dev is said where the names would be the same without it.

    Args:
        named_methods: each as a record has it; its label, see
            :func:`polyprefix.analysis.method_labels` (``lora rank=4`` is LoRA, rank 4); and the
            keys that were selected.
    """
    found = [_titled(method, label, selected) for method, label, selected in named_methods]
    if len(set(found)) < len(found):
        found = [_titled(method, label, ()) for method, label, _ in named_methods]
    return found


def _titled(method: Mapping[str, Any], label: str, selected: Sequence[str]) -> str:
    silent = {key.removeprefix("train.").removeprefix("method.") for key in selected}

    def words(match: re.Match[str]) -> str:
        key, value = match[1], {"True": "yes", "False": "no"}.get(match[2], match[2])
        return "" if key in silent else f", {named(key.rpartition('.')[2])} {value}"

    apart = label.removeprefix(method["name"])
    return f"{method.get('title') or method['name']}{_APART.sub(words, apart)}"


_APART = re.compile(r" ([a-z][a-z0-9_.]*)=(.*?)(?= [a-z][a-z0-9_.]*=|$)")


def _languages(headline: str, rows: Sequence[LanguageScore]) -> Table:
    # The source may lack a score that the others have: the language of its answers is no question.
    others = list(dict.fromkeys(name for row in rows for name in row.others))
    calibrated = any(row.calibrated is not None for row in rows)
    majority = any(row.majority is not None for row in rows)
    beside = ("calibrated",) if calibrated else ()
    last = ("majority",) if majority else ()
    names = (headline, "±", *beside, *others, "gap", *last)
    columns = ("language", "code", "family", "script", "n", *map(named, names))
    table = new_table(*columns, left=4)
    for row in rows:
        language = row.language
        table.add_row(
            Text(language.name),
            language.code,
            language.family,
            language.script,
            str(row.n),
            f"{row.score:.3f}",
            f"{row.stderr:.3f}",
            *((number(row.calibrated),) if calibrated else ()),
            *(number(row.others.get(name)) for name in others),
            "source" if row.source else signed(row.gap),
            *((number(row.majority),) if majority else ()),
            style="bold" if row.source else None,
        )
    return table


def number(value: float | None) -> str:
    """A count as it is, a share with three decimals, nothing for what is not there."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _groups(name: str, headline: str, groups: Sequence[GroupScore]) -> Table:
    calibrated = any(group.calibrated is not None for group in groups)
    beside = ("calibrated",) if calibrated else ()
    table = new_table(name, "languages", named(headline), *beside, "gap")
    for group in groups:
        table.add_row(
            group.name,
            str(group.languages),
            f"{group.score:.3f}",
            *((number(group.calibrated),) if calibrated else ()),
            signed(group.gap),
        )
    return table


def signed(value: float) -> str:
    """Three decimals with a sign; what rounds to nothing is +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"


def _verdict(rows: Sequence[LanguageScore], targets: Sequence[LanguageScore]) -> str:
    source = next(row for row in rows if row.source)
    mean = sum(row.score for row in targets) / len(targets)
    name = source.language.name
    text = (
        f"{name} {source.score:.3f}{_beside(source.calibrated)}; mean of {len(targets)} other "
        f"languages {mean:.3f}{_beside(mean_calibrated(targets))}"
    )
    if source.majority is None:
        return f"{text}."
    above = sum(row.score - 2 * row.stderr > (row.majority or 0.0) for row in targets)
    return f"{text}, of which {above} are above the majority class by two standard errors."


def _beside(calibrated: float | None) -> str:
    return "" if calibrated is None else f" (calibrated {calibrated:.3f})"
