"""What a run's record says about transfer, language by language and in groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polyprefix.languages import Language, get


@dataclass(frozen=True, slots=True)
class LanguageScore:
    """One language of a run.

    Attributes:
        language: its row of the language table.
        n: number of test examples.
        score: the task's headline score.
        stderr: its standard error.
        gap: the transfer gap, source score minus this one; 0 for the source itself.
        majority: accuracy of always giving the most frequent label, for tasks of labels.
        source: whether it is the language that was trained on.
        calibrated: the headline score after calibration, for tasks of choices.
        others: the record's other scores by name, without standard errors and without those that
            are calibrated.
    """

    language: Language
    n: int
    score: float
    stderr: float
    gap: float
    majority: float | None
    source: bool
    calibrated: float | None
    others: dict[str, float]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean over the languages of a group, each counting once.

    ``calibrated`` is ``None`` where not every language has such a score.
    """

    name: str
    languages: int
    score: float
    calibrated: float | None
    gap: float


def language_scores(record: dict[str, Any]) -> list[LanguageScore]:
    """The languages of a record, the source first, then from the best to the worst."""
    source = record["task"]["source_language"]
    headline = record["task"]["headline"]
    top = record["scores"][source][headline]
    apart = {"n", "majority", "gold_logprob", headline}
    rows = [
        LanguageScore(
            language=get(code),
            n=values["n"],
            score=values[headline],
            stderr=values[f"{headline}_stderr"],
            gap=top - values[headline],
            majority=values.get("majority"),
            source=code == source,
            calibrated=values.get(f"{headline}_calibrated"),
            others={
                name: value
                for name, value in values.items()
                if name not in apart and not name.endswith(("_stderr", "_calibrated"))
            },
        )
        for code, values in record["scores"].items()
    ]
    return sorted(rows, key=lambda row: (not row.source, -row.score, row.language.code))


def mean_calibrated(rows: Sequence[LanguageScore]) -> float | None:
    """The mean calibrated score; ``None`` without rows, or if one of them has no such score."""
    scores = [row.calibrated for row in rows if row.calibrated is not None]
    return sum(scores) / len(scores) if scores and len(scores) == len(rows) else None


def group_scores(rows: Sequence[LanguageScore], key: Callable[[Language], str]) -> list[GroupScore]:
    """Means over the target languages (the source is left out), best group first."""
    groups: dict[str, list[LanguageScore]] = defaultdict(list)
    for row in rows:
        if not row.source:
            groups[key(row.language)].append(row)
    means = [
        GroupScore(
            name,
            len(members),
            sum(row.score for row in members) / len(members),
            mean_calibrated(members),
            sum(row.gap for row in members) / len(members),
        )
        for name, members in groups.items()
    ]
    return sorted(means, key=lambda group: (-group.score, group.name))
