"""Figures and tables of a study: their numbers, their SVG, their LaTeX, and what they leave out."""

from __future__ import annotations

import csv
import io
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Path2D
from PIL import Image

from polyprefix.analysis import (
    LabelledRun,
    Setting,
    compare_languages,
    compare_means,
    group_means,
    learning_curves,
    method_costs,
    pool_languages,
    read_examples,
    run_costs,
    score_table,
    settings,
    source_bias,
    straight_line,
    win_matrix,
)
from polyprefix.report.figures import (
    VARIABLES,
    Figure,
    figures,
    gather,
    scaling_figures,
    tables,
    write_exports,
)
from polyprefix.report.figures.cost import log_ticks, spaced
from polyprefix.report.figures.drawing import SVG
from polyprefix.report.figures.sweeps import number, short_number, sweeps
from polyprefix.report.figures.tables import latex
from polyprefix.report.figures.world import equal_earth, land, score_classes
from polyprefix.results import RunFolder

CODES = (
    "eng_Latn", "deu_Latn", "fra_Latn", "rus_Cyrl", "hin_Deva", "fin_Latn", "hun_Latn", "tur_Latn",
    "arb_Arab", "swh_Latn",
)  # fmt: skip
PARAMETERS = {"none": 0, "prefix_tuning": 2000, "lora": 500}
TITLES = {"none": "No adaptation", "prefix_tuning": "Prefix tuning", "lora": "LoRA"}

Study = Callable[..., list[Setting]]


def write_run(
    folder: Path,
    method: str,
    seed: int,
    share: float | None,
    *,
    codes: Sequence[str] = CODES,
    title: str | None = None,
    model: str = "polyprefix/nano",
    size: int = 1000,
    options: Mapping[str, Any] | None = None,
    n: int = 40,
) -> dict[str, Any]:
    """A finished run; ``share`` of its answers are right, all of them where it is ``None``."""
    options = dict(options or {})
    rng = np.random.default_rng(seed + 100 * sorted(PARAMETERS).index(method))
    name = "-".join(map(str, ("made", method, seed, size, *options.values())))
    run = RunFolder(folder / name)
    scores = {}
    for place, code in enumerate(codes):
        right = rng.random(n) < (1.1 if share is None else share - 0.02 * place)
        mean = float(right.mean())
        scores[code] = {"n": n, "accuracy": mean, "accuracy_stderr": 0.05, "majority": 0.25}
        run.write_predictions(
            code,
            [
                {"id": str(i), "label": "yes", "prediction": "yes" if hit else "no"}
                for i, hit in enumerate(right)
            ],
        )
    trained = PARAMETERS[method] > 0
    record = {
        "id": name,
        "status": "finished",
        "identity": {
            "model": {"revision": f"{model}@1", "dtype": "float32"},
            "method": {"name": method, **options},
            "task": {"name": "made", "languages": list(codes)},
            "decoding": None,
            "train": {"learning_rate": 0.01},
            "seed": seed,
        },
        "config": {"train": {"steps": 4}},
        "learning_rate": 0.01,
        "method": {"name": method, "title": title or TITLES[method], **options},
        "model": {"name": model, "model_type": "llama", "parameters": size},
        "task": {
            "name": "made",
            "title": "Made",
            "headline": "accuracy",
            "source_language": "eng_Latn",
            "languages": list(codes),
        },
        "trainable_parameters": PARAMETERS[method],
        "scores": scores,
        "evaluation": {"seconds": 8.0 + seed},
        "peak_memory_bytes": 2**20 * (300 + PARAMETERS[method]),
    }
    if trained:
        dev = 0.5 + 0.01 * PARAMETERS[method] / 100
        record["training"] = {"seconds": 4.0, "best_dev_score": dev, "best_dev_tie_break": 0.0}
        lines = [{"step": s, "loss": 4.0 / s + seed} for s in (1, 2, 3, 4)]
        lines[3]["dev_score"] = 0.75
        text = "".join(pd.Series(line).to_json() + "\n" for line in lines)
        (folder / name / "log.jsonl").write_text(text)
    run.write_record(record)
    return run.record()


