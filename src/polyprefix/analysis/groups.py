"""Means over groups of languages: families, branches, scripts, resource levels, seen or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

GROUPS = ("family", "branch", "script", "resource_level", "seen")
"""Columns of :func:`polyprefix.analysis.score_table` that group languages."""


def language_means(table: pd.DataFrame) -> pd.DataFrame:
    """Runs of a method as one: a row a method and language, numbers averaged over its seeds.

    Args:
        table: of :func:`polyprefix.analysis.score_table`.

    Returns:
        The table's columns but ``run`` and ``seed``; ``seeds`` counts runs, and ``seed_sd`` is the
        standard deviation of their scores (NaN for one). ``stderr`` is the mean of the runs'.
    """
    averaged = ("score", "stderr", "gap", "calibrated")
    how = {
        column: "mean" if column in averaged else "first"
        for column in table.columns
        if column not in ("run", "seed", "method", "language")
    }
    grouped = table.groupby(["method", "language"], sort=False)
    means = grouped.agg(how)
    means["seeds"] = grouped["score"].size()
    means["seed_sd"] = grouped["score"].std(ddof=1)
    return means.reset_index()


def group_means(table: pd.DataFrame, by: str, *, confidence: float = 0.95) -> pd.DataFrame:
    """Mean score and transfer gap of each method in each group of target languages.

    Every language counts once. The interval is Student's t over the group's languages: of a
    language like these, not of other examples; NaN where the group has one.

    Args:
        table: of :func:`polyprefix.analysis.score_table`.
        by: a column, see :data:`GROUPS`. Languages of which it is not known are a group of their
            own, ``None``.
        confidence: of the intervals.

    Returns:
        ``method``, ``group``, ``languages``, ``score``, ``low``, ``high``, ``gap``,
        ``calibrated`` (NaN unless every language has one).
    """
    means = language_means(table)
    targets = means[~means["source"].astype(bool)]
    rows = []
    for (method, group), part in targets.groupby(["method", by], sort=False, dropna=False):
        low, high = t_interval(part["score"].to_numpy(), confidence)
        rows.append(
            {
                "method": method,
                "group": None if pd.isna(group) else group,
                "languages": len(part),
                "score": part["score"].mean(),
                "low": low,
                "high": high,
                "gap": part["gap"].mean(),
                "calibrated": part["calibrated"].mean(skipna=False),
            }
        )
    columns = ("method", "group", "languages", "score", "low", "high", "gap", "calibrated")
    return pd.DataFrame(rows, columns=list(columns))


def t_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    reach = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - reach), float(values.mean() + reach)
