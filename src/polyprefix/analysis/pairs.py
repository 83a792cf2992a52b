"""Methods against each other on the same examples: by language, on average, by seed; who wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from polyprefix.analysis.paired import (
    PERMUTATIONS,
    RESAMPLES,
    Estimates,
    IntervalMethod,
    adjust,
    paired_bootstrap,
    sign_flip_test,
    stratified_bootstrap,
)
from polyprefix.analysis.records import Examples

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """One number: ``first`` minus ``second``.

    Attributes:
        first: a method.
        second: the other.
        difference: of their mean scores over the target languages, each counting once.
        stderr: its standard error.
        low: lower end of its interval.
        high: upper end.
        p: two-sided.
    """

    first: str
    second: str
    difference: float
    stderr: float
    low: float
    high: float
    p: float


def compare_languages(
    examples: Examples,
    first: str,
    second: str,
    *,
    method: IntervalMethod = "bca",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """``first`` minus ``second`` in every language.

    The population is examples like those tested, for the adapters that were trained; a method's
    score on an example is the mean of its seeds.

    Returns:
        Indexed by language, the source first: ``n``, ``first``, ``second`` (mean scores),
        ``difference``, ``stderr``, ``low``, ``high`` (bootstrap, not corrected for the number of
        languages), ``p`` (sign flips), ``p_holm``, ``p_bh`` (corrected over the target languages;
        the source, another question, keeps its p).
    """
    codes = list(examples.ids)
    differences = [examples.differences(first, second, code) for code in codes]
    options: dict[str, Any] = {
        "method": method,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    if examples.parallel:
        found = paired_bootstrap(np.stack(differences), **options)
    else:
        each = [paired_bootstrap(row, **options) for row in differences]
        found = Estimates(
            *(
                np.concatenate([getattr(one, name) for one in each])
                for name in ("mean", "stderr", "low", "high")
            )
        )
    table = pd.DataFrame(
        {
            "n": [len(row) for row in differences],
            "first": [examples.scores(first, code).mean() for code in codes],
            "second": [examples.scores(second, code).mean() for code in codes],
            "difference": found.mean,
            "stderr": found.stderr,
            "low": found.low,
            "high": found.high,
            "p": _tests(differences, permutations, seed),
        },
        index=pd.Index(codes, name="language"),
    )
    targets = table.index != examples.source
    for name, way in (("p_holm", "holm"), ("p_bh", "bh")):
        table[name] = table["p"]
        table.loc[targets, name] = adjust(table.loc[targets, "p"], way)  # type: ignore[arg-type]
    return table


def _tests(differences: Sequence[Array], permutations: int, seed: int) -> Array:
    """p of each row; rows of one length are tested together, which is much faster."""
    lengths = np.array([len(row) for row in differences])
    found = np.empty(len(lengths))
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        rows = np.stack([differences[place] for place in places.tolist()])
        found[places] = sign_flip_test(rows, permutations=permutations, seed=seed)
    return found


def compare_means(
    examples: Examples,
    first: str,
    second: str,
    *,
    languages: Sequence[str] | None = None,
    method: IntervalMethod = "bca",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Difference:
    """The difference of the mean over languages, each counting once, on other examples.

    The languages and the adapters stay as they are: :func:`polyprefix.analysis.pool` is about other
    languages, :func:`compare_seeds` about other trainings. Where an example is the same in every
    language it is drawn, and its sign turned, in all of them at once.

    Args:
        examples: of both methods.
        first: a method.
        second: the one that is taken away.
        languages: the target languages by default.
        method: of the interval.
        confidence: of the interval.
        resamples: for the interval.
        permutations: for p, where it is not exact.
        seed: of both.
    """
    codes = examples.targets if languages is None else list(languages)
    if not codes:
        raise ValueError("no languages to average over")
    rows = [examples.differences(first, second, code) for code in codes]
    strata = [np.mean(rows, axis=0)] if examples.parallel else rows
    found = stratified_bootstrap(
        strata, method=method, confidence=confidence, resamples=resamples, seed=seed
    )
    # The statistic is a weighted sum of differences, and so is what sign flips make of it.
    weighted = np.concatenate([row / len(row) / len(strata) for row in strata])
    p = sign_flip_test(
        strata[0] if len(strata) == 1 else weighted, permutations=permutations, seed=seed
    )
    low, high = float(found.low[0]), float(found.high[0])
    return Difference(
        first, second, float(found.mean[0]), float(found.stderr[0]), low, high, float(p[0])
    )


def seed_means(examples: Examples, method: str) -> Array:
    """The mean over the target languages of each of a method's runs, ``[seeds]``."""
    place = examples.index(method)
    means = [examples.runs[code][place].mean(axis=1) for code in examples.targets]
    return np.asarray(np.mean(means, axis=0))


