"""Does transfer go with closeness to the source? Correlations over languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from polyprefix.analysis.groups import language_means
from polyprefix.analysis.paired import adjust
from polyprefix.analysis.uriel import Uriel, language_distances

Array = npt.NDArray[np.float64]
Kind = Literal["spearman", "pearson"]

RESAMPLES = 2_000
LEAST = 5
"""Languages that a correlation needs."""


def language_features(table: pd.DataFrame, uriel: Uriel | None = None) -> pd.DataFrame:
    """Every target language of a score table with what may explain its score, indexed by code.

    Columns: those of :func:`polyprefix.analysis.language_distances`; ``tokens_per_word`` and
    ``premium`` of the tokenizer; ``log_share``, log10 of the share of the pretraining text (NaN
    where it is not known or 0); ``resource_level``; ``family``.

    Raises:
        ValueError: runs of several models or source languages, whose features differ.
    """
    sources = table.loc[table["source"].astype(bool), "language"].unique()
    if len(sources) != 1 or table["model"].nunique() != 1:
        raise ValueError("features are of one source language and one model")
    rows = table[~table["source"].astype(bool)].drop_duplicates("language").set_index("language")
    features = language_distances(str(sources[0]), list(rows.index), uriel)
    for name in ("tokens_per_word", "premium", "resource_level"):
        features[name] = rows[name]
    features["log_share"] = np.log10(rows["share"].where(rows["share"] > 0))
    features["family"] = rows["family"]
    return features


def correlations(
    table: pd.DataFrame,
    features: pd.DataFrame,
    names: Sequence[str],
    *,
    score: Literal["score", "gap", "calibrated"] = "score",
    kind: Kind = "spearman",
    controls: Sequence[str] = (),
    clusters: bool = False,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlation of each method's scores with features of the languages.

    Args:
        table: of :func:`polyprefix.analysis.score_table`.
        features: of :func:`language_features`, or any table indexed by language.
        names: the features' columns.
        score: what is correlated.
        kind: of correlation; ``spearman`` is Pearson's of the ranks.
        controls: columns held constant: the correlation is partial, of what is left of both
            (ranks) after linear regression on them. A control that does not vary is left out.
        clusters: resample families rather than languages, for relatives are alike; needs the
            column ``family``. For dozens of families: with a few, or one that has half of the
            languages, resamples without it say little, and the intervals are wide and lopsided.
        confidence: of the percentile bootstrap intervals.
        resamples: of them.
        seed: of the resampling.

    Returns:
        A row a method and feature: ``method``, ``feature``, ``languages`` (that have all columns),
        ``correlation``, ``low``, ``high``, ``p`` (Student's t with n - 2 - controls degrees of
        freedom, languages taken as independent), ``p_holm`` over the method's features. NaN with
        fewer than five languages or a feature that does not vary.
    """
    means = language_means(table)
    means = means[~means["source"].astype(bool)]
    rng = np.random.default_rng(seed)
    rows = []
    for method, part in means.groupby("method", sort=False):
        scores = part.set_index("language")[score]
        for name in names:
            columns = [name, *(control for control in controls if control != name)]
            joined = features[columns].join(scores.rename("_score"), how="inner").dropna()
            # A control without variation controls nothing.
            kept = [c for c in columns[1:] if joined[c].nunique() > 1]
            values = joined[["_score", name, *kept]].to_numpy(dtype=np.float64).T
            families = features.loc[joined.index, "family"] if clusters else joined.index
            found = correlation(values, kind)
            low = high = p = np.nan
            if values.shape[1] >= LEAST and np.isfinite(found):
                drawn = _weighted(values, cluster_weights(families, resamples, rng), kind)
                tail = (1 - confidence) / 2
                low, high = np.nanquantile(drawn, [tail, 1 - tail])
                degrees = values.shape[1] - 2 - len(kept)
                p = _p(found, degrees)
            else:
                found = np.nan
            rows.append((method, name, values.shape[1], found, low, high, p))
    result = pd.DataFrame(
        rows, columns=["method", "feature", "languages", "correlation", "low", "high", "p"]
    )
    result["p_holm"] = np.nan
    for _, part in result.dropna(subset="p").groupby("method"):
        result.loc[part.index, "p_holm"] = adjust(part["p"])
    return result


def correlation(values: Array, kind: Kind = "spearman") -> float:
    """Of the first two rows of ``[2 + C, n]``, the others held constant; NaN if one is constant."""
    return float(_weighted(values, np.ones((1, values.shape[1])), kind)[0])


def cluster_weights(clusters: npt.ArrayLike, resamples: int, rng: np.random.Generator) -> Array:
    """How often each member counts when whole clusters are drawn with replacement, ``[B, K]``.

    Every cluster its own is the ordinary bootstrap (Davison and Hinkley 1997, section 3.8).
    """
    _, place = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    count = int(place.max()) + 1
    drawn = rng.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return times[:, place].astype(np.float64)


def _weighted(values: Array, weights: Array, kind: Kind) -> Array:
    """Partial correlation of the first two rows of ``[2 + C, n]`` for each row of weights
    ``[B, n]``, where a weight is how often a column is there."""
    total = weights.sum(axis=1)
    rows = [
        _weighted_ranks(row, weights) if kind == "spearman" else np.broadcast_to(row, weights.shape)
        for row in values
    ]
    data = np.stack(rows, axis=1)
    means = (data * weights[:, None]).sum(axis=2) / total[:, None]
    centred = (data - means[:, :, None]) * np.sqrt(weights)[:, None]
    return _partial(centred)


def _weighted_ranks(row: Array, weights: Array) -> Array:
    """Ranks ``[B, n]`` in samples where each value is there so many times, ties sharing theirs."""
    distinct, place = np.unique(row, return_inverse=True)
    counts = weights @ np.eye(len(distinct))[place]
    below = counts.cumsum(axis=1) - counts
    return np.asarray((below + (counts + 1) / 2)[:, place])


def _partial(centred: Array) -> Array:
    """Partial correlations ``[B]`` of centred data ``[B, 2 + C, n]``; NaN where a row does not
    vary, or the controls are not independent of each other."""
    lengths = np.linalg.norm(centred, axis=2, keepdims=True)
    usable = (lengths > 1e-9).all(axis=(1, 2))
    unit = centred[usable] / lengths[usable]
    matrix = unit @ unit.transpose(0, 2, 1)
    # In a resample two controls may coincide.
    regular = np.linalg.det(matrix[:, 2:, 2:]) > 1e-9
    found = np.full(len(centred), np.nan)
    part = np.full(len(matrix), np.nan)
    part[regular] = _first_two(matrix[regular])
    found[usable] = part
    return found


def _first_two(matrix: Array) -> Array:
    """Correlation of what is left of the first two after regression on the others: the Schur
    complement of the controls in the correlation matrix (Whittaker 1990)."""
    if matrix.shape[1] == 2:
        return np.clip(matrix[:, 0, 1], -1, 1)
    here, across = matrix[:, :2, :2], matrix[:, :2, 2:]
    rest = here - across @ np.linalg.solve(matrix[:, 2:, 2:], across.transpose(0, 2, 1))
    sizes = rest[:, 0, 0] * rest[:, 1, 1]
    left = sizes > 1e-12
    return np.where(left, rest[:, 0, 1] / np.sqrt(np.where(left, sizes, 1.0)), np.nan)


def _p(found: float, degrees: int) -> float:
    if degrees < 1:
        return float("nan")
    t = found * np.sqrt(degrees / max(1e-300, 1 - found**2))
    return float(2 * stats.t.sf(abs(t), degrees))
