"""What runs cost and what they brought, on average over languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from polyprefix.analysis.records import method_labels, with_scores
from polyprefix.analysis.scores import language_scores


def run_costs(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a run.

    Columns: ``method`` (see :func:`polyprefix.analysis.method_labels`), ``seed``, ``parameters``
    (trained), ``training_seconds`` (0 where nothing was trained), ``scoring_seconds``,
    ``seconds`` (both), ``memory`` (peak, bytes), ``source`` (the source language's score),
    ``score`` (the mean over target languages, each counting once), ``gap``. What a record does not
    say is NaN.

    Raises:
        RunError: a record has no scores, or two are of one run.
    """
    rows = []
    for record, label in zip(with_scores(records), method_labels(records), strict=True):
        scores = language_scores(dict(record))
        source = next(row.score for row in scores if row.source)
        targets = [row.score for row in scores if not row.source]
        mean = float(np.mean(targets)) if targets else float("nan")
        training = record.get("training", {}).get("seconds", 0.0)
        scoring = record.get("evaluation", {}).get("seconds", float("nan"))
        rows.append(
            {
                "method": label,
                "seed": record["identity"]["seed"],
                "parameters": record["trainable_parameters"],
                "training_seconds": training,
                "scoring_seconds": scoring,
                "seconds": training + scoring,
                "memory": record.get("peak_memory_bytes"),
                "source": source,
                "score": mean,
                "gap": source - mean,
            }
        )
    return pd.DataFrame(rows).astype({"memory": float})


def method_costs(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a method: the means of :func:`run_costs` over seeds, in the order of the records.

    Returns:
        ``method``, ``seeds``, the columns of :func:`run_costs` without ``seed``, and ``source_sd``,
        ``score_sd``, ``gap_sd``: standard deviations over seeds, NaN for one.
    """
    runs = run_costs(records)
    grouped = runs.groupby("method", sort=False)
    means = grouped.mean(numeric_only=True).drop(columns="seed")
    means["parameters"] = grouped["parameters"].first()
    means.insert(0, "seeds", grouped.size())
    for name in ("source", "score", "gap"):
        means[f"{name}_sd"] = grouped[name].std(ddof=1)
    return means.reset_index()
