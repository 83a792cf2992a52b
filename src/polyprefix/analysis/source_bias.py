"""Does a method favour languages close to the source more than another does?

The question of arXiv 2402.03782, *When Less is More*: there, tuning the model as well as a soft
prompt helped languages close to English and hurt distant ones. Here it is a slope: how much a
method's score rises over the target languages with their similarity to the source, and how much
more one method's does than another's, paired by language and example.

The slope is that of least squares, in points of score between similarity 0 and 1:

    slope = sum (x - mean x) (y - mean y) / sum (x - mean x)²

with x the similarity, 1 minus a distance of :func:`polyprefix.analysis.language_distances`, and y
a language's mean score. The difference of two methods' slopes is the slope of their difference.

Two intervals stand beside each other.

* ``low`` and ``high`` resample languages and examples, both at once: the pigeonhole bootstrap
  (Owen 2007), which is a little too wide rather than too narrow, since example noise in a language
  counts in both. ``p`` is by permutation: were closeness of no matter, similarities dealt out anew
  would do as well (Good 2005). Both take languages as independent.
* ``family_low``, ``family_high`` and ``family_p`` are of the regression of
  :func:`polyprefix.analysis.regress`, in which relatives are alike: families, languages and
  examples are random. It weighs languages otherwise, so that its slope differs.

Close languages are relatives of the source, so the second is what a claim should rest on.
Resampling whole families instead fails where one of them holds most of what varies, as
Indo-European does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from polyprefix.analysis.hierarchical import regress, sampling_covariance
from polyprefix.analysis.paired import adjust, resampled_means
from polyprefix.analysis.records import Examples
from polyprefix.analysis.typology import LEAST, cluster_weights
from polyprefix.languages import get

Array = npt.NDArray[np.float64]

RESAMPLES = 5_000
PERMUTATIONS = 10_000


@dataclass(frozen=True)
class SourceBias:
    """Slopes of scores on similarity to the source.

    Attributes:
        points: what is fitted: a row a method and language, ``method``, ``language``,
            ``similarity``, ``score``, ``fitted``.
        slopes: a row a method: ``method``, ``languages``, ``intercept``, ``slope``, ``low``,
            ``high``, ``p``, ``p_holm``, ``family_slope``, ``family_low``, ``family_high``,
            ``family_p``, ``family_p_holm`` (NaN with fewer than three families).
        differences: a row a pair: ``first``, ``second``, ``difference`` (of the slopes: above 0 the
            first favours close languages more), and the same columns.
        lines: for a band in a figure: a row a method and each of 50 similarities, ``method``,
            ``similarity``, ``score``, ``low``, ``high``.
    """

    points: pd.DataFrame
    slopes: pd.DataFrame
    differences: pd.DataFrame
    lines: pd.DataFrame


def slopes_on(x: Array, y: Array, weights: Array | None = None) -> Array:
    """Least squares slopes of ``y`` ``[..., K]`` on ``x`` ``[K]``, languages weighted ``[..., K]``.

    NaN where x does not vary among the languages that are there.
    """
    w = np.ones_like(x) if weights is None else weights
    total = w.sum(axis=-1, keepdims=True)
    centred = x - (w * x).sum(axis=-1, keepdims=True) / total
    spread = (w * centred**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (w * centred * y).sum(axis=-1) / np.where(spread > 1e-12, spread, np.nan)
    return np.asarray(found)


def source_bias(
    examples: Examples,
    similarity: Mapping[str, float],
    *,
    relative: bool = False,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> SourceBias:
    """Slopes of all methods, and the differences of every pair.

    Args:
        examples: of the methods; a method's score is the mean of its seeds.
        similarity: of each target language to the source; languages without (or NaN) are left out.
        relative: divide a method's scores by its score in the source language, so that a method
            that is better everywhere has no steeper line for it: the share of the skill that
            carries over.
        confidence: of the intervals, percentiles of the bootstrap.
        resamples: of languages and examples.
        permutations: of the similarities.
        seed: of both.

    Raises:
        ValueError: fewer than five languages have a similarity, or all have the same one; or
            ``relative``, and a method's score in the source language is 0.
    """
    codes = [code for code in examples.targets if np.isfinite(similarity.get(code, np.nan))]
    x = np.array([similarity[code] for code in codes], dtype=np.float64)
    if len(codes) < LEAST or np.ptp(x) == 0:
        raise ValueError(
            f"a slope needs {LEAST} languages with similarities that differ; there are {len(codes)}"
        )
    rng = np.random.default_rng(seed)
    observed, drawn = _means(examples, codes, resamples, rng)
    if relative:
        if (observed[:, 0] <= 0).any():
            raise ValueError("a method scores 0 in the source language: nothing is relative to it")
        observed = observed / observed[:, :1]
        # A resample may have no right answer in the source language.
        drawn = drawn / np.where(drawn[:, :, :1] > 0, drawn[:, :, :1], np.nan)
    y, resampled = observed[:, 1:], drawn[:, :, 1:]
    weights = cluster_weights(codes, resamples, rng)[:, None, :]
    slopes = slopes_on(x, y)
    bootstrap = slopes_on(x, resampled, weights)
    dealt = rng.permuted(np.tile(x, (permutations, 1)), axis=1)
    # x is only dealt out anew, so its spread is the same in every permutation.
    permuted = (dealt - x.mean()) @ y.T / ((x - x.mean()) ** 2).sum()
    model = _model(examples, codes, x, relative, confidence)
    return SourceBias(
        _points(examples, codes, x, y, slopes),
        pd.concat(
            [_slopes(examples, x, y, slopes, bootstrap, permuted, confidence), model[0]], axis=1
        ),
        pd.concat(
            [_differences(examples, slopes, bootstrap, permuted, confidence), model[1]], axis=1
        ),
        _lines(examples, x, y, slopes, resampled, weights, bootstrap, confidence),
    )


def _model(
    examples: Examples,
    codes: Sequence[str],
    x: Array,
    relative: bool,
    confidence: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The family columns of slopes and differences, by regression."""
    families = [get(code).family for code in codes]
    scores = {code: np.stack([a.mean(axis=0) for a in examples.runs[code]]) for code in codes}
    # Per example; the source score's own noise, common to all languages, does not tilt a line.
    scale = np.ones(len(examples.methods))
    if relative:
        scale = np.array([examples.scores(m, examples.source).mean() for m in examples.methods])

    def fit(rows: list[Array]) -> tuple[float, float, float, float]:
        if len(set(families)) < 3:
            return (np.nan,) * 4
        covariance = sampling_covariance(rows, parallel=examples.parallel)
        found = regress(
            [row.mean() for row in rows], covariance, x, families=families, confidence=confidence
        )
        return found.slope, found.low, found.high, found.p

    one = [fit([scores[c][m] / scale[m] for c in codes]) for m in range(len(scale))]
    two = [
        fit([scores[c][i] / scale[i] - scores[c][j] / scale[j] for c in codes])
        for i, j in combinations(range(len(scale)), 2)
    ]
    return _family_columns(one, "family_slope"), _family_columns(two, "family_difference")


