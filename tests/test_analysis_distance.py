"""Distances of languages, what goes with them, and which languages a method favours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial, stats

from polyprefix.analysis import (
    Examples,
    correlations,
    language_distances,
    pretraining_shares,
    read_uriel,
    source_bias,
)
from polyprefix.analysis.source_bias import slopes_on
from polyprefix.analysis.typology import cluster_weights, correlation, language_features
from polyprefix.analysis.uriel import _packaged, cosine_distance, great_circle, uriel_distances
from polyprefix.config import DataError
from polyprefix.languages import get, languages
from pretraining.languages import CODES as NANO

# Distances ---------------------------------------------------------------------------------------


def test_distances_are_scipys() -> None:
    rng = np.random.default_rng(0)
    first, others = rng.integers(0, 2, 30).astype(float), rng.integers(0, 2, (5, 30)).astype(float)
    expected = [spatial.distance.cosine(first, other) for other in others]
    assert cosine_distance(first, others) == pytest.approx(expected)
    assert cosine_distance(first, np.zeros((1, 30)))[0] == 1


def test_great_circles() -> None:
    """Paris to Sydney is 16,960 km of 20,015; the poles are as far as can be."""
    assert great_circle(48.8566, 2.3522, [-33.8688], [151.2093])[0] == pytest.approx(
        16_960 / 20_015, abs=0.001
    )
    assert great_circle(90, 0, [-90.0, 90.0], [12.0, 5.0]) == pytest.approx([1, 0], abs=1e-9)


def test_packaged_distances_have_every_language() -> None:
    table = _packaged()
    assert list(table.index) == list(languages())
    kinds = ["syntactic", "phonological", "inventory", "genetic"]
    assert table[kinds].notna().all().all()
    assert ((table >= 0) & (table <= 1)).all().all()
    assert (table.loc["eng_Latn", kinds] == 0).all()
    # What is known of the languages, whatever the formula.
    assert table["syntactic"]["deu_Latn"] < table["syntactic"]["rus_Cyrl"]
    assert table["syntactic"]["rus_Cyrl"] < table["syntactic"]["jpn_Jpan"]
    other = [code for code in table.index if get(code).family != "Indo-European"]
    assert table["genetic"][other].min() > 0.95
    assert table["genetic"]["nld_Latn"] < table["genetic"]["fra_Latn"] < 1


def test_packaged_distances_are_uriels(real_data: Path) -> None:
    uriel = read_uriel(real_data / "languages")
    made = uriel_distances(uriel, "eng_Latn", list(languages()))
    pd.testing.assert_frame_equal(made.round(4), _packaged(), check_index_type=False, atol=1.1e-4)
    german = language_distances("deu_Latn", ["nld_Latn", "eng_Latn"], uriel)
    assert german["syntactic"]["eng_Latn"] == pytest.approx(
        _packaged()["syntactic"]["deu_Latn"], abs=1e-4
    )
    assert german["genetic"]["nld_Latn"] < german["genetic"]["eng_Latn"]


def test_from_another_source_geography_alone_is_packaged() -> None:
    found = language_distances("fra_Latn", ["eng_Latn", "deu_Latn", "rus_Cyrl"])
    assert found["syntactic"].isna().all()
    assert found["geographic"]["eng_Latn"] == pytest.approx(
        language_distances("eng_Latn", ["fra_Latn"])["geographic"]["fra_Latn"]
    )
    assert list(found["same_script"]) == [1, 1, 0]


def test_other_files_are_not_uriel(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has not URIEL's arrays"):
        read_uriel(tmp_path)


# Pretraining -------------------------------------------------------------------------------------


def test_what_backbones_have_read() -> None:
    xglm = pretraining_shares("facebook/xglm-564M", "xglm")
    assert xglm is not None
    assert xglm["swh_Latn"] == pytest.approx(0.000553307)
    assert "pol_Latn" not in xglm
    assert len(xglm) == 31  # thirty languages, Chinese in two scripts
    bloom = pretraining_shares("/models/bloom-560m", "bloom")
    assert bloom is not None
    assert bloom["fra_Latn"] == 0.131
    assert bloom["lug_Latn"] is None
    assert "deu_Latn" not in bloom
    nano = pretraining_shares("polyprefix/nano", "llama")
    assert nano is not None
    assert list(nano) == list(NANO)
    for shares in (xglm, bloom, nano):
        assert set(shares) <= set(languages())
        assert sum(share or 0 for share in shares.values()) <= 1.1
    for name, model_type in [
        ("facebook/xglm-4.5B", "xglm"),
        ("bloom", "llama"),
        ("nano", "llama"),
        ("meta-llama/Llama-3.2-1B", "llama"),
    ]:
        assert pretraining_shares(name, model_type) is None


# Correlations ------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_correlations_are_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 20).astype(float), rng.normal(size=20)
    assert correlation(np.stack([x, y])) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert correlation(np.stack([x, y]), "pearson") == pytest.approx(stats.pearsonr(x, y).statistic)
    assert correlation(np.stack([y, x])) == pytest.approx(correlation(np.stack([x, y])))
    assert correlation(np.stack([-x, y])) == pytest.approx(-correlation(np.stack([x, y])))


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_partial_correlations_are_those_of_residuals(kind: str) -> None:
    rng = np.random.default_rng(1)
    controls = rng.normal(size=(2, 30))
    x, y = rng.normal(size=(2, 30)) + controls.sum(axis=0)
    values = np.stack([x, y, *controls])
    ranked = stats.rankdata(values, axis=1) if kind == "spearman" else values
    design = np.column_stack([np.ones(30), *ranked[2:]])
    left = [row - design @ np.linalg.lstsq(design, row, rcond=None)[0] for row in ranked[:2]]
    found = correlation(values, kind)  # type: ignore[arg-type]
    assert found == pytest.approx(stats.pearsonr(*left).statistic)
    assert found < correlation(values[:2], kind) - 0.2  # type: ignore[arg-type]


def test_weights_are_counts_of_whole_clusters() -> None:
    weights = cluster_weights(["a", "b", "a", "c"], 2000, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert ((weights[:, :2].sum(axis=1) + weights[:, 3]) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.07)


def scores_of(values: dict[str, float], method: str = "lora") -> pd.DataFrame:
    rows = [
        {"method": method, "language": code, "seed": 0, "run": method, "source": code == "eng_Latn",
         "score": value, "gap": 0.9 - value, "stderr": 0.03, "calibrated": None,
         "family": get(code).family, "model": "m", "share": None, "resource_level": 1.0,
         "tokens_per_word": None, "premium": None}
        for code, value in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"share": float, "premium": float, "tokens_per_word": float})


TARGETS = [code for code in languages() if code.endswith("_Latn") and code != "eng_Latn"][:40]


def test_transfer_that_goes_with_distance_is_found() -> None:
    features = language_distances("eng_Latn", TARGETS)
    rng = np.random.default_rng(0)
    values = {c: 0.8 - 0.5 * features["syntactic"][c] + rng.normal(0, 0.03) for c in TARGETS}
    table = scores_of({"eng_Latn": 0.9, **values})
    features = language_features(table)
    found = correlations(table, features, ["syntactic", "same_script"]).set_index("feature")
    x = features["syntactic"].to_numpy()
    theirs = stats.spearmanr(x, [values[c] for c in features.index])
    row = found.loc["syntactic"]
    assert row["correlation"] == pytest.approx(theirs.statistic)
    assert row["p"] == pytest.approx(theirs.pvalue)
    assert row["low"] < row["correlation"] < row["high"] < -0.5
    assert np.isnan(found.loc["same_script", "correlation"])  # all are written in Latin
    gaps = correlations(table, features, ["syntactic"], score="gap")
    assert gaps["correlation"][0] == pytest.approx(-theirs.statistic)
    # Something else that goes with the distance does not explain it away.
    features["luck"] = rng.normal(size=len(features))
    partial = correlations(table, features, ["syntactic"], controls=["luck", "same_script"])
    assert partial["correlation"][0] < -0.7


def test_the_bootstrap_of_a_correlation_is_scipys() -> None:
    rng = np.random.default_rng(2)
    features = language_distances("eng_Latn", TARGETS)
    table = scores_of({"eng_Latn": 0.9, **dict(zip(TARGETS, rng.random(40), strict=True))})
    ours = correlations(table, features, ["syntactic"], resamples=4000, clusters=False).loc[0]
    y = table.set_index("language")["score"][TARGETS].to_numpy()
    theirs = stats.bootstrap(
        (features["syntactic"].to_numpy(), y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=0,
    ).confidence_interval  # fmt: skip
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.04)


# Which languages a method favours ----------------------------------------------------------------


def made(slopes: dict[str, float], x: np.ndarray, n: int = 300, seed: int = 0) -> Examples:
    """Methods with the same mean score, and other slopes on ``x``, over :data:`TARGETS`."""
    rng = np.random.default_rng(seed)
    hard, alike = rng.random((len(x), n)), rng.normal(0, 0.03, len(x))
    runs = {"eng_Latn": tuple(np.ones((1, n)) for _ in slopes)}
    for k, code in enumerate(TARGETS[: len(x)]):
        runs[code] = tuple(
            (hard[k] < 0.5 + slope * (x[k] - x.mean()) + alike[k]).astype(float)[None]
            for slope in slopes.values()
        )
    names = tuple(str(i) for i in range(n))
    return Examples(
        task="made", score="accuracy", source="eng_Latn", methods=tuple(slopes),
        seeds=tuple((0,) for _ in slopes), trained=tuple(True for _ in slopes),
        ids=dict.fromkeys(runs, names), runs=runs, parallel=True,
    )  # fmt: skip


X = np.linspace(0.3, 0.9, 40)
SIMILARITY = dict(zip(TARGETS, X, strict=True))


def test_slopes_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random(20), rng.random(20)
    assert slopes_on(x, y) == pytest.approx(stats.linregress(x, y).slope)
    counts = rng.integers(0, 3, 20)
    again = stats.linregress(np.repeat(x, counts), np.repeat(y, counts)).slope
    assert slopes_on(x, y, counts.astype(float)) == pytest.approx(again)


def test_a_method_that_favours_close_languages_is_found() -> None:
    examples = made({"full": 0.6, "soft_prompt": 0.2, "lora": 0.2}, X)
    found = source_bias(examples, SIMILARITY, resamples=1000, permutations=999)
    slopes = found.slopes.set_index("method")
    assert slopes["slope"].to_numpy() == pytest.approx([0.6, 0.2, 0.2], abs=0.1)
    y = [examples.scores("full", code).mean() for code in TARGETS]
    fit = stats.linregress(X, y)
    assert slopes.loc["full", "slope"] == pytest.approx(fit.slope)
    assert slopes.loc["full", "intercept"] == pytest.approx(fit.intercept)
    assert slopes.loc["full", "p"] == 1 / 1000
    first, _, last = (row for _, row in found.differences.iterrows())
    assert (first["first"], first["second"]) == ("full", "soft_prompt")
    assert first["difference"] == pytest.approx(
        slopes.loc["full", "slope"] - slopes.loc["soft_prompt", "slope"]
    )
    assert 0 < first["low"] < first["difference"] < first["high"]
    assert 0 < first["family_low"] < first["family_high"]
    assert first["family_p"] < 0.01
    assert last["difference"] == 0  # the same answers
    assert last["p"] == 1
    # Pairing by example removes what both find hard: narrower than two slopes apart.
    apart = slopes.loc["full", "high"] - slopes.loc["full", "low"]
    assert first["high"] - first["low"] < apart
    lines = found.lines[found.lines["method"] == "full"]
    assert (lines["low"] < lines["score"]).all()
    assert (lines["score"] < lines["high"]).all()


def test_intervals_of_slopes_cover() -> None:
    covered = []
    for seed in range(150):
        x = X[::2]
        examples = made({"full": 0.4, "lora": 0.2}, x, n=100, seed=seed)
        similarity = dict(zip(TARGETS, x, strict=False))
        found = source_bias(examples, similarity, resamples=300, permutations=9)
        row = found.differences.iloc[0]
        covered.append(
            (row["low"] <= 0.2 <= row["high"], row["family_low"] <= 0.2 <= row["family_high"])
        )
    bootstrap, family = np.mean(covered, axis=0)
    # The pigeonhole bootstrap is meant to be wide.
    assert bootstrap >= 0.92
    assert 0.91 <= family <= 0.995


def test_p_is_small_as_often_as_it_says_when_closeness_does_not_matter() -> None:
    p = []
    for seed in range(150):
        examples = made({"lora": 0.0}, X[::2], n=50, seed=seed)
        similarity = dict(zip(TARGETS, X[::2], strict=False))
        found = source_bias(examples, similarity, resamples=10, permutations=199)
        p.append(found.slopes["p"][0])
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.10


def test_relative_to_the_source_a_better_method_has_no_steeper_slope() -> None:
    examples = made({"full": 0.4}, X)
    runs = {
        code: (values[0], values[0] / 2) for code, values in examples.runs.items()
    }  # half the score everywhere
    both = Examples(
        "made",
        "f1",
        "eng_Latn",
        ("full", "half"),
        ((0,), (0,)),
        (True, True),
        examples.ids,
        runs,
        True,
    )
    plain = source_bias(both, SIMILARITY, resamples=50, permutations=9).differences.iloc[0]
    share = source_bias(both, SIMILARITY, resamples=50, permutations=9, relative=True)
    assert plain["difference"] > 0.1
    assert share.differences["difference"][0] == pytest.approx(0, abs=1e-9)


def test_a_slope_needs_languages() -> None:
    examples = made({"full": 0.4}, X)
    with pytest.raises(ValueError, match=r"needs 5 languages .* there are 4"):
        source_bias(examples, dict.fromkeys(TARGETS[:4], 0.5) | {TARGETS[5]: float("nan")})
    with pytest.raises(ValueError, match="that differ"):
        source_bias(examples, dict.fromkeys(TARGETS, 0.5))
