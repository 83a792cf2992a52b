"""Paired bootstrap, sign flips and corrections: against scipy, statsmodels, and by properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from polyprefix.analysis import adjust, paired_bootstrap, sign_flip_test, stratified_bootstrap
from polyprefix.analysis.paired import _monte_carlo, acceleration, interval, resampled_means

RNG = np.random.default_rng


def thirds(n: int, seed: int) -> np.ndarray:
    """Differences as three seeds a method make them."""
    return RNG(seed).integers(-3, 4, size=n) / 3


# Bootstrap ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_are_scipys_on_scipys_resamples(method: str) -> None:
    rng = RNG(0)
    a, b = rng.exponential(size=60), rng.random(60)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis=-1: (x - y).mean(axis=axis),
        paired=True,
        method="BCa" if method == "bca" else "percentile",
        n_resamples=2000,
        rng=1,
    )
    row = (a - b)[None]
    skew = acceleration(row) if method == "bca" else None
    low, high = interval(theirs.bootstrap_distribution[:, None], row.mean(axis=1), skew=skew)
    assert low[0] == pytest.approx(theirs.confidence_interval.low, abs=1e-12)
    assert high[0] == pytest.approx(theirs.confidence_interval.high, abs=1e-12)


def test_resampled_means_are_those_of_the_bootstrap() -> None:
    values = RNG(0).exponential(size=(2, 50))
    drawn = resampled_means(values, resamples=20_000, rng=RNG(1))
    assert drawn.mean(axis=0) == pytest.approx(values.mean(axis=1), abs=0.005)
    # The standard error of a mean in the population that the sample is.
    exact = values.std(axis=1) / np.sqrt(50)
    assert drawn.std(axis=0) == pytest.approx(exact, rel=0.03)
    # One draw serves all rows: what goes together in examples goes together in the means.
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(np.corrcoef(values)[0, 1], abs=0.03)


def test_one_stratum_is_the_paired_bootstrap() -> None:
    row = thirds(80, 0)
    ours, paired = stratified_bootstrap([row], resamples=500), paired_bootstrap(row, resamples=500)
    for name in ("mean", "stderr", "low", "high"):
        assert getattr(ours, name) == pytest.approx(getattr(paired, name))


def test_strata_count_once_whatever_their_size() -> None:
    few, many = thirds(20, 0) + 0.5, thirds(400, 1)
    found = stratified_bootstrap([few, many], resamples=4000)
    assert found.mean[0] == pytest.approx((few.mean() + many.mean()) / 2)
    exact = np.sqrt(few.var() / 20 + many.var() / 400) / 2
    assert found.stderr[0] == pytest.approx(exact, rel=0.05)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_swapping_the_methods_turns_the_interval_round(seed: int) -> None:
    row = thirds(30, seed)
    one = paired_bootstrap(row, resamples=400, seed=seed, method="percentile")
    other = paired_bootstrap(-row, resamples=400, seed=seed, method="percentile")
    assert one.low == pytest.approx(-other.high)
    assert one.high == pytest.approx(-other.low)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_cover_as_often_as_they_say(method: str) -> None:
    """1,000 test sets of 100 examples, right or wrong under two methods, all in one call: a row
    each. The resamples are shared, which does not matter to a row's coverage."""
    rng = RNG(2)
    truth = 0.10
    first = rng.random((1000, 100)) < 0.70
    # Half of the examples go together, the rest by chance.
    second = np.where(rng.random(first.shape) < 0.5, first, rng.random(first.shape) < 0.50)
    rows = first.astype(float) - second
    found = paired_bootstrap(rows, method=method, resamples=1000)  # type: ignore[arg-type]
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.92 <= covered <= 0.97


def test_no_difference_has_no_width() -> None:
    found = paired_bootstrap(np.zeros((1, 20)), resamples=100)
    assert (found.low[0], found.high[0], found.stderr[0]) == (0, 0, 0)


# Sign flips --------------------------------------------------------------------------------------


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.sampled_from([1, 2, 3, 7]))
@settings(max_examples=60, deadline=None)
def test_the_exact_p_is_that_of_all_sign_patterns(values: list[int], unit: int) -> None:
    row = np.array(values) / unit
    patterns = np.array(np.meshgrid(*[[-1, 1]] * len(row))).reshape(len(row), -1)
    sums = np.abs(row @ patterns)
    expected = (sums >= abs(row.sum()) - 1e-9).mean()
    assert sign_flip_test(row)[0] == pytest.approx(expected)


