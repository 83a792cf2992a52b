"""What the figures and tables of a group of settings are made from, read once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from polyprefix.analysis import Examples, Setting, method_labels, read_examples, score_table
from polyprefix.config import RunError
from polyprefix.languages import get
from polyprefix.report.console import named, titled
from polyprefix.report.figures.drawing import DASHES, MARKERS, SERIES, printable

MOST = len(SERIES)
"""Methods that a figure tells apart."""

LONGEST = 48
"""Characters of a method's name in a figure."""


@dataclass(frozen=True)
class Method:
    """A method as it is drawn: the same in all figures of a group.

    Attributes:
        label: its name in the analysis.
        title: its name for people.
        place: in the order of the study.
        dev: mean source-language dev score; ``None`` where nothing was trained.
    """

    label: str
    title: str
    place: int
    dev: float | None

    @property
    def colour(self) -> str:
        return SERIES[self.place % MOST]

    @property
    def marker(self) -> str:
        return MARKERS[self.place % MOST]

    @property
    def dash(self) -> Any:
        return DASHES[self.place % MOST]


@dataclass(frozen=True, eq=False)
class Material:
    """Settings of one task and model.

    Attributes:
        stem: what the names of the files begin with.
        found: all settings.
        select: keys that were selected on dev.
        folder: holds the runs' folders.
        methods: those that are compared, at most eight.
        left_out: settings that are not among them.
        records: of the compared methods' runs.
        table: their scores, see :func:`polyprefix.analysis.score_table`.
        examples: their scores of single examples; ``None`` where predictions are missing or cannot
            be paired.
        trouble: why.
    """

    stem: str
    found: tuple[Setting, ...]
    select: tuple[str, ...]
    folder: Path
    methods: tuple[Method, ...]
    left_out: int
    records: tuple[dict[str, Any], ...]
    table: pd.DataFrame
    examples: Examples | None
    trouble: str | None

    @property
    def folders(self) -> list[Path]:
        return [self.folder / record["id"] for record in self.records]

    @property
    def task(self) -> dict[str, Any]:
        task: dict[str, Any] = self.records[0]["task"]
        return task

    @property
    def score(self) -> str:
        """The score's name for people."""
        return named(self.task["headline"])

    @property
    def source(self) -> str:
        """The source language's name."""
        return get(self.task["source_language"]).name

    @property
    def place(self) -> str:
        """Task and model, for titles."""
        return printable(f"{self.task['title']} on {self.records[0]['model']['name']}")

    @property
    def common(self) -> pd.DataFrame:
        """The rows of the table in languages that every compared method has scored."""
        runs = self.table["run"].nunique()
        there = self.table.groupby("language")["run"].nunique()
        return self.table[self.table["language"].isin(there[there == runs].index)]

    @property
    def targets(self) -> int:
        """How many target languages all methods have."""
        rows = self.common
        return int(rows.loc[~rows["source"].astype(bool), "language"].nunique())

    @property
    def seeds(self) -> str:
        """The number of seeds, for captions."""
        counts = self.table.groupby("method")["run"].nunique()
        low, high = int(counts.min()), int(counts.max())
        return f"{high} seed{'s' * (high > 1)}" if low == high else f"{low} to {high} seeds"

    def method(self, label: str) -> Method:
        return next(method for method in self.methods if method.label == label)

    @property
    def leader(self) -> Method:
        """The method with the highest source-language dev score."""
        return max(self.methods, key=lambda m: float("-inf") if m.dev is None else m.dev)

    @property
    def leading(self) -> str:
        """The leader and why it is one, for captions."""
        if self.leader.dev is None or len(self.methods) == 1:
            return self.leader.title
        return f"{self.leader.title}, the method with the highest {self.source} dev score,"

    @property
    def baseline(self) -> Method:
        """The untouched backbone where it was run, else the leader."""
        for method, record in self._firsts():
            if record["method"]["name"] == "none":
                return method
        return self.leader

    def _firsts(self) -> list[tuple[Method, dict[str, Any]]]:
        first: dict[str, dict[str, Any]] = {}
        for label, record in zip(method_labels(self.records), self.records, strict=True):
            first.setdefault(label, record)
        return [(method, first[method.label]) for method in self.methods]

    def omission(self) -> str:
        """A sentence for captions where not every setting is compared."""
        if not self.left_out:
            return ""
        return (
            f" Of {self.left_out + len(self.methods)} settings the best of each method on "
            f"{self.source} dev is shown."
        )


