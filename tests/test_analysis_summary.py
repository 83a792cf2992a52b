"""The random-effects summary over languages: published examples, statsmodels, simulation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyprefix.analysis import pool, regress
from polyprefix.analysis.hierarchical import sampling_covariance

# Tuberculosis among vaccinated and not (Colditz et al. 1994): cases and others of both.
BCG = np.array(
    [
        [4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619],
        [33, 5036, 47, 5761], [180, 1361, 372, 1079], [8, 2537, 10, 619], [505, 87886, 499, 87892],
        [29, 7470, 45, 7232], [17, 1699, 65, 1600], [186, 50448, 141, 27197], [5, 2493, 3, 2338],
        [27, 16886, 29, 17825],
    ],
    dtype=float,
)  # fmt: skip
LATITUDE = [44, 55, 42, 52, 13, 44, 19, 13, 27, 42, 18, 33, 33]

# Effects of school calendars and their variances by district (Konstantopoulos 2011).
SCHOOLS = """
11 | -0.18 -0.22 0.23 -0.3 | 0.118 0.118 0.144 0.144
12 | 0.13 -0.26 0.19 0.32 | 0.014 0.014 0.015 0.024
18 | 0.45 0.38 0.29 | 0.023 0.043 0.012
27 | 0.16 0.65 0.36 0.6 | 0.02 0.004 0.004 0.007
56 | 0.08 0.04 0.19 -0.06 | 0.019 0.007 0.005 0.004
58 | -0.18 0 0 -0.28 -0.04 -0.3 | 0.02 0.018 0.019 0.022 0.02 0.021
58 | 0.07 0 0.05 -0.08 -0.09 | 0.006 0.007 0.007 0.007 0.007
71 | 0.3 0.98 1.19 | 0.015 0.011 0.01
86 | -0.07 -0.05 -0.01 0.02 -0.03 0 0.01 -0.1 | 0.001 0.001 0.001 0.001 0.001 0.001 0.001 0.001
91 | 0.5 0.66 0.2 0 0.05 0.07 | 0.01 0.011 0.01 0.009 0.013 0.013
108 | -0.52 0.7 -0.03 0.27 -0.34 | 0.031 0.031 0.03 0.03 0.03
644 | 0.12 0.61 0.04 -0.05 | 0.087 0.082 0.067 0.067
"""


def bcg() -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of risk ratios, and their variances."""
    a, b, c, d = BCG.T
    return np.log(a / (a + b) / (c / (c + d))), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_published_random_effects_example() -> None:
    """Viechtbauer (2010), J. Stat. Software 36(3), section 4: REML, tau² 0.3132, estimate -0.7145,
    Q 152.23; with the adjustment of Knapp and Hartung the interval is -1.1084 to -0.3206."""
    found = pool(*bcg())
    assert found.tau**2 == pytest.approx(0.3132, abs=5e-5)
    assert found.estimate == pytest.approx(-0.7145, abs=5e-5)
    assert found.stderr == pytest.approx(0.1808, abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-1.1084, -0.3206), abs=5e-5)
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert (found.languages, found.degrees, found.omega) == (13, 12, None)


def test_published_regression_example() -> None:
    """The same section, with latitude: intercept 0.2515, slope -0.0291, tau² 0.0764 (as its
    iteration stops; the likelihood is highest at 0.07635)."""
    found = regress(*bcg(), LATITUDE)
    assert found.intercept == pytest.approx(0.2515, abs=5e-5)
    assert found.slope == pytest.approx(-0.0291, abs=5e-5)
    assert found.tau**2 == pytest.approx(0.0764, abs=1e-4)


def test_published_multilevel_example() -> None:
    """Konstantopoulos (2011), Research Synthesis Methods 2: estimate 0.1847 (0.0846), variances of
    districts 0.0651 and of schools 0.0327."""
    y: list[str] = []
    v: list[str] = []
    districts: list[str] = []
    for line in SCHOOLS.strip().splitlines():
        name, effects, variances = line.split(" | ")
        y += effects.split()
        v += variances.split()
        districts += [name] * len(effects.split())
    found = pool(np.array(y, float), np.array(v, float), families=districts)
    assert found.estimate == pytest.approx(0.1847, abs=5e-5)
    assert found.stderr == pytest.approx(0.0846, abs=5e-5)
    assert found.omega is not None
    assert found.omega**2 == pytest.approx(0.0651, abs=5e-5)
    assert found.tau**2 == pytest.approx(0.0327, abs=5e-5)
    assert (found.languages, found.families, found.degrees) == (56, 11, 10)