def write_study(
    folder: Path, methods: Mapping[str, float | None], seeds: Sequence[int] = (0, 1), **options: Any
) -> list[Setting]:
    """Settings of methods and seeds; what trains nothing has one."""
    return settings(
        [
            LabelledRun(
                {"method.name": method, "seed": seed},
                write_run(folder, method, seed, share, **options),
            )
            for method, share in methods.items()
            for seed in (seeds if PARAMETERS[method] else seeds[:1])
        ]
    )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return partial(write_study, tmp_path)


THREE = {"none": 0.5, "prefix_tuning": 0.6, "lora": 0.85}


@dataclass(frozen=True)
class Drawn:
    """Settings, where their runs are, and their figures by name."""

    found: list[Setting]
    folder: Path
    figures: dict[str, Figure]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("three")
    found = write_study(folder, THREE)
    drawn = figures(found, (), folder)
    return Drawn(found, folder, {f.name.removeprefix("made-nano-"): f for f in drawn})


def folders(found: Sequence[Setting], folder: Path) -> list[Path]:
    return [folder / run.record["id"] for setting in found for run in setting.runs]


# Numbers -----------------------------------------------------------------------------------------


def test_which_figures_there_are(three: Drawn) -> None:
    assert list(three.figures) == [
        "differences",
        "differences-by-language",
        "wins",
        "gap-by-distance",
        "similarity",
        "map",
        "family",
        "script",
        "resource-level",
        "learning",
        "cost",
    ]
    for figure in three.figures.values():
        assert figure.title.endswith("Made on polyprefix/nano")
        assert len(figure.caption) > 100
        assert len(figure.table) > 1


