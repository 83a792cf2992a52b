"""Settings of one task and model, with what the page says of them read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from polyprefix.analysis import (
    Examples,
    Setting,
    language_means,
    method_labels,
    read_examples,
    score_table,
)
from polyprefix.config import RunError
from polyprefix.languages import Language, get
from polyprefix.report.console import named, titled


@dataclass(frozen=True)
class Group:
    """What can be compared.

    Attributes:
        settings: of one task and model, each run once.
        names: of the settings, as :func:`polyprefix.analysis.method_labels` tells them apart.
        folder: where the folders of the runs are.
        examples: what they score on the same examples; ``None`` where that cannot be known.
        unpaired: why not.
    """

    settings: list[Setting]
    names: list[str]
    folder: Path
    examples: Examples | None
    unpaired: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of all runs, setting by setting."""
        return [run.record for setting in self.settings for run in setting.runs]

    @cached_property
    def shown(self) -> dict[str, str]:
        """The settings' names for people, by name: the method's title, and what sets it apart."""
        titles = titled(
            [
                (setting.runs[0].record["method"], name, setting.selected)
                for setting, name in zip(self.settings, self.names, strict=True)
            ]
        )
        found = dict(zip(self.names, titles, strict=True))
        return found if len(set(found.values())) == len(found) else {name: name for name in found}

    def quoted(self, name: str) -> str:
        """A setting's name for people, in backticks."""
        return "`{}`".format(self.shown[name].replace("`", "'"))

    @property
    def title(self) -> str:
        """Task and model."""
        record = self.records[0]
        return f"{record['task']['title']} on {record['model']['name']}"

    @property
    def headline(self) -> str:
        """The score that is compared, for people."""
        return named(self.records[0]["task"]["headline"])

    @property
    def source(self) -> Language:
        """The language that was trained on."""
        return get(self.records[0]["task"]["source_language"])

    @cached_property
    def means(self) -> pd.DataFrame:
        """See :func:`polyprefix.analysis.language_means`."""
        return language_means(score_table(self.records))

    @cached_property
    def languages(self) -> list[Language]:
        """The source, then from the language with the best mean score to that with the worst."""
        targets = self.means[~self.means["source"].astype(bool)]
        order = targets.groupby("language", sort=True)["score"].mean()
        codes = order.sort_values(ascending=False, kind="stable").index
        return [self.source, *(get(code) for code in codes)]


def read_group(found: Sequence[Setting], folder: Path) -> Group:
    """Read a group of settings, see :func:`polyprefix.report.study.groups`.

    Configurations that differ in words only, a default that is said or not, are one run: the first
    setting has it.

    Raises:
        RunError: two runs differ in nothing that tells methods apart.
    """
    settings: list[Setting] = []
    seen: set[str] = set()
    for setting in found:
        ids = {run.record["id"] for run in setting.runs}
        if not ids <= seen:
            settings.append(setting)
            seen |= ids
    records = [run.record for setting in settings for run in setting.runs]
    labels = dict(zip((r["id"] for r in records), method_labels(records), strict=True))
    names = [labels[setting.runs[0].record["id"]] for setting in settings]
    try:
        paired = read_examples([folder / record["id"] for record in records])
        examples, unpaired = paired, ""
    except RunError as error:
        examples, unpaired = None, str(error)
    return Group(settings, names, folder, examples, unpaired)