def test_given_the_variance_it_is_statsmodels() -> None:
    """statsmodels estimates tau² in other ways: the same tau² must give the same answer. With equal
    variances of examples Paule and Mandel's is the REML one."""
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    y = np.random.default_rng(0).normal(0.1, 0.3, size=12)
    v = np.full(12, 0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = meta.combine_effects(y, v, method_re="iterated", use_t=True)
        row = theirs.summary_frame().loc["random effect wls"]
    ours = pool(y, v)
    assert ours.tau**2 == pytest.approx(theirs.tau2, rel=1e-4)
    assert ours.estimate == pytest.approx(row["eff"], rel=1e-6)
    assert ours.stderr == pytest.approx(row["sd_eff"], rel=1e-4)
    assert (ours.low, ours.high) == pytest.approx((row["ci_low"], row["ci_upp"]), rel=1e-3)
    assert ours.q == pytest.approx(theirs.q)


def test_with_families_it_is_statsmodels_mixed_model() -> None:
    """Examples without noise are a mixed model with a random intercept, fitted by REML."""
    mixed = pytest.importorskip("statsmodels.regression.mixed_linear_model").MixedLM
    rng = np.random.default_rng(3)
    names = np.repeat([f"family {i}" for i in range(8)], [1, 2, 3, 4, 5, 6, 2, 3])
    effect = dict(zip(sorted(set(names)), rng.normal(0, 0.5, 8), strict=True))
    y = np.array([effect[name] for name in names]) + rng.normal(0, 0.3, len(names))
    theirs = mixed(y, np.ones((len(y), 1)), groups=names).fit(reml=True)
    ours = pool(y, np.zeros(len(y)) + 1e-12, families=list(names))
    assert ours.estimate == pytest.approx(theirs.params[0], abs=1e-4)
    assert ours.stderr == pytest.approx(theirs.bse[0], rel=1e-3)
    assert ours.tau**2 == pytest.approx(theirs.scale, rel=1e-3)
    assert ours.omega is not None
    assert ours.omega**2 == pytest.approx(float(theirs.cov_re[0, 0]), rel=1e-2)


def test_intervals_cover_the_mean_of_languages_not_tested() -> None:
    """200 studies of 20 languages in 7 families on 200 shared sentences. An interval that took
    languages as independent would cover too seldom."""
    rng = np.random.default_rng(1)
    families = np.repeat(np.arange(7), [8, 4, 3, 2, 1, 1, 1])
    names = [str(family) for family in families]
    covered, ignored = [], []
    for _ in range(200):
        truth = 0.05 + rng.normal(0, 0.06, 7)[families] + rng.normal(0, 0.02, 20)
        hard = rng.normal(0, 0.3, 200)
        rows = list(truth[:, None] + hard + rng.normal(0, 0.4, (20, 200)))
        noise = sampling_covariance(rows, parallel=True)
        means = [row.mean() for row in rows]
        found = pool(means, noise, families=names)
        covered.append(found.low <= 0.05 <= found.high)
        alone = pool(means, np.diag(noise))
        ignored.append(alone.low <= 0.05 <= alone.high)
    assert 0.915 <= np.mean(covered) <= 0.99
    assert np.mean(ignored) < np.mean(covered) - 0.05


def test_the_prediction_interval_covers_another_language() -> None:
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(200):
        y = 0.05 + rng.normal(0, 0.05, 21)
        found = pool(y[:20] + rng.normal(0, 0.02, 20), np.full(20, 0.02**2))
        hits.append(found.expected_low <= y[20] <= found.expected_high)
    assert 0.92 <= np.mean(hits) <= 0.98


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_languages_and_methods_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, v = rng.normal(0, 0.1, 12), rng.uniform(0.0005, 0.002, 12)
    names = [str(name) for name in rng.integers(0, 4, 12)]
    if len(set(names)) < 2:
        return
    first = pool(y, v, families=names)
    order = rng.permutation(12)
    again = pool(y[order], v[order], families=[names[i] for i in order])
    swapped = pool(-y, v, families=names)
    assert again.estimate == pytest.approx(first.estimate, abs=1e-5)
    assert again.stderr == pytest.approx(first.stderr, rel=1e-2)
    assert swapped.estimate == pytest.approx(-first.estimate, abs=1e-5)
    assert swapped.low == pytest.approx(-first.high, abs=1e-3)


def test_other_trainings_widen_the_interval() -> None:
    y, v = bcg()
    alone, with_seeds = pool(y, v), pool(y, v, training_variance=0.05, training_degrees=2)
    assert with_seeds.estimate == alone.estimate
    assert with_seeds.stderr**2 == pytest.approx(alone.stderr**2 + 0.05)
    # Satterthwaite (1946).
    expected = with_seeds.stderr**4 / (alone.stderr**4 / 12 + 0.05**2 / 2)
    assert with_seeds.degrees == pytest.approx(expected)


def test_variances_are_pooled_over_languages() -> None:
    rows = [np.zeros(10), np.r_[np.ones(10), np.zeros(10)]]
    found = sampling_covariance(rows, parallel=False)
    assert found == pytest.approx(np.diag([5 / 28 / 10, 5 / 28 / 20]))
    # Where nothing differs there is some doubt left.
    assert np.diag(sampling_covariance([np.zeros(10)] * 3, parallel=True)).min() > 0


def test_shared_sentences_show_in_the_covariance() -> None:
    """Of 60 languages on 50 sentences, where the plain covariance is singular, the variance of the
    mean over languages is that of other test sets, and every combination has one."""
    rng = np.random.default_rng(4)
    found, means = [], []
    for _ in range(300):
        rows = rng.normal(0, 0.3, 50) + rng.normal(0, 0.4, (60, 50))
        means.append(rows.mean())
        covariance = sampling_covariance(list(rows), parallel=True)
        found.append(covariance.mean())
        assert np.linalg.eigvalsh(covariance).min() > 0.3 * 0.4**2 / 50
    assert np.mean(found) == pytest.approx(0.3**2 / 50 + 0.4**2 / 50 / 60, rel=0.1)
    assert np.mean(found) == pytest.approx(np.var(means), rel=0.25)


def test_the_same_answers_twice_are_no_certainty() -> None:
    row = np.random.default_rng(0).integers(0, 2, 40).astype(float)
    other = np.random.default_rng(1).integers(0, 2, 40).astype(float)
    rows = [row, row, other]
    found = pool([r.mean() for r in rows], sampling_covariance(rows, parallel=True))
    assert found.stderr > 0.02


def test_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="2 languages are needed, there is 1"):
        pool([0.1], [0.01])
    with pytest.raises(ValueError, match="2 families are needed, there is 1"):
        pool([0.1, 0.2], [0.01, 0.01], families=["a", "a"])
    with pytest.raises(ValueError, match="there is no slope"):
        regress([0.1, 0.2, 0.3], [0.01] * 3, [1, 1, 1])