def test_differences_are_those_of_the_analysis(three: Drawn) -> None:
    found, drawn = three.found, three.figures
    examples = read_examples(folders(found, three.folder))
    table = drawn["differences"].table
    # Against the baseline, and against the best on English dev, which is prefix tuning.
    pairs = table[["first", "second"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(pairs) == [
        ("Prefix tuning", "No adaptation"),
        ("LoRA", "No adaptation"),
        ("LoRA", "Prefix tuning"),
    ]
    rows = table[(table["first"] == "LoRA") & (table["second"] == "No adaptation")]
    rows = rows.set_index("over")
    mean = compare_means(examples, "lora", "none")
    assert rows.loc["examples", "difference"] == mean.difference
    assert list(rows.loc["examples", ["low", "high", "p"]]) == [mean.low, mean.high, mean.p]
    pooled = pool_languages(examples, "lora", "none")
    assert rows.loc["languages", "difference"] == pooled.estimate
    assert rows.loc["languages", "expected_high"] == pooled.expected_high
    # Holm's correction of three, by hand: the smallest p three times.
    p = table.loc[table["over"] == "languages", "p"]
    smallest = table.loc[p.idxmin()]
    assert smallest["p_holm"] == pytest.approx(min(1, 3 * smallest["p"]))

    languages = drawn["differences-by-language"].table
    own = languages[languages["method"] == "LoRA"].set_index("language")
    expected = compare_languages(examples, "lora", "none")
    for column in ("difference", "low", "high", "p_holm"):
        assert own[column].to_dict() == expected[column].to_dict()

    wins = drawn["wins"].table.set_index(["first", "second"])
    matrix = win_matrix(examples)
    assert wins.loc[("none", "lora"), "losses"] == matrix.losses.loc["none", "lora"] > 0
    assert (wins.sum(axis=1) == len(CODES) - 1).all()


def test_groups_gaps_and_slopes_are_those_of_the_analysis(three: Drawn) -> None:
    found, drawn = three.found, three.figures
    records = [run.record for setting in found for run in setting.runs]
    table = score_table(records)
    family = drawn["family"].table.set_index(["method", "group"])
    expected = group_means(table, "family").set_index(["method", "group"])
    for label, title in TITLES.items():
        for group in ("Indo-European", "Uralic"):
            for column in ("score", "low", "high", "languages"):
                assert family.loc[(title, group), column] == expected.loc[(label, group), column]
    gaps = drawn["gap-by-distance"].table
    assert set(gaps["language"]) == set(CODES[1:])
    row = gaps[(gaps["language"] == "deu_Latn") & (gaps["distance"] == "syntactic")].iloc[0]
    scores = [
        record["scores"]["eng_Latn"]["accuracy"] - record["scores"]["deu_Latn"]["accuracy"]
        for record in records
        if record["method"]["name"] == "prefix_tuning"
    ]
    assert row["gap"] == pytest.approx(np.mean(scores))
    examples = read_examples(folders(found, three.folder))
    syntactic = gaps[gaps["distance"] == "syntactic"].set_index("language")["x"]
    bias = source_bias(examples, (1 - syntactic).to_dict())
    slopes = drawn["similarity"].table
    assert list(slopes["method"]) == list(TITLES.values())
    assert list(slopes["slope"]) == pytest.approx(list(bias.slopes["slope"]))
    assert list(slopes["family_low"]) == pytest.approx(list(bias.slopes["family_low"]))


def test_map_learning_and_cost_by_hand(three: Drawn) -> None:
    drawn = three.figures
    places = drawn["map"].table.set_index("language")
    assert set(places.index) == set(CODES)
    assert places["class"].between(1, 6).all()
    ordered = places.sort_values("score")
    assert ordered["class"].is_monotonic_increasing
    learning = drawn["learning"].table
    own = learning[(learning["method"] == "LoRA") & (learning["seed"] == 1)]
    assert list(own["loss"].dropna()) == [5, 3, pytest.approx(7 / 3), 2]
    assert list(own["dev"].dropna()) == [0.75]
    cost = drawn["cost"].table.set_index("method")
    assert cost.loc["LoRA", "parameters"] == 500
    assert cost.loc["LoRA", "training_seconds"] == 4
    assert cost.loc["LoRA", "scoring_seconds"] == 8.5
    assert cost.loc["LoRA", "memory_mib"] == 800
    assert cost.loc["No adaptation", "seconds"] == 8


def test_costs_and_logs_of_the_analysis(study: Study, tmp_path: Path) -> None:
    found = study(THREE, seeds=(0, 2))
    records = [run.record for setting in found for run in setting.runs]
    runs = run_costs(records)
    others = [values["accuracy"] for code, values in records[1]["scores"].items()
              if code != "eng_Latn"]  # fmt: skip
    assert runs.loc[1, "score"] == pytest.approx(np.mean(others))
    assert runs.loc[1, "gap"] == pytest.approx(runs.loc[1, "source"] - np.mean(others))
    means = method_costs(records).set_index("method")
    lora = runs[runs["method"] == "lora"]["score"].to_numpy()
    assert means.loc["lora", "seeds"] == 2
    assert means.loc["lora", "score_sd"] == pytest.approx(abs(lora[0] - lora[1]) / 2**0.5)
    assert np.isnan(means.loc["none", "score_sd"])
    # Four steps in two stretches: means of 4 and 2, of 4/3 and 1, in the middle of each.
    log = learning_curves(folders(found, tmp_path), bins=2)
    own = log[(log["method"] == "lora") & (log["seed"] == 0)]
    assert list(own["step"]) == [1.5, 3.5, 4]
    assert list(own["loss"].dropna()) == [3, pytest.approx(7 / 6)]


def test_a_line_is_that_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    x, y = rng.random(20), rng.random(20)
    line = straight_line(list(x), list(y))
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    assert line.slope == pytest.approx(fit.params[1])
    assert (line.low, line.high) == pytest.approx(tuple(fit.conf_int()[1]))
    assert line.p == pytest.approx(fit.pvalues[1])
    expected = fit.get_prediction(sm.add_constant(line.band["x"].to_numpy())).summary_frame()
    assert line.band["y"].to_numpy() == pytest.approx(expected["mean"].to_numpy())
    assert line.band["low"].to_numpy() == pytest.approx(expected["mean_ci_lower"].to_numpy())
    with pytest.raises(ValueError, match="three points at two places"):
        straight_line([1, 1, 1], [0, 1, 2])


def test_equal_earth_is_that_of_its_authors() -> None:
    # Savric, Patterson and Jenny 2018: the map is 2.05458 times as wide as it is high.
    x, y = equal_earth([0, 90, 0], [180, 0, 0])
    assert x[0] / y[1] == pytest.approx(2.05458, abs=1e-5)
    assert (x[2], y[2]) == (0, 0)
    edges = score_classes(np.array([0.31, 0.42, 0.78]))
    assert list(edges) == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def test_land_is_where_people_live() -> None:
    def inside(latitude: float, longitude: float) -> bool:
        return sum(Path2D(ring).contains_point((longitude, latitude)) for ring in land()) % 2 == 1

    cities = [(48.9, 2.4), (-1.3, 36.8), (30.0, 31.2), (28.6, 77.2), (39.9, 116.4), (-15.8, -47.9)]
    cities += [(39.7, -105.0), (-23.7, 133.9), (59.9, 10.8), (-18.9, 47.5)]
    assert all(inside(*city) for city in cities)
    # The three oceans, the Mediterranean, and the Caspian Sea, which land surrounds.
    seas = [(30, -45), (0, -140), (-20, 80), (35, 18), (42.0, 50.5)]
    assert not any(inside(*sea) for sea in seas)
    # A filled path leaves out what runs the other way round.
    area = [float(np.sum(np.diff(np.append(r[:, 0], r[0, 0])) * r[:, 1])) for r in land()]
    turns = [a > 0 for a in area]
    assert turns.count(turns[0]) > len(turns) - 5
    caspian = next(r for r in land() if Path2D(r).contains_point((50.5, 42.0)) and len(r) < 60)
    assert Path2D(caspian).contains_point((50.5, 42.0))
    around = next(n for n, r in enumerate(land()) if r is caspian)
    assert turns[around] != turns[0]
    points = np.concatenate(land())
    assert np.abs(points[:, 0]).max() <= 180
    assert np.abs(points[:, 1]).max() <= 90


def test_the_map_has_land_below_all_else(three: Drawn) -> None:
    root = ET.fromstring(three.figures["map"].svg)
    filled = [
        place
        for place, element in enumerate(root.iter())
        if "var(--land" in element.get("style", "") and element.get("d", "").count("M") > 50
    ]
    assert len(filled) == 1
    text = next(p for p, element in enumerate(root.iter()) if element.tag == f"{{{SVG}}}text")
    assert filled[0] < text


# Sweeps ------------------------------------------------------------------------------------------


def test_sweeps_over_length_and_layers(tmp_path: Path) -> None:
    runs = []
    for length in (5, 10, 40):
        for layers in ("last:2", "last:4"):
            for seed in (0, 1):
                options = {"length": length, "layers": layers}
                record = write_run(
                    tmp_path, "prefix_tuning", seed, 0.4 + length / 100, options=options
                )
                keys = {"method.length": length, "method.layers": layers}
                runs.append(LabelledRun({**keys, "seed": seed}, record))
    found = settings(runs)
    drawn = {figure.name: figure for figure in figures(found, (), tmp_path)}
    table = drawn["made-nano-by-method-length"].table
    assert list(table["x"]) == [5, 10, 40] * 2
    assert list(table["line"].unique()) == [
        "Prefix tuning, layers last:2",
        "Prefix tuning, layers last:4",
    ]
    scores = [
        np.mean([values["accuracy"] for code, values in run.record["scores"].items()
                 if code != "eng_Latn"])
        for run in runs
        if (run.labels["method.length"], run.labels["method.layers"]) == (40, "last:2")
    ]  # fmt: skip
    assert table.loc[2, "score"] == pytest.approx(np.mean(scores))
    assert list(drawn["made-nano-by-method-layers"].table["x"]) == [2, 4] * 3
    assert "A doubling brings" in drawn["made-nano-by-method-length"].caption


def test_what_is_no_axis_is_not_swept(study: Study) -> None:
    found = study({"prefix_tuning": 0.5})
    one = found[0]

    def with_values(*values: Any) -> list[Setting]:
        return [
            Setting({"method.layers": value}, (), 1, one.runs, 0.5, 0.5, 0.5, None)
            for value in values
        ]

    assert [s.key for s in sweeps(with_values("last:2", "last:4"))] == ["method.layers"]
    assert sweeps(with_values("last:2", "first:4")) == []
    assert sweeps(with_values("all", "upper")) == []
    assert sweeps(with_values(True, False)) == []
    assert number("every:3") == 3


def test_scaling_needs_two_sizes(study: Study, tmp_path: Path) -> None:
    runs = [
        LabelledRun(
            {"model.name": model, "method.name": method, "seed": seed},
            write_run(tmp_path, method, seed, share, model=model, size=size),
        )
        for model, size, share in (("a/small", 10**6, 0.5), ("a/large", 10**7, 0.8))
        for method in ("none", "lora")
        for seed in ((0, 1) if method == "lora" else (0,))
    ]
    (figure,) = scaling_figures(settings(runs))
    assert figure.name == "made-scaling"
    assert list(figure.table["line"]) == ["No adaptation"] * 2 + ["LoRA"] * 2
    assert list(figure.table["x"]) == [10**6, 10**7] * 2
    assert list(figure.table["seeds"]) == [1, 1, 2, 2]
    assert scaling_figures(study(THREE)) == []


def test_sizes_for_which_other_rates_were_selected_are_one_line(tmp_path: Path) -> None:
    runs = []
    for size, best in ((10**6, 0.1), (10**7, 0.3)):
        for rate in (0.1, 0.3):
            record = write_run(tmp_path, "lora", 0, 0.5 + rate, size=size, options={"rate": rate})
            record["training"]["best_dev_score"] = 0.9 if rate == best else 0.5
            labels = {"model.name": f"a/{size}", "train.learning_rate": rate, "seed": 0}
            runs.append(LabelledRun(labels, record))
    found = settings(runs, ("train.learning_rate",))
    assert [setting.labels["train.learning_rate"] for setting in found] == [0.1, 0.3]
    (figure,) = scaling_figures(found)
    assert list(figure.table["line"]) == ["LoRA"] * 2
    assert list(figure.table["x"]) == [10**6, 10**7]


def test_lines_are_named_by_what_their_method_varies(tmp_path: Path) -> None:
    runs = []
    for method, key, value in (("prefix_tuning", "length", 8), ("lora", "rank", 4)):
        for rate in (0.1, 0.2):
            options = {key: value, "rate": rate}
            record = write_run(tmp_path, method, 0, 0.4 + rate, options=options)
            record["learning_rate"] = rate
            labels = {"method.name": method, f"method.{key}": value, "train.learning_rate": rate}
            runs.append(LabelledRun(labels | {"seed": 0}, record))
    found = {figure.name: figure for figure in figures(settings(runs), (), tmp_path)}
    table = found["made-nano-by-train-learning-rate"].table
    assert list(table["line"]) == ["Prefix tuning"] * 2 + ["LoRA"] * 2


def test_numbers_on_axes() -> None:
    assert [short_number(v) for v in (20, 23_040, 5.6e8, 1.7e9, 3e-5)] == [
        "20", "23k", "560M", "1.7B", "3e-05",
    ]  # fmt: skip
    assert log_ticks(1000, 10**7) == [10.0**n for n in range(3, 8)]
    assert log_ticks(9000, 24000) == [10000, 20000]
    for low, high in ((3.5, 5.5), (750, 830), (1, 1)):
        ticks = log_ticks(low, high)
        assert 1 <= len(ticks) <= 5
        assert all(low / 1.1 <= tick <= high * 1.1 for tick in ticks)


# SVG ---------------------------------------------------------------------------------------------


def test_svg_can_stand_in_a_page(three: Drawn) -> None:
    ids: list[str] = []
    for name, figure in three.figures.items():
        root = ET.fromstring(figure.svg)
        assert root.tag == f"{{{SVG}}}svg"
        assert root.get("role") == "img"
        assert root.get("width") == "100%"
        assert "height" not in root.attrib
        title, desc = root.find(f"{{{SVG}}}title"), root.find(f"{{{SVG}}}desc")
        assert title is not None
        assert title.text == figure.title
        assert desc is not None
        assert desc.text == figure.caption
        assert root.get("aria-labelledby") == title.get("id")
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        ids += own
        links = re.findall(r'(?:href="|url\()#([^")]+)', figure.svg)
        assert set(links) <= set(own)
        assert all(found.startswith(f"made-nano-{name}-") for found in own)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", figure.svg)
        assert "<style" not in figure.svg
        assert "<image" not in figure.svg
        texts = " ".join("".join(e.itertext()) for e in root.iter(f"{{{SVG}}}text"))
        assert texts.strip()
        # Every colour is a variable with its fallback.
        for style in (e.get("style", "") for e in root.iter()):
            for colour in re.findall(r"#[0-9a-f]{6}", style):
                assert f"var({VARIABLES[colour]}, {colour})" in style
    assert len(ids) == len(set(ids))


def test_figures_are_the_same_every_time(three: Drawn) -> None:
    again = figures(three.found, (), three.folder)
    for first, second in zip(three.figures.values(), again, strict=True):
        assert first.svg == second.svg
        pd.testing.assert_frame_equal(first.table, second.table)
    # Files are, too, whatever was written before.
    first, second = three.figures["wins"], again[2]
    assert first.png() == second.png()
    assert first.standalone() == second.standalone()


def test_files_have_the_light_colours(three: Drawn, tmp_path: Path) -> None:
    found, drawn = three.found, three.figures
    out = tmp_path / "report"
    chosen = [drawn["wins"], drawn["differences"]]
    made = tables(found, (), three.folder)
    paths = write_exports(chosen, made, out)
    assert sorted(out.iterdir()) == sorted(paths)
    assert [path.name for path in paths[:2]] == ["made-nano-wins.svg", "made-nano-wins.png"]
    svg = (out / "made-nano-wins.svg").read_text()
    assert "var(" not in svg
    assert 'height="100%"' in svg  # the paper
    image = Image.open(out / "made-nano-differences.png").convert("RGB")
    assert image.getpixel((0, 0)) == (255, 255, 255)
    colours = {colour for _, colour in image.getcolors(1 << 24)}
    assert (0x00, 0x72, 0xB2) in colours
    with pytest.raises(ValueError, match="come twice: made-nano-wins"):
        write_exports([chosen[0], chosen[0]], [], out)


# Tables ------------------------------------------------------------------------------------------


def test_tables_have_the_numbers(three: Drawn) -> None:
    found = three.found
    made = {
        table.name.removeprefix("made-nano-"): table for table in tables(found, (), three.folder)
    }
    assert list(made) == ["scores", "groups", "differences", "differences-by-language", "methods"]
    scores = made["scores"].table.set_index("language")
    own = [run.record["scores"]["deu_Latn"]["accuracy"] for run in found[2].runs]
    assert scores.loc["deu_Latn", "LoRA: score"] == pytest.approx(np.mean(own))
    assert scores.loc["deu_Latn", "LoRA: seed_sd"] == pytest.approx(np.std(own, ddof=1))
    assert next(iter(scores.index)) == "eng_Latn"
    text = made["scores"].latex
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    (line,) = [line for line in text.splitlines() if line.startswith("German ")]
    mean, spread = np.mean(own), np.std(own, ddof=1)
    assert rf"\textbf{{{mean:.3f} $\pm$ {spread:.3f}}}" in line
    assert line.count(r"\textbf") == 1
    methods = made["methods"].latex
    assert "Prefix tuning & 2 & 2,000 & 4 & 8 & 2300 &" in methods
    difference = made["differences"].latex
    assert r"$p$ (Holm)" in difference
    assert "95\\% interval" in difference
    assert re.search(r"\$\[[+-]0\.\d{3},\\ [+-]0\.\d{3}\]\$", difference)


def test_latex_prints_what_names_say() -> None:
    shown = pd.DataFrame({"Method": [r"a_b & 50% $x$ #1 {c} ~ ^ \input{x}"], "A_1": ["0.500"]})
    text = latex(shown, "50 % of $x_1$", "name", text=("Method",))
    cell = next(line for line in text.splitlines() if "0.500" in line)
    assert cell == (
        r"a\_b \& 50\% \$x\$ \#1 \{c\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{}input\{x\} & 0.500 \\"
    )
    assert r"\caption{50 \% of \$x\_1\$}" in text
    assert r"Method & A\_1 \\" in text
    long = latex(pd.concat([shown] * 60), "c", "n", text=("Method",))
    assert r"\begin{longtable}" in long


# What users have ---------------------------------------------------------------------------------


def test_hostile_names(study: Study, tmp_path: Path) -> None:
    hostile = "_$x_1$<script>alert(1)</script>\\frac{\x00 & \u202e#222222 日本"
    found = study({"none": 0.4, "lora": 0.8}, title=hostile, model="/home/me/<b>&\"'../my $model$")
    drawn = figures(found, (), tmp_path)
    assert len(drawn) > 5
    for figure in drawn:
        assert re.fullmatch(r"[A-Za-z0-9_-]+", figure.name)
        root = ET.fromstring(figure.svg)
        assert not [e for e in root.iter() if e.tag.endswith("script")]
    wins = next(figure for figure in drawn if figure.name.endswith("-wins"))
    texts = ["".join(e.itertext()) for e in ET.fromstring(wins.svg).iter(f"{{{SVG}}}text")]
    assert any("_$x_1$<script>" in text for text in texts)
    legend = next(figure for figure in drawn if figure.name.endswith("-cost"))
    texts = ["".join(e.itertext()) for e in ET.fromstring(legend.svg).iter(f"{{{SVG}}}text")]
    assert sum("<script>" in text for text in texts) == 2  # the underscore hides neither
    made = tables(found, (), tmp_path)
    paths = write_exports(drawn, made, tmp_path / "out")
    assert all(path.parent == tmp_path / "out" for path in paths)
    for table in made:
        assert r"\frac" not in table.latex
        read = list(csv.reader(io.StringIO(table.table.to_csv(index=False))))
        assert len({len(row) for row in read}) == 1


@pytest.mark.parametrize(
    ("methods", "codes", "seeds", "absent", "present"),
    [
        # One method: nothing to compare.
        ({"lora": 0.7}, CODES, (0, 1), {"differences", "wins", "cost"}, {"map", "learning"}),
        # The source language alone.
        (
            {"none": 0.5, "lora": 0.7},
            CODES[:1],
            (0,),
            {"differences", "wins", "map", "family", "similarity", "gap-by-distance", "cost"},
            {"learning"},
        ),
        # One target language.
        ({"none": 0.5, "lora": 0.7}, CODES[:2], (0,), {"map", "family"}, {"differences", "wins"}),
        # A family and a script for each language.
        (
            {"none": 0.5, "lora": 0.7},
            ("eng_Latn", "deu_Latn", "arb_Arab"),
            (0,),
            {"family", "script"},
            {"differences", "cost"},
        ),
        # Everything is right: a constant score.
        (
            {"none": None, "lora": None},
            CODES,
            (0, 1),
            {"map", "gap-by-distance", "similarity", "cost", "differences", "wins"},
            {"learning", "family"},
        ),
        # Only the untouched model.
        ({"none": 0.5}, CODES[:4], (0,), {"learning", "cost", "wins", "map"}, {"script"}),
    ],
)
def test_what_data_does_not_support_is_left_out(
    study: Study,
    tmp_path: Path,
    methods: Mapping[str, float | None],
    codes: Sequence[str],
    seeds: Sequence[int],
    absent: set[str],
    present: set[str],
) -> None:
    found = study(methods, seeds, codes=codes)
    names = {figure.name.removeprefix("made-nano-") for figure in figures(found, (), tmp_path)}
    assert not names & absent
    assert present <= names
    assert [table.latex for table in tables(found, (), tmp_path)]


def test_numbers_of_an_axis_do_not_stand_on_one_another() -> None:
    assert spaced([3, 11.8, 12, 12.2], span=12.2 / 3) == [3, 11.8]
    assert spaced([25, 100, 1000, 10_000], span=10_000 / 25) == [25, 100, 1000, 10_000]


def test_captions_speak_of_what_is_drawn(study: Study, tmp_path: Path) -> None:
    def captions(seeds: Sequence[int], codes: Sequence[str]) -> dict[str, str]:
        found = figures(study(THREE, seeds, codes=codes), (), tmp_path)
        return {figure.name.removeprefix("made-nano-"): figure.caption for figure in found}

    few, many = captions((0,), CODES[:3]), captions((0, 1), CODES)
    for caption in (few["differences"], many["differences"]):
        assert "with other test examples" in caption
    for words in ("in other languages", "after another training"):
        assert words not in few["differences"]
        assert words in many["differences"]
    assert "black diamond" not in few["differences-by-language"]
    assert "black diamond" in many["differences-by-language"]


def test_long_names_are_broken_not_cut(study: Study, tmp_path: Path) -> None:
    found = study(THREE, (0, 1))
    name = "Prefix tuning, layers last:4, length 16"
    for setting in found:
        for run in setting.runs:
            if run.record["method"]["name"] == "prefix_tuning":
                run.record["method"]["title"] = name
    for figure in figures(found, (), tmp_path):
        root = ET.fromstring(figure.svg)
        lines = ["".join(e.itertext()).strip() for e in root.iter(f"{{{SVG}}}text")]
        shown = [line for line in lines if line.startswith("Prefix tuning")]
        assert all(line in (name, "Prefix tuning, layers") for line in shown), figure.name


def test_missing_predictions_leave_the_rest(study: Study, tmp_path: Path) -> None:
    found = study(THREE)
    lacks = tmp_path / found[1].runs[0].record["id"] / "predictions" / "deu_Latn.jsonl"
    lacks.unlink()
    said: list[str] = []
    drawn = figures(found, (), tmp_path, say=said.append)
    names = {figure.name.removeprefix("made-nano-") for figure in drawn}
    assert "no predictions for deu_Latn" in said[0]
    assert not names & {"differences", "wins", "similarity"}
    assert {"map", "family", "cost"} <= names


def test_languages_that_a_run_lacks_are_left_out_of_means(study: Study, tmp_path: Path) -> None:
    wide = study({"none": 0.5}, (0,))
    narrow = study({"lora": 0.8}, (0,), codes=CODES[:7])
    material = gather([*wide, *narrow], (), tmp_path)
    assert material.targets == 6
    drawn = {figure.name: figure for figure in figures([], (), tmp_path, material=material)}
    family = drawn["made-nano-family"].table
    assert family.groupby("method")["languages"].sum().to_dict() == {
        "No adaptation": 6,
        "LoRA": 6,
    }


def test_of_many_settings_the_best_on_dev_is_compared(tmp_path: Path) -> None:
    runs = []
    for length in range(1, 10):
        record = write_run(tmp_path, "prefix_tuning", 0, 0.5, options={"length": length})
        record["training"]["best_dev_score"] = 0.9 if length == 4 else 0.5
        runs.append(LabelledRun({"method.length": length}, record))
    record = write_run(tmp_path, "none", 0, 0.4, options={"length": 0})
    runs.append(LabelledRun({"method.name": "none"}, record))
    material = gather(settings(runs), (), tmp_path)
    assert [record["method"]["length"] for record in material.records] == [4, 0]
    assert material.left_out == 8
    assert "Of 10 settings the best of each method on English dev" in material.omission()


def test_no_torch_is_imported() -> None:
    import subprocess

    code = "import sys, polyprefix.report.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys, polyprefix.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