def seed_variance(examples: Examples, first: str, second: str) -> tuple[float, float]:
    """Of the difference of two methods' means over seeds, and its degrees of freedom.

    Welch's: the sum of both variances of a mean, none for a method that trains nothing; NaN where a
    trained method has one run.
    """
    variance, below = 0.0, 0.0
    for method in (first, second):
        if not examples.trained[examples.index(method)]:
            continue
        means = seed_means(examples, method)
        if len(means) < 2:
            return float("nan"), 0.0
        part = float(means.var(ddof=1)) / len(means)
        variance += part
        below += part**2 / (len(means) - 1)
    return variance, variance**2 / below if below > 0 else float("inf")


def compare_seeds(
    examples: Examples, first: str, second: str, *, confidence: float = 0.95
) -> Difference:
    """The difference of the mean over languages, in other trainings with other seeds.

    Welch's t-test over runs (Welch 1947): the examples and languages stay as they are. A method
    that trains nothing has no seeds; the other is then compared with its score, by Student's test.
    With three seeds this sees large differences only. NaN where a trained method has one run.
    """
    difference = float(seed_means(examples, first).mean() - seed_means(examples, second).mean())
    variance, degrees = seed_variance(examples, first, second)
    if not variance > 0:
        nothing = float("nan")
        return Difference(first, second, difference, nothing, nothing, nothing, nothing)
    stderr = variance**0.5
    reach = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * stderr
    p = float(2 * stats.t.sf(abs(difference) / stderr, degrees))
    return Difference(first, second, difference, stderr, difference - reach, difference + reach, p)


@dataclass(frozen=True)
class WinMatrix:
    """How often methods beat each other.

    Attributes:
        wins: a row's method is better than the column's in so many languages, significantly.
        ties: neither is.
        losses: the column's is better; ``wins`` transposed.
        tests: every pair and language: ``first``, ``second``, ``language``, ``difference``, ``p``,
            ``p_corrected``, ``outcome`` (``win``, ``tie`` or ``loss`` of the first).
    """

    wins: pd.DataFrame
    ties: pd.DataFrame
    losses: pd.DataFrame
    tests: pd.DataFrame


def win_matrix(
    examples: Examples,
    *,
    level: float = 0.05,
    correction: Literal["holm", "bh"] = "holm",
    across: Literal["languages", "matrix"] = "languages",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> WinMatrix:
    """Every pair of methods in every target language, by sign flips.

    Args:
        examples: of the methods.
        level: a win has a corrected p below it.
        correction: see :func:`polyprefix.analysis.adjust`.
        across: correct over the languages of each pair, or over all tests of the matrix.
        permutations: where p is not exact.
        seed: of the permutations.
    """
    parts = []
    for first, second in combinations(examples.methods, 2):
        rows = [examples.differences(first, second, code) for code in examples.targets]
        p = _tests(rows, permutations, seed)
        parts.append(
            pd.DataFrame(
                {
                    "first": first,
                    "second": second,
                    "language": examples.targets,
                    "difference": [row.mean() for row in rows],
                    "p": p,
                    "p_corrected": adjust(p, correction),
                }
            )
        )
    if not parts:
        raise ValueError("a matrix needs two methods")
    tests = pd.concat(parts, ignore_index=True)
    if across == "matrix":
        tests["p_corrected"] = adjust(tests["p"], correction)
    significant = tests["p_corrected"] < level
    tests["outcome"] = np.select(
        [significant & (tests["difference"] > 0), significant & (tests["difference"] < 0)],
        ["win", "loss"],
        "tie",
    )
    counts = {name: _square(examples.methods) for name in ("win", "tie", "loss")}
    back = {"win": "loss", "loss": "win", "tie": "tie"}
    for (first, second, outcome), count in (
        tests.groupby(["first", "second", "outcome"]).size().items()
    ):
        counts[outcome].loc[first, second] = count
        counts[back[outcome]].loc[second, first] = count
    return WinMatrix(counts["win"], counts["tie"], counts["loss"], tests)


def _square(methods: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(0, index=list(methods), columns=list(methods))
