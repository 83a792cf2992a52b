"""Several runs beside each other: the same task and model, other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyprefix.analysis.scores import LanguageScore, language_scores, mean_calibrated


@dataclass(frozen=True, slots=True)
class MethodRun:
    """One run of a comparison.

    Attributes:
        record: the run's record.
        name: what tells it from the others; by default its method's name in configurations.
        title: of the method, for people.
        parameters: that were trained.
        share: of them in the backbone's parameters.
        seconds: of training and scoring.
        languages: the run's scores by language code.
    """

    record: dict[str, Any]
    name: str
    title: str
    parameters: int
    share: float
    seconds: float
    languages: dict[str, LanguageScore]

    @property
    def source(self) -> float:
        """The source language's score."""
        return next(row.score for row in self.languages.values() if row.source)

    @property
    def targets(self) -> list[LanguageScore]:
        """The scores of the other languages."""
        return [row for row in self.languages.values() if not row.source]

    @property
    def mean(self) -> float | None:
        """The mean score of the target languages, each counting once; ``None`` without any."""
        scores = [row.score for row in self.targets]
        return sum(scores) / len(scores) if scores else None

    @property
    def calibrated(self) -> float | None:
        """The same of the calibrated scores, for tasks of choices."""
        return mean_calibrated(self.targets)

    @property
    def gap(self) -> float | None:
        """The mean transfer gap, source score minus target score."""
        return None if self.mean is None else self.source - self.mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: in the order they were given.
        languages: codes that every run has scored, the source first, then from the language with
            the best mean over the runs to that with the worst.
        headline: the score that is compared.
        majority: the score of always giving the most frequent label, the highest of any language;
            ``None`` for tasks without labels.
    """

    runs: list[MethodRun]
    languages: list[str]
    headline: str
    majority: float | None

    def best(self, code: str) -> float:
        """The best score of any run in a language."""
        return max(run.languages[code].score for run in self.runs)


def compare(records: Sequence[dict[str, Any]], names: Sequence[str] | None = None) -> Comparison:
    """Put finished runs beside each other.

    Args:
        records: of the runs.
        names: of the runs, where their methods do not tell them apart.

    Raises:
        ValueError: no records, or their tasks or source languages differ.
    """
    kinds = {(r["task"]["name"], r["task"]["source_language"]) for r in records}
    if len(kinds) != 1:
        raise ValueError(f"runs of one task and source language expected, found {sorted(kinds)}")
    names = names or [record["method"]["name"] for record in records]
    runs = [_method_run(record, name) for record, name in zip(records, names, strict=True)]
    source = records[0]["task"]["source_language"]
    common = set.intersection(*(set(run.languages) for run in runs)) - {source}

    def mean(code: str) -> float:
        return sum(run.languages[code].score for run in runs) / len(runs)

    ordered = sorted(common, key=lambda code: (-mean(code), code))
    codes = [source, *ordered]
    shares = [row.majority for row in runs[0].languages.values() if row.majority is not None]
    return Comparison(runs, codes, records[0]["task"]["headline"], max(shares, default=None))


def _method_run(record: dict[str, Any], name: str) -> MethodRun:
    parameters = record["trainable_parameters"]
    seconds = record["evaluation"]["seconds"] + record.get("training", {}).get("seconds", 0.0)
    return MethodRun(
        record=record,
        name=name,
        title=record["method"]["title"],
        parameters=parameters,
        share=parameters / record["model"]["parameters"],
        seconds=seconds,
        languages={row.language.code: row for row in language_scores(record)},
    )
