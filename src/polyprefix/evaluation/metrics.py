"""Metrics of choice tasks, with standard errors. Pure functions of labels and predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> tuple[float, float]:
    """Share of right predictions and its standard error, sqrt(p (1 - p) / (n - 1))."""
    count = len(labels)
    share = sum(a == b for a, b in zip(labels, predictions, strict=True)) / count
    return share, (share * (1 - share) / max(count - 1, 1)) ** 0.5


def majority(labels: Sequence[int], classes: int) -> float:
    """Accuracy of always giving the most frequent label of these examples."""
    return float(np.bincount(labels, minlength=classes).max()) / len(labels)


def macro_f1(
    labels: Sequence[int], predictions: Sequence[int], classes: int, seed: int = 0
) -> tuple[float, float]:
    """Unweighted mean of the classes' F1, and its standard error by bootstrap.

    A class that is neither among the labels nor among the predictions is left out of the mean, as
    scikit-learn does without ``labels=``. The bootstrap draws confusion matrices from a multinomial
    over their cells, which is what resampling examples amounts to.
    """
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predictions)), 1)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(labels), matrix.ravel() / len(labels), size=RESAMPLES)
    resampled = _macro_f1(drawn.reshape(-1, classes, classes))
    return float(_macro_f1(matrix[None])[0]), float(resampled.std(ddof=1))


def _macro_f1(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[N, C, C]`` (label, prediction) counts to ``[N]``."""
    right = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    total = matrices.sum(axis=1) + matrices.sum(axis=2)
    f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    present = (total > 0).sum(axis=1)
    return np.asarray(f1.sum(axis=1) / np.maximum(present, 1), dtype=np.float64)
