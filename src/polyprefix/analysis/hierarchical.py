"""One summary over languages that are themselves a sample: a random-effects model.

Of every language there is a difference between two methods, y, and how far it may be off because
the test has few examples, a known covariance S. The model is

    y = mu + f[family] + u[language] + e,   f ~ N(0, omega²), u ~ N(0, tau²), e ~ N(0, S)

with mu the difference in a language drawn at random, tau how much languages of one family differ,
omega how much families do. It is the random-effects model of meta-analysis (DerSimonian and Laird
1986), with families the multilevel one (Konstantopoulos 2011), fitted in ``reml.py``.

Why not a mixed model of examples: the outcomes are paired right-or-wrong answers to the same
sentences in every language. S, from the paired differences, takes that as it is, with the
correlation between languages that shared sentences make; a linear mixed model of the answers would
need crossed random effects of sentence, language and their interaction with method, and is a model
of 0 and 1 as normal at that. Nothing here is a fit of many thousand rows.

Languages of one family are not independent. With ``families`` intervals have as many degrees of
freedom as there are families less one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from polyprefix.analysis.pairs import seed_variance
from polyprefix.analysis.records import Examples
from polyprefix.analysis.reml import fit_model, homogeneity
from polyprefix.languages import get

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pooled:
    """What languages say together.

    Attributes:
        estimate: mu.
        stderr: its standard error.
        low: lower end of its interval (Student's t).
        high: upper end.
        p: two-sided, of mu = 0.
        degrees: of freedom.
        tau: standard deviation between languages (of one family, where there are families).
        omega: standard deviation between families; ``None`` without them.
        expected_low: lower end of the interval for the true difference in one more language (of one
            more family), the prediction interval (Higgins et al. 2009).
        expected_high: upper end.
        q: Cochran's statistic of homogeneity, examples taken as independent.
        q_p: its p, of all languages having the same difference.
        i2: share of the variation between languages that is not of the examples (Higgins and
            Thompson 2002), likewise.
        languages: how many.
        families: how many; ``None`` without.
    """

    estimate: float
    stderr: float
    low: float
    high: float
    p: float
    degrees: float
    tau: float
    omega: float | None
    expected_low: float
    expected_high: float
    q: float
    q_p: float
    i2: float
    languages: int
    families: int | None


@dataclass(frozen=True, slots=True)
class Slope:
    """How the estimates of languages change with something else about them.

    Attributes:
        intercept: where it is 0.
        slope: change of the estimate for one unit of it.
        stderr: the slope's standard error.
        low: lower end of the slope's interval (Student's t).
        high: upper end.
        p: two-sided, of no slope.
        degrees: of freedom.
        tau: standard deviation between languages that is left.
        omega: and between families; ``None`` without them.
    """

    intercept: float
    slope: float
    stderr: float
    low: float
    high: float
    p: float
    degrees: float
    tau: float
    omega: float | None


def pool(
    estimates: npt.ArrayLike,
    covariance: npt.ArrayLike,
    *,
    families: Sequence[str] | None = None,
    training_variance: float = 0.0,
    training_degrees: float = np.inf,
    confidence: float = 0.95,
) -> Pooled:
    """Fit the model.

    Without families the standard error is Hartung and Knapp's (2001), with K - 1 degrees of
    freedom; with them it is the model's, with the number of families less one.

    Args:
        estimates: of each language, ``[K]``.
        covariance: S, ``[K, K]``, or variances ``[K]`` where examples are independent.
        families: of each language.
        training_variance: variance that a new training adds to all languages alike; it widens the
            interval, see :func:`pool_languages`.
        training_degrees: its degrees of freedom, joined with the others after Satterthwaite (1946).
        confidence: of both intervals.

    Raises:
        ValueError: fewer than two languages or families, or shapes that do not fit.
    """
    fit = fit_model(estimates, covariance, families, None)
    variance, degrees = float(fit.covariance[0, 0]), fit.degrees
    mu, tau2, omega2 = float(fit.coefficients[0]), fit.tau2, fit.omega2
    whole = variance + training_variance
    if training_variance > 0:
        degrees = whole**2 / (variance**2 / degrees + training_variance**2 / training_degrees)
    stderr = float(np.sqrt(whole))
    t = float(stats.t.ppf(0.5 + confidence / 2, degrees))
    reach = t * float(np.sqrt(whole + tau2 + omega2))
    q, i2 = homogeneity(fit.y, fit.sampling)
    return Pooled(
        estimate=mu,
        stderr=stderr,
        low=mu - t * stderr,
        high=mu + t * stderr,
        p=_p(mu, stderr, degrees),
        degrees=float(degrees),
        tau=float(np.sqrt(tau2)),
        omega=None if families is None else float(np.sqrt(omega2)),
        expected_low=mu - reach,
        expected_high=mu + reach,
        q=q,
        q_p=float(stats.chi2.sf(q, len(fit.y) - 1)),
        i2=i2,
        languages=len(fit.y),
        families=None if families is None else len(set(families)),
    )


def pool_languages(
    examples: Examples,
    first: str,
    second: str,
    *,
    families: bool = True,
    seeds: bool = False,
    confidence: float = 0.95,
) -> Pooled:
    """``first`` minus ``second`` in a target language drawn at random.

    Args:
        examples: of both methods.
        first: a method.
        second: the one that is taken away.
        families: languages of a family are alike, as the language table groups them.
        seeds: the statement is also about other trainings: what the mean over languages varies
            between a method's runs is added. A trained method then needs two runs.
        confidence: of the intervals.

    Raises:
        ValueError: too few languages, families or seeds.
    """
    codes = examples.targets
    rows = [examples.differences(first, second, code) for code in codes]
    names = [get(code).family for code in codes] if families else None
    variance, degrees = seed_variance(examples, first, second) if seeds else (0.0, np.inf)
    if np.isnan(variance):
        raise ValueError(f"one run of {first!r} or {second!r} says nothing about other seeds")
    return pool(
        [row.mean() for row in rows],
        sampling_covariance(rows, parallel=examples.parallel),
        families=names,
        training_variance=variance,
        training_degrees=degrees,
        confidence=confidence,
    )


def sampling_covariance(rows: Sequence[Array], *, parallel: bool) -> Array:
    """S: the covariance of the rows' means, ``[K, K]``.

    Variances are those of all languages together over each one's n, not each its own: of right and
    wrong answers, a difference near 0 comes with a small variance by chance or by nature, and
    weights that go by it draw the estimate to 0 (Bakbergenuly, Hoaglin and Kulinskaya 2020, who
    weigh by n as well).

    Correlations are 0 unless columns are the same examples. Then they are those of the rows, drawn
    towards their mean: with as many languages as examples plain ones are singular, and the model
    would take combinations of languages to be known for certain. How far is estimated: ``sum var(r)
    / sum (r - mean r)²`` over pairs of languages (Ledoit and Wolf 2003; Schäfer and Strimmer 2005,
    with a constant correlation as target). The mean correlation, on which the error of a mean over
    languages rests, stays.
    """
    n = np.array([len(row) for row in rows])
    if (n < 2).any():
        raise ValueError("a language with one example has no standard error")
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in rows)
    # Where no example differs, half of one might have.
    variances = max(squares, 0.5) / (n - 1).sum() / n
    if not parallel or len(rows) < 2:
        return np.diag(variances)
    deviations = np.sqrt(variances)
    return np.asarray(_correlations(np.stack(rows)) * deviations[:, None] * deviations[None, :])


def _correlations(rows: Array) -> Array:
    """Correlations of rows, drawn towards their mean."""
    n, size = rows.shape[1], len(rows)
    centred = rows - rows.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, ddof=1, keepdims=True)
    unit = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-6)
    found = unit @ unit.T / (n - 1)
    apart = ~np.eye(size, dtype=bool)
    # Negative correlation on average has no place between languages, and 1 leaves none to differ.
    mean = float(np.clip(found[apart].mean(), 0.0, 0.99))
    products = found * (n - 1) / n
    doubt = n / (n - 1) ** 3 * ((unit**2) @ (unit**2).T - n * products**2)
    distance = float(((found - mean) ** 2)[apart].sum())
    share = float(doubt[apart].sum()) / distance if distance > 0 else 1.0
    share = float(np.clip(share, 0.01, 1.0))
    return np.where(apart, (1 - share) * found + share * mean, 1.0)


def regress(
    estimates: npt.ArrayLike,
    covariance: npt.ArrayLike,
    moderator: npt.ArrayLike,
    *,
    families: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Slope:
    """The model with ``mu = intercept + slope * moderator``: a meta-regression.

    Degrees of freedom and standard errors are those of :func:`pool`, less one for the slope.

    Args:
        estimates: of each language, ``[K]``.
        covariance: S, ``[K, K]``, or variances ``[K]``.
        moderator: of each language, ``[K]``.
        families: of each language.
        confidence: of the interval.

    Raises:
        ValueError: fewer than three languages or families, or a moderator that does not vary.
    """
    x = np.asarray(moderator, dtype=np.float64)
    if np.ptp(x) == 0:
        raise ValueError("all languages have the same value: there is no slope")
    fit = fit_model(estimates, covariance, families, x)
    slope, stderr = float(fit.coefficients[1]), float(np.sqrt(fit.covariance[1, 1]))
    reach = float(stats.t.ppf(0.5 + confidence / 2, fit.degrees)) * stderr
    return Slope(
        intercept=float(fit.coefficients[0]),
        slope=slope,
        stderr=stderr,
        low=slope - reach,
        high=slope + reach,
        p=_p(slope, stderr, fit.degrees),
        degrees=fit.degrees,
        tau=float(np.sqrt(fit.tau2)),
        omega=None if families is None else float(np.sqrt(fit.omega2)),
    )


def _p(estimate: float, stderr: float, degrees: float) -> float:
    """Two-sided, by Student's t."""
    if stderr == 0:
        return float(estimate == 0)
    return float(2 * stats.t.sf(abs(estimate) / stderr, degrees))
