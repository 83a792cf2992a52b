"""What runs wrote while they trained: loss and dev score by optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from polyprefix.analysis.records import finished, method_labels
from polyprefix.results import read_jsonl

BINS = 60
"""Stretches of steps that a run's loss is averaged over."""


def learning_curves(folders: Sequence[Path], *, bins: int = BINS) -> pd.DataFrame:
    """The logs of finished runs, the loss as means over stretches of steps.

    The loss of a step is of one batch, and says little alone: it is averaged over at most ``bins``
    stretches of equal length (the last may be shorter). Dev scores are as they were measured.

    Args:
        folders: of the runs; those without a log, since they trained nothing, are left out.
        bins: stretches of a run.

    Returns:
        ``method`` (see :func:`polyprefix.analysis.method_labels`), ``seed``, ``step`` (the middle
        of the stretch, or the step of the dev score), ``loss`` and ``dev`` (one of them, NaN in the
        place of the other).

    Raises:
        RunError: a run is not finished, or its log is damaged.
    """
    runs = finished(folders)
    records = [run.record() for run in runs]
    rows: list[tuple[str, int, float, float, float]] = []
    for run, record, label in zip(runs, records, method_labels(records), strict=True):
        path = run.path / "log.jsonl"
        log = read_jsonl(path) if path.is_file() else []
        if not log:
            continue
        seed, length = record["identity"]["seed"], -(-len(log) // bins)
        for start in range(0, len(log), length):
            part = log[start : start + length]
            loss = sum(line["loss"] for line in part) / len(part)
            step = (part[0]["step"] + part[-1]["step"]) / 2
            rows.append((label, seed, step, loss, float("nan")))
        rows += [
            (label, seed, line["step"], float("nan"), line["dev_score"])
            for line in log
            if "dev_score" in line
        ]
    return pd.DataFrame(rows, columns=["method", "seed", "step", "loss", "dev"])
