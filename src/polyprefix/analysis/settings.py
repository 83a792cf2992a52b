"""What a grid of runs found: selection on source-language dev, means over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from polyprefix.analysis.scores import language_scores

SEED = "seed"


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """A finished run, and the values of the keys that vary among the runs."""

    labels: Mapping[str, Any]
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs that differ in their seed only.

    Attributes:
        labels: the keys that vary, without the seed.
        selected: those of them that were selected on dev.
        candidates: settings that were selected from, this one included.
        runs: one a seed.
        dev: mean of the best source-language dev scores; ``None`` where nothing was trained.
        source: mean test score of the source language.
        target: mean over seeds of the mean over target languages; ``None`` without any.
        spread: its standard deviation over seeds; ``None`` for one seed.
    """

    labels: dict[str, Any]
    selected: tuple[str, ...]
    candidates: int
    runs: list[LabelledRun]
    dev: float | None
    source: float
    target: float | None
    spread: float | None

    @property
    def gap(self) -> float | None:
        """The mean transfer gap, source minus target; ``None`` without a target language."""
        return None if self.target is None else self.source - self.target


def settings(runs: Sequence[LabelledRun], select: Sequence[str] = ()) -> list[Setting]:
    """Settings of a grid; of those that differ in the keys of ``select`` only, the best.

    The best is the one with the highest dev score in the source language, averaged over seeds; the
    right answers' log-probability there breaks ties, and after that the order of the grid. Scores
    of other languages, and of tests, have no part in it.

    Args:
        runs: finished runs of one study.
        select: keys whose value is selected.
    """
    groups: dict[str, list[LabelledRun]] = {}
    for run in runs:
        rest = {key: value for key, value in run.labels.items() if key != SEED}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(run)
    rivals: dict[str, list[list[LabelledRun]]] = {}
    for group in groups.values():
        fixed = {k: v for k, v in group[0].labels.items() if k != SEED and k not in select}
        # Scores of different models and tasks never compete.
        fixed |= {"": [group[0].record["task"]["name"], group[0].record["model"]["name"]]}
        rivals.setdefault(json.dumps(fixed, sort_keys=True), []).append(group)
    return [
        _setting(max(candidates, key=_dev), tuple(select), len(candidates))
        for candidates in rivals.values()
    ]


def _dev(runs: Sequence[LabelledRun]) -> tuple[float, float]:
    """Dev score and tie break, averaged over seeds; lowest where nothing was trained."""
    trained = [run.record["training"] for run in runs if "training" in run.record]
    if not trained:
        return float("-inf"), float("-inf")
    return (
        mean(training["best_dev_score"] for training in trained),
        mean(training["best_dev_tie_break"] for training in trained),
    )


def _setting(runs: list[LabelledRun], select: tuple[str, ...], candidates: int) -> Setting:
    sources, targets = [], []
    for run in runs:
        rows = language_scores(run.record)
        sources += [row.score for row in rows if row.source]
        others = [row.score for row in rows if not row.source]
        targets += [mean(others)] if others else []
    trained = "training" in runs[0].record
    labels = {key: value for key, value in runs[0].labels.items() if key != SEED}
    return Setting(
        labels=labels,
        selected=tuple(key for key in select if key in labels),
        candidates=candidates,
        runs=runs,
        dev=_dev(runs)[0] if trained else None,
        source=mean(sources),
        target=mean(targets) if targets else None,
        spread=stdev(targets) if len(targets) > 1 else None,
    )