def silent(text: str) -> None:
    """Say nothing."""


def gather(
    found: Sequence[Setting],
    select: Sequence[str],
    folder: Path,
    *,
    stem: str | None = None,
    say: Callable[[str], None] = silent,
) -> Material:
    """Read what one group of settings left behind.

    Args:
        found: settings of one task, source language and model.
        select: keys that were selected on dev.
        folder: holds the runs' folders.
        stem: what file names begin with; task and model by default.
        say: told what is missing.

    Raises:
        ValueError: no settings, or several tasks.
        RunError: two of the runs are the same but for their languages.
    """
    if not found:
        raise ValueError("no settings, no figures")
    kinds = {(s.runs[0].record["task"]["name"], s.runs[0].record["task"]["source_language"])
             for s in found}  # fmt: skip
    if len(kinds) != 1:
        raise ValueError(f"settings of one task and source language expected, found {kinds}")
    records = list({run.record["id"]: run.record for s in found for run in s.runs}.values())
    labels = dict(zip((r["id"] for r in records), method_labels(records), strict=True))
    own: dict[str, tuple[Setting, dict[str, Any]]] = {}
    for setting in found:
        record = setting.runs[0].record
        own.setdefault(labels[record["id"]], (setting, record))
    kept = list(own)
    if len(kept) > MOST:
        kept = _best_of_each(own)
    # A label may be shorter among fewer runs.
    records = [record for record in records if labels[record["id"]] in kept]
    again = dict(zip((r["id"] for r in records), method_labels(records), strict=True))
    shown = [again[own[label][1]["id"]] for label in kept]
    titles = titled(
        [
            (own[label][1]["method"], name, own[label][0].selected)
            for label, name in zip(kept, shown, strict=True)
        ]
    )
    methods: list[Method] = []
    for place, label in enumerate(kept):
        title = printable(titles[place], LONGEST)
        if title in {method.title for method in methods}:  # cut to the same, or called the same
            title = f"{title} [{place + 1}]"
        methods.append(Method(shown[place], title, place, own[label][0].dev))
    examples, trouble = _examples([folder / record["id"] for record in records])
    if trouble is not None:
        say(f"tests of single examples are left out: {trouble}")
    return Material(
        stem=stem or default_stem(found),
        found=tuple(found),
        select=tuple(select),
        folder=folder,
        methods=tuple(methods),
        left_out=len(own) - len(kept),
        records=tuple(records),
        table=score_table(records),
        examples=examples,
        trouble=trouble,
    )


def default_stem(found: Sequence[Setting]) -> str:
    """Task and model, as they can stand in names of files and ids."""
    record = found[0].runs[0].record
    model = record["model"]["name"].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{record['task']['name']}-{model}").strip("-")


def _best_of_each(own: dict[str, tuple[Setting, dict[str, Any]]]) -> list[str]:
    """Of each method the label with the best source-language dev score, in the study's order."""
    best: dict[str, str] = {}
    for label, (setting, record) in own.items():
        name = record["method"]["name"]
        if name not in best or _dev(setting) > _dev(own[best[name]][0]):
            best[name] = label
    return list(best.values())[:MOST]


def _dev(setting: Setting) -> float:
    return float("-inf") if setting.dev is None else setting.dev


def _examples(folders: Sequence[Path]) -> tuple[Examples | None, str | None]:
    try:
        return read_examples(folders), None
    except RunError as error:
        return None, str(error)
