"""The fit of the random-effects model of ``hierarchical.py``: restricted maximum likelihood (REML;
Viechtbauer 2005) and generalised least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """The fitted model.

    Attributes:
        y: ``[K]``.
        sampling: S, ``[K, K]``.
        coefficients: ``[C]``, the constant and, with a moderator, the slope.
        covariance: of the coefficients, ``[C, C]``.
        degrees: of freedom.
        tau2: variance between languages.
        omega2: between families; 0 without them.
    """

    y: Array
    sampling: Array
    coefficients: Array
    covariance: Array
    degrees: float
    tau2: float
    omega2: float


def fit_model(
    estimates: npt.ArrayLike,
    covariance: npt.ArrayLike,
    families: Sequence[str] | None,
    moderator: npt.ArrayLike | None,
) -> Fit:
    """The model with a constant, or a constant and a slope.

    Raises:
        ValueError: too few languages or families, or shapes that do not fit.
    """
    y = np.asarray(estimates, dtype=np.float64)
    given = np.asarray(covariance, dtype=np.float64)
    sampling = np.diag(given) if given.ndim == 1 else given
    columns = [np.ones_like(y)]
    if moderator is not None:
        columns.append(np.asarray(moderator, dtype=np.float64))
    design = np.stack(columns, axis=1)
    if sampling.shape != (len(y), len(y)):
        raise ValueError(f"{len(y)} estimates and a covariance of shape {sampling.shape}")
    units, same, what = len(y), None, "languages"
    if families is not None:
        names = np.asarray(families)
        if len(names) != len(y):
            raise ValueError(f"{len(y)} estimates and {len(names)} families")
        same = (names[:, None] == names[None, :]).astype(np.float64)
        units, what = len(set(families)), "families"
    degrees = units - len(columns)
    if degrees < 1:
        there = f"there {'is' if units == 1 else 'are'} {units}"
        raise ValueError(f"{len(columns) + 1} {what} are needed, {there}")
    tau2, omega2 = _reml(y, design, sampling, same)
    total = sampling + tau2 * np.eye(len(y)) + (0.0 if same is None else omega2 * same)
    coefficients, variances, deviance = _generalised(y, design, total)
    if same is None:
        variances = variances * deviance / degrees
    return Fit(y, sampling, coefficients, variances, float(degrees), tau2, omega2)


def _generalised(y: Array, design: Array, total: Array) -> tuple[Array, Array, float]:
    """Generalised least squares: coefficients ``[C]``, their covariance, and the weighted sum of
    squares of what is left."""
    weighted = np.linalg.solve(total, np.column_stack([design, y]))
    covariance = np.linalg.inv(design.T @ weighted[:, :-1])
    coefficients = covariance @ (design.T @ weighted[:, -1])
    deviance = float(y @ weighted[:, -1] - coefficients @ (design.T @ weighted[:, -1]))
    return coefficients, covariance, deviance


def _reml(y: Array, design: Array, sampling: Array, same: Array | None) -> tuple[float, float]:
    """tau² and omega² that maximise the restricted likelihood.

    With V their covariance of y, X the design, ``P = V⁻¹ - V⁻¹X (X'V⁻¹X)⁻¹ X'V⁻¹``, minus twice the
    likelihood is ``log|V| + log|X'V⁻¹X| + y'Py``, and its slope in a variance with ``dV = D`` is
    ``tr(PD) - y'PDPy`` (Harville 1977).
    """
    scale = max(float(y.var(ddof=1)), float(np.diag(sampling).mean()), 1e-12)
    scaled, noise = y / np.sqrt(scale), sampling / scale
    size = 1 if same is None else 2
    identity = np.eye(len(y))

    def likelihood(variances: Array) -> tuple[float, Array]:
        total = noise + variances[0] * identity
        if same is not None:
            total += variances[1] * same
        factor, _ = linalg.cho_factor(total, lower=True, check_finite=False)
        inverse = linalg.cho_solve((factor, True), identity, check_finite=False)
        weighted = inverse @ design
        information = design.T @ weighted
        projection = inverse - weighted @ np.linalg.solve(information, weighted.T)
        rest = projection @ scaled
        value = (
            2 * float(np.log(np.diag(factor)).sum())
            + float(np.linalg.slogdet(information)[1])
            + float(scaled @ rest)
        )
        slope = [np.trace(projection) - rest @ rest]
        if same is not None:
            slope.append((projection * same).sum() - rest @ same @ rest)
        return value, np.array(slope)

    fits = [
        optimize.minimize(
            likelihood,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1e3)] * size,
            options={"ftol": 1e-13, "gtol": 1e-6},
        )
        for start in (np.full(size, 0.5), np.full(size, 0.02))
    ]
    found = min(fits, key=lambda fit: float(fit.fun)).x * scale
    return float(found[0]), float(found[1]) if size == 2 else 0.0


def homogeneity(y: Array, sampling: Array) -> tuple[float, float]:
    """Cochran's Q, weighting by the inverse variances, and I²."""
    weights = 1.0 / np.diag(sampling)
    mean = (weights @ y) / weights.sum()
    q = float(weights @ (y - mean) ** 2)
    return q, max(0.0, 1.0 - (len(y) - 1) / q) if q > 0 else 0.0