def test_the_exact_p_is_scipys_permutation_test() -> None:
    row = thirds(12, 4)
    theirs = stats.permutation_test(
        (row,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert sign_flip_test(row)[0] == pytest.approx(theirs.pvalue)


def test_right_and_wrong_answers_of_one_seed_are_mcnemars_exact_test() -> None:
    """The worked example of Agresti (2002, section 10.1), approval of a prime minister: 150 and 86
    changed their minds."""
    row = np.concatenate([np.ones(150), -np.ones(86), np.zeros(1364)])
    p = sign_flip_test(row)[0]
    assert p == pytest.approx(stats.binomtest(86, 236).pvalue)
    mcnemar = pytest.importorskip("statsmodels.stats.contingency_tables").mcnemar
    assert p == pytest.approx(mcnemar([[794, 150], [86, 570]], exact=True).pvalue)


def test_fishers_darwin_data() -> None:
    """Fisher (1935, section 21): heights of 15 pairs of plants, crossed less self-fertilised, in
    eighths of an inch. Of the 32,768 sign patterns 1,726 sum to 314 or more either way."""
    row = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip_test(row)[0] == pytest.approx(1726 / 32768)


def test_drawn_patterns_come_near_the_exact_p() -> None:
    rows = np.stack([thirds(60, seed) + 0.02 * seed for seed in (0, 1, 2)])
    drawn = _monte_carlo(rows, 20_000, RNG(0))
    exact = sign_flip_test(np.round(rows * 150) / 150)
    assert drawn == pytest.approx(exact, abs=0.02)


def test_real_scores_are_tested_by_drawn_patterns() -> None:
    row = RNG(0).normal(size=40)
    p = sign_flip_test(row, permutations=5000)[0]
    expected = stats.ttest_1samp(row, 0).pvalue
    assert p == pytest.approx(expected, abs=0.03)
    assert sign_flip_test(row + 10, permutations=999)[0] == 1 / 1000


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_order_of_examples_and_methods_does_not_matter(seed: int, whole: bool) -> None:
    row = thirds(25, seed) if whole else RNG(seed).normal(size=25)
    p = sign_flip_test(row, permutations=400)[0]
    assert sign_flip_test(-row, permutations=400)[0] == p
    shuffled = RNG(seed).permutation(row)
    assert sign_flip_test(shuffled, permutations=4000)[0] == pytest.approx(p, abs=0.12)
    if whole:
        assert sign_flip_test(shuffled)[0] == pytest.approx(p, abs=1e-12)


def test_p_is_small_as_often_as_it_says_when_nothing_differs() -> None:
    rng = RNG(5)
    rows = (rng.random((2000, 150)) < 0.6).astype(float) - (rng.random((2000, 150)) < 0.6)
    p = sign_flip_test(rows)
    assert 0.03 <= (p < 0.05).mean() <= 0.06


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        sign_flip_test(np.zeros((2, 0)))
    with pytest.raises(ValueError, match="not finite"):
        paired_bootstrap([0.0, np.nan])


# Corrections -------------------------------------------------------------------------------------


def test_corrections_are_statsmodels() -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    p = RNG(0).random(40) ** 3
    for ours, theirs in (("holm", "holm"), ("bh", "fdr_bh")):
        expected = multipletests(p, method=theirs)[1]
        assert adjust(p, ours) == pytest.approx(expected)  # type: ignore[arg-type]


def test_published_example_of_the_false_discovery_rate() -> None:
    """Benjamini and Hochberg (1995, section 3.2): 15 p values; at 0.05 Bonferroni, and Holm, reject
    three, the false discovery rate four."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
         0.5719, 0.6528, 0.7590, 1.0000]  # fmt: skip
    assert (adjust(p, "bh") <= 0.05).sum() == 4
    assert (adjust(p, "holm") <= 0.05).sum() == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from(["holm", "bh"]))
def test_corrected_p_are_no_smaller_and_keep_their_order(p: list[float], method: str) -> None:
    found = adjust(p, method)  # type: ignore[arg-type]
    assert (found >= np.array(p) - 1e-12).all()
    assert (found <= 1).all()
    order = np.argsort(p)
    assert (np.diff(found[order]) >= -1e-12).all()


def test_no_p_beyond_its_range() -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        adjust([0.5, 1.2])
    assert adjust([]).size == 0