def _family_columns(rows: Sequence[tuple[float, float, float, float]], name: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[name, "family_low", "family_high", "family_p"])
    table["family_p_holm"] = (
        adjust(table["family_p"]) if table["family_p"].notna().all() else np.nan
    )
    return table


def _means(
    examples: Examples, codes: Sequence[str], resamples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Mean scores ``[M, 1 + K]``, the source first, and resampled ones ``[B, M, 1 + K]``."""
    every = [examples.source, *codes]
    scores = [np.stack([array.mean(axis=0) for array in examples.runs[code]]) for code in every]
    observed = np.stack([array.mean(axis=1) for array in scores], axis=1)
    methods, count = observed.shape
    if examples.parallel:
        flat = np.stack(scores, axis=1).reshape(methods * count, -1)
        drawn = resampled_means(flat, resamples=resamples, rng=rng)
        return observed, drawn.reshape(-1, methods, count)
    each = [resampled_means(array, resamples=resamples, rng=rng) for array in scores]
    return observed, np.stack(each, axis=2)


def _ends(distribution: Array, confidence: float) -> tuple[Array, Array]:
    if not distribution.shape[1]:  # one method: no pairs
        return np.zeros(0), np.zeros(0)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(distribution, [tail, 1 - tail], axis=0)
    return low, high


def _reached(observed: Array, permuted: Array) -> Array:
    """Two-sided p by permutation, never 0 (Phipson and Smyth 2010)."""
    reach = np.abs(observed) * (1 - 1e-12) - 1e-12
    return np.asarray((1 + (np.abs(permuted) >= reach).sum(axis=0)) / (1 + len(permuted)))


def _points(
    examples: Examples, codes: Sequence[str], x: Array, y: Array, slopes: Array
) -> pd.DataFrame:
    fitted = y.mean(axis=1, keepdims=True) + slopes[:, None] * (x - x.mean())
    return pd.DataFrame(
        {
            "method": np.repeat(examples.methods, len(codes)),
            "language": np.tile(codes, len(examples.methods)),
            "similarity": np.tile(x, len(examples.methods)),
            "score": y.ravel(),
            "fitted": fitted.ravel(),
        }
    )


def _slopes(
    examples: Examples,
    x: Array,
    y: Array,
    slopes: Array,
    bootstrap: Array,
    permuted: Array,
    confidence: float,
) -> pd.DataFrame:
    low, high = _ends(bootstrap, confidence)
    p = _reached(slopes, permuted)
    return pd.DataFrame(
        {
            "method": examples.methods,
            "languages": len(x),
            "intercept": y.mean(axis=1) - slopes * x.mean(),
            "slope": slopes,
            "low": low,
            "high": high,
            "p": p,
            "p_holm": adjust(p),
        }
    )


def _differences(
    examples: Examples, slopes: Array, bootstrap: Array, permuted: Array, confidence: float
) -> pd.DataFrame:
    pairs = list(combinations(range(len(examples.methods)), 2))
    one, other = [i for i, _ in pairs], [j for _, j in pairs]
    difference = slopes[one] - slopes[other]
    low, high = _ends(bootstrap[:, one] - bootstrap[:, other], confidence)
    p = _reached(difference, permuted[:, one] - permuted[:, other])
    return pd.DataFrame(
        {
            "first": [examples.methods[i] for i in one],
            "second": [examples.methods[j] for j in other],
            "difference": difference,
            "low": low,
            "high": high,
            "p": p,
            "p_holm": adjust(p),
        }
    )


def _lines(
    examples: Examples,
    x: Array,
    y: Array,
    slopes: Array,
    resampled: Array,
    weights: Array,
    bootstrap: Array,
    confidence: float,
) -> pd.DataFrame:
    grid = np.linspace(x.min(), x.max(), 50)
    total = weights.sum(axis=2)
    middle = (weights * x).sum(axis=2) / total
    height = (weights * resampled).sum(axis=2) / total
    parts = []
    for place, method in enumerate(examples.methods):
        drawn = height[:, place, None] + bootstrap[:, place, None] * (grid - middle)
        low, high = _ends(drawn, confidence)
        score = y[place].mean() + slopes[place] * (grid - x.mean())
        parts.append(
            pd.DataFrame(
                {"method": method, "similarity": grid, "score": score, "low": low, "high": high}
            )
        )
    return pd.concat(parts, ignore_index=True)
