"""Two methods on the same examples: how far apart, and whether by chance.

Everything works on *differences*, an array ``[K, n]``: row k is one language (or anything else
that is compared), column i one test example, the value what one method scores there minus what the
other does. Where a method was run with several seeds its score is the mean of them, so what is
resampled is **examples**: the statements are about other examples of the same kind, given the
adapters that were trained; :func:`polyprefix.analysis.compare_seeds` is about other trainings.

Columns are resampled together: where a test set is the same sentences in every language, a hard
sentence is hard in all of them, and intervals of means over languages must know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
IntervalMethod = Literal["bca", "percentile"]

RESAMPLES = 10_000
PERMUTATIONS = 20_000
CHUNK = 2_000
"""Resamples made at once: bounds memory at ``CHUNK * n`` numbers."""

LARGEST_UNIT = 720
"""Differences that are whole multiples of 1/720 or of a coarser step have an exact test: what comes
of right and wrong answers under up to six seeds a method."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """Means with intervals, arrays ``[K]``.

    Attributes:
        mean: of the examples.
        stderr: standard deviation of the resampled means.
        low: lower end of the interval.
        high: upper end.
    """

    mean: Array
    stderr: Array
    low: Array
    high: Array


def resampled_means(
    values: Array, *, resamples: int = RESAMPLES, rng: np.random.Generator
) -> Array:
    """Means over examples drawn with replacement, the same draws for every row: ``[B, K]``.

    A resample is how often each example was drawn, a multinomial count, and all means are one
    product of matrices.
    """
    n = values.shape[1]
    if n == 0:
        raise ValueError("no examples")
    parts = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        parts.append(counts.astype(np.float64) @ values.T / n)
    return np.concatenate(parts)


def acceleration(values: Array) -> Array:
    """The constant a of BCa for a mean, ``[K]``, from the jackknife (Efron and Tibshirani
    1993, equation 14.15).

    ``a = sum(d^3) / (6 * sum(d^2)^1.5)`` with d the mean of the left-out means minus each of them.
    For a mean, d is ``(x - mean) / (n - 1)``. 0 where all values are equal.
    """
    return _skew((values - values.mean(axis=1, keepdims=True)) / max(1, values.shape[1] - 1))


def _skew(deviations: Array) -> Array:
    """``sum(d^3) / (6 * sum(d^2)^1.5)`` of every row."""
    squares = (deviations**2).sum(axis=1)
    cubes: Array = (deviations**3).sum(axis=1)
    found: Array = np.zeros_like(cubes)
    np.divide(cubes, 6 * squares**1.5, out=found, where=squares > 0)
    return found


def interval(
    distribution: Array,
    observed: Array,
    *,
    skew: Array | None = None,
    confidence: float = 0.95,
) -> tuple[Array, Array]:
    """The ends of bootstrap intervals.

    Args:
        distribution: resampled statistics ``[B, K]``.
        observed: the statistics ``[K]``.
        skew: :func:`acceleration`; with it the interval is BCa, bias-corrected and accelerated
            (Efron 1987), without it the percentile interval.
        confidence: the share of intervals that are to cover the truth.
    """
    tail = (1 - confidence) / 2
    if skew is None:
        low, high = np.quantile(distribution, [tail, 1 - tail], axis=0)
        return low, high
    below = ((distribution < observed).mean(axis=0) + (distribution <= observed).mean(axis=0)) / 2
    # Where the statistic never changes, or lies outside all resamples, the shift is undefined.
    size = len(distribution)
    shift = stats.norm.ppf(np.clip(below, 0.5 / size, 1 - 0.5 / size))
    ends = []
    for z in stats.norm.ppf([tail, 1 - tail]):
        share = stats.norm.cdf(shift + (shift + z) / (1 - skew * (shift + z)))
        ends.append(
            np.array([np.quantile(distribution[:, k], q) for k, q in enumerate(share)])
            if len(share)
            else np.zeros(0)
        )
    return ends[0], ends[1]


def paired_bootstrap(
    differences: npt.ArrayLike,
    *,
    method: IntervalMethod = "bca",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimates:
    """Mean differences with bootstrap intervals.

    Args:
        differences: ``[K, n]``, or ``[n]`` for one.
        method: ``bca`` (Efron 1987) or ``percentile``.
        confidence: of the intervals.
        resamples: of the examples.
        seed: of the resampling.

    Raises:
        ValueError: there are no examples, or a difference is not finite.
    """
    values = _differences(differences)
    rng = np.random.default_rng(seed)
    drawn = resampled_means(values, resamples=resamples, rng=rng)
    mean = values.mean(axis=1)
    skew = acceleration(values) if method == "bca" else None
    low, high = interval(drawn, mean, skew=skew, confidence=confidence)
    return Estimates(mean, drawn.std(axis=0, ddof=1), low, high)


def stratified_bootstrap(
    strata: Sequence[Array],
    *,
    method: IntervalMethod = "bca",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimates:
    """The mean of the strata's means, each stratum's examples resampled by themselves.

    For languages whose examples are not the same: each counts once, whatever its number of them.

    Args:
        strata: the differences of each, ``[n_k]``.
        method: as in :func:`paired_bootstrap`, which is this for one stratum.
        confidence: of the interval.
        resamples: of the examples.
        seed: of the resampling.

    Returns:
        Arrays of one element.
    """
    rows = [_differences(row) for row in strata]
    rng = np.random.default_rng(seed)
    drawn = np.mean([resampled_means(row, resamples=resamples, rng=rng) for row in rows], axis=0)
    mean = np.mean([row.mean(axis=1) for row in rows], axis=0)
    influence = [(row - row.mean()) / max(1, row.shape[1] - 1) for row in rows]
    skew = _skew(np.concatenate(influence, axis=1)) if method == "bca" else None
    low, high = interval(drawn, mean, skew=skew, confidence=confidence)
    return Estimates(mean, drawn.std(axis=0, ddof=1), low, high)


def sign_flip_test(
    differences: npt.ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Array:
    """Two-sided p of every row ``[K]``: were the methods exchangeable on each example?

    Then every difference could as well have had the other sign (Fisher 1935; Good 2005), and
    p is the share of sign patterns whose mean is at least as far from 0.

    Exact where the differences are whole multiples of one step, as those of right and wrong answers
    are: the sum of m equal differences with random signs is binomial, and distributions of
    different sizes are convolved. With one seed that is the exact McNemar test. Else patterns are
    drawn, and p is ``(1 + reached) / (1 + drawn)`` (Phipson and Smyth 2010), never 0.

    Raises:
        ValueError: there are no examples, or a difference is not finite.
    """
    values = _differences(differences)
    found = np.empty(len(values))
    drawn = []
    for k, row in enumerate(values):
        unit = _unit(row)
        if unit is None:
            drawn.append(k)
        else:
            found[k] = _exact(np.rint(row * unit).astype(np.int64))
    if drawn:
        found[drawn] = _monte_carlo(values[drawn], permutations, np.random.default_rng(seed))
    return found


def _differences(values: npt.ArrayLike) -> Array:
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.shape[1] == 0:
        raise ValueError("no examples to compare")
    if not np.isfinite(array).all():
        raise ValueError("a difference is not finite")
    return array


def _unit(row: Array) -> int | None:
    """The smallest u that makes every ``u * difference`` whole; ``None``: it would be too large."""
    sizes = np.unique(np.round(np.abs(row), 12))
    if len(sizes) > LARGEST_UNIT:
        return None
    unit = 1
    for size in sizes:
        unit = lcm(unit, Fraction(float(size)).limit_denominator(LARGEST_UNIT).denominator)
        if unit > LARGEST_UNIT:
            return None
    return unit if np.allclose(sizes * unit, np.rint(sizes * unit), atol=1e-6, rtol=0) else None


def _exact(row: npt.NDArray[np.int64]) -> float:
    """p of one row of whole numbers."""
    sizes, counts = np.unique(np.abs(row[row != 0]), return_counts=True)
    # Probability of (sum + total) / 2: the sum of the differences whose sign is positive.
    distribution = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, spread)
    total = int(np.abs(row).sum())
    sums = 2 * np.arange(len(distribution)) - total
    return float(min(1.0, distribution[np.abs(sums) >= abs(int(row.sum()))].sum()))


def _monte_carlo(values: Array, permutations: int, rng: np.random.Generator) -> Array:
    observed = np.abs(values.sum(axis=1))
    # A pattern that gives the observed sum must count, whatever the order of summation.
    reach = observed * (1 - 1e-12) - 1e-12
    count = np.zeros(len(values))
    for start in range(0, permutations, CHUNK):
        size = min(CHUNK, permutations - start)
        signs = rng.integers(2, size=(size, values.shape[1])) * 2.0 - 1.0
        count += (np.abs(signs @ values.T) >= reach).sum(axis=0)
    return (1 + count) / (1 + permutations)


def adjust(p: npt.ArrayLike, method: Literal["holm", "bh"] = "holm") -> Array:
    """p corrected for the number of tests.

    ``holm`` (Holm 1979): the chance of even one false rejection stays below the level, whatever
    the tests' dependence. ``bh`` (Benjamini and Hochberg 1995): the expected share of false ones
    among the rejections does, for independent or positively dependent tests.

    Raises:
        ValueError: a p is outside 0 to 1.
    """
    values = np.asarray(p, dtype=np.float64)
    if values.size and not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p must be within 0 and 1")
    if not values.size:
        return values
    if method == "bh":
        corrected: Any = stats.false_discovery_control(values, method="bh")
        return np.asarray(corrected, dtype=np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted
