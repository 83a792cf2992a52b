"""Scores against a setting: scaling with the model's size, sensitivity to a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from polyprefix.analysis.groups import t_interval
from polyprefix.analysis.records import flat_settings, with_scores
from polyprefix.analysis.scores import language_scores
from polyprefix.config import RunError


def setting(record: Mapping[str, Any], key: str) -> Any:
    """The value a run had for a key.

    Args:
        record: of the run.
        key: a key of the configuration, ``method.length``, ``method.layers``,
            ``train.learning_rate``, ``task.train_per_class``, as it was resolved where a default
            stood in its place; or ``model.parameters``.

    Raises:
        RunError: the run has no such key; those of its section are named.
    """
    if key == "train.learning_rate":
        return record["learning_rate"]
    resolved = {name: record[name] for name in ("method", "model")}
    for place in (resolved, record["config"]):
        found: Any = place
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                break
            found = found[part]
        else:
            return found
    section = key.split(".")[0]
    known = sorted({*record.get(section, {}), *record["config"].get(section, {})} - {"title"})
    raise RunError(
        f"run {record['id']!r} has no key {key!r}"
        + (f"; {section!r} has {', '.join(known)}" if known else "")
    )


def curve(
    records: Sequence[Mapping[str, Any]], key: str, *, confidence: float = 0.95
) -> pd.DataFrame:
    """The mean score over target languages for each value of a setting, by method.

    Runs that differ in their seed are one point, whose interval is Student's t over them: what
    another training would give. It is NaN for one run. Runs that differ in more than the key and
    the seed are an error, for a point would mix them.

    Args:
        records: of one task and source language.
        key: see :func:`setting`. ``model.parameters`` makes the scaling curve.
        confidence: of the intervals.

    Returns:
        A row a method and value, in rising order: ``method`` (its name), ``x``, ``seeds``,
        ``languages``, ``score``, ``low``, ``high`` (of the mean over target languages),
        ``source`` (the source language's score), ``gap``.

    Raises:
        RunError: a record lacks the key or has no scores, or runs differ in more than the key.
    """
    table = curve_runs(records, key)
    table["other"] = [_others(record, key) for record in records]
    table["languages"] = [frozenset(record["scores"]) for record in records]
    points = []
    for method, runs in table.groupby("method", sort=False):
        _only(runs, "languages", "were scored in other languages")
        for value, same in runs.groupby("x", sort=False):
            _only(same, "other", f"differ in more than {key} and the seed")
            low, high = t_interval(same["score"].to_numpy(), confidence)
            points.append(
                {
                    "method": method,
                    "x": value,
                    "seeds": len(same),
                    "languages": len(same["languages"].iloc[0]) - 1,
                    "score": same["score"].mean(),
                    "low": low,
                    "high": high,
                    "source": same["source"].mean(),
                    "gap": (same["source"] - same["score"]).mean(),
                }
            )
    points.sort(key=lambda row: (isinstance(row["x"], str), row["x"]))
    return pd.DataFrame(points).sort_values("method", kind="stable", ignore_index=True)


def curve_runs(records: Sequence[Mapping[str, Any]], key: str) -> pd.DataFrame:
    """The runs that :func:`curve` makes points of: a row each, in the records' order.

    Returns:
        ``method`` (its name), ``x``, ``seed``, ``score`` (the mean over target languages),
        ``source``, ``id``.

    Raises:
        RunError: a record lacks the key or has no scores.
    """
    rows = []
    for record in with_scores(records):
        scores = language_scores(dict(record))
        targets = [row.score for row in scores if not row.source]
        value = setting(record, key)
        rows.append(
            {
                "method": record["method"]["name"],
                # Lists (of layers) are no keys of a table.
                "x": value if isinstance(value, (int, float)) else str(value),
                "seed": record["identity"]["seed"],
                "score": float(np.mean(targets)) if targets else np.nan,
                "source": next(row.score for row in scores if row.source),
                "id": record["id"],
            }
        )
    return pd.DataFrame(rows)


def _others(record: Mapping[str, Any], key: str) -> str:
    """Everything that was set but for the key and the seed, as a text to compare."""
    flat = flat_settings(record)
    section, _, name = key.partition(".")
    if section == "model":
        # A model of another size is another model, with another default learning rate.
        for part in ("model", "revision", "dtype", "train.learning_rate"):
            flat.pop(part, None)
    flat.pop(name if section == "method" else key, None)
    return repr(sorted(flat.items()))


def _only(runs: pd.DataFrame, column: str, what: str) -> None:
    if runs[column].nunique() > 1:
        first = runs.iloc[0]
        other = runs[runs[column] != first[column]].iloc[0]
        raise RunError(f"runs {first['id']!r} and {other['id']!r} {what}")


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through a curve.

    Attributes:
        slope: change of the score when x doubles.
        low: lower end of its interval (Student's t).
        high: upper end.
        p: two-sided, of no change.
        points: runs, or points, it goes through.
    """

    slope: float
    low: float
    high: float
    p: float
    points: int


def doubling_trend(
    x: Sequence[float], score: Sequence[float], *, confidence: float = 0.95
) -> Trend:
    """The least squares line of score on log2 x: what a doubling brings.

    Raises:
        ValueError: fewer than three points, one x only, or an x that is not positive.
    """
    values = np.asarray(x, dtype=np.float64)
    if len(values) < 3 or len(np.unique(values)) < 2 or (values <= 0).any():
        raise ValueError("a trend needs three points at two positive values or more")
    fit = stats.linregress(np.log2(values), np.asarray(score, dtype=np.float64))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 2)) * float(fit.stderr)
    slope = float(fit.slope)
    return Trend(slope, slope - reach, slope + reach, float(fit.pvalue), len(values))


@dataclass(frozen=True)
class Line:
    """The least squares line of y on x.

    Attributes:
        slope: change of y for one unit of x.
        low: lower end of the slope's interval (Student's t).
        high: upper end.
        p: two-sided, of no slope.
        points: it goes through.
        band: 50 places from the least to the largest x: ``x``, ``y`` (fitted), ``low``, ``high``
            (of the mean of y there).
    """

    slope: float
    low: float
    high: float
    p: float
    points: int
    band: pd.DataFrame


def straight_line(x: Sequence[float], y: Sequence[float], *, confidence: float = 0.95) -> Line:
    """Fit a line, points taken as independent, with the interval of the mean at each x.

    Its half width is ``t * s * sqrt(1/n + (x - mean x)² / sum (x_i - mean x)²)``, with s² the
    residual variance on n - 2 degrees of freedom (Draper and Smith 1998, section 3.1).

    Raises:
        ValueError: fewer than three points, or x does not vary.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) < 3 or np.ptp(xs) == 0:
        raise ValueError("a line needs three points at two places or more")
    centred = xs - xs.mean()
    spread = float((centred**2).sum())
    slope = float(centred @ ys) / spread
    residuals = ys - ys.mean() - slope * centred
    degrees = len(xs) - 2
    deviation = float(np.sqrt((residuals**2).sum() / degrees))
    t = float(stats.t.ppf(0.5 + confidence / 2, degrees))
    stderr = deviation / np.sqrt(spread)
    grid = np.linspace(xs.min(), xs.max(), 50)
    fitted = ys.mean() + slope * (grid - xs.mean())
    reach = t * deviation * np.sqrt(1 / len(xs) + (grid - xs.mean()) ** 2 / spread)
    # A perfect fit, of a constant score for one, has no error.
    p = float(2 * stats.t.sf(abs(slope) / stderr, degrees)) if stderr > 0 else float(slope == 0)
    band = pd.DataFrame({"x": grid, "y": fitted, "low": fitted - reach, "high": fitted + reach})
    return Line(slope, slope - t * stderr, slope + t * stderr, p, len(xs), band)
