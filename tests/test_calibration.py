"""Calibrated scores of choices: what is true of them, and where a run shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from polyprefix.analysis import compare, group_scores, language_scores
from polyprefix.config import RunConfig
from polyprefix.evaluation.calibration import calibrate
from polyprefix.evaluation.choices import summarise_choices
from polyprefix.report import settings_by_method, show_comparison, show_record, write_page
from polyprefix.results import RunFolder
from polyprefix.study import run
from polyprefix.tasks import ChoiceTask, get_task

SEEDS = pytest.mark.parametrize("seed", range(20))


def draw(seed: int) -> tuple[np.random.Generator, NDArray[np.float64]]:
    """Log-probabilities of up to 60 examples and 2 to 7 choices, those of whole texts too."""
    source = np.random.default_rng(seed)
    shape = (int(source.integers(1, 60)), int(source.integers(2, 8)))
    logprobs = source.normal(scale=3, size=shape) - source.uniform(0, 900, size=(shape[0], 1))
    return source, logprobs


def shares(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def test_by_hand() -> None:
    # Means 0.75 and 0.25; so 0.9 / 0.75, 0.1 / 0.25 and 0.6 / 0.75, 0.4 / 0.25.
    found = calibrate(np.log([[0.9, 0.1], [0.6, 0.4]]).tolist())
    assert np.exp(found) == pytest.approx(np.array([[1.2, 0.4], [0.8, 1.6]]))
    # Both examples were answered with the first choice; now each has another.
    assert found.argmax(axis=1).tolist() == [0, 1]
    assert calibrate([[-3.0, -1.0, -700.0]]).tolist() == [[0.0, 0.0, 0.0]]


@SEEDS
def test_every_choice_has_the_same_mean(seed: int) -> None:
    _, logprobs = draw(seed)
    found = calibrate(logprobs.tolist())
    assert np.exp(found).mean(axis=0) == pytest.approx(np.ones(logprobs.shape[1]))
    # And an example's choices stand to each other as before, but for one factor a choice.
    factor = np.exp(found) / shares(logprobs)
    assert factor == pytest.approx(np.broadcast_to(factor[0], factor.shape))


@SEEDS
def test_what_changes_nothing(seed: int) -> None:
    source, logprobs = draw(seed)
    found = calibrate(logprobs.tolist())
    moved = logprobs + source.normal(scale=50, size=(len(logprobs), 1))
    assert calibrate(moved.tolist()) == pytest.approx(found)
    order = source.permutation(logprobs.shape[1])
    assert calibrate(logprobs[:, order].tolist()) == pytest.approx(found[:, order])
    examples = source.permutation(len(logprobs))
    assert calibrate(logprobs[examples].tolist()) == pytest.approx(found[examples])


@SEEDS
def test_a_bias_moves_all_margins_alike_and_by_no_more_than_its_partition_sums_differ(
    seed: int,
) -> None:
    source, logprobs = draw(seed)
    bias = source.normal(scale=2, size=logprobs.shape[1])
    before, after = calibrate(logprobs.tolist()), calibrate((logprobs + bias).tolist())
    # A margin: of a choice over the first one.
    change = (after - after[:, :1]) - (before - before[:, :1])
    assert change == pytest.approx(np.broadcast_to(change[0], change.shape), abs=1e-9)
    sums = shares(logprobs) @ np.exp(bias)
    spread = np.log(sums.max() / sums.min())
    assert np.abs(change).max() <= spread + 1e-9
    assert spread <= bias.max() - bias.min() + 1e-9
    # Answers can change only where the margin was smaller than that.
    first, second = np.sort(before, axis=1)[:, ::-1][:, :2].T
    same = before.argmax(axis=1) == after.argmax(axis=1)
    assert same[first - second > spread + 1e-9].all()
    # Where the examples agree, nothing moves.
    agreed = np.repeat(logprobs[:1], 4, axis=0)
    assert calibrate((agreed + bias).tolist()) == pytest.approx(np.zeros(agreed.shape), abs=1e-9)


@pytest.mark.parametrize(("strength", "raw", "calibrated"), [(2, 0.7, 0.82), (3, 0.5, 0.8)])
def test_a_preference_for_one_label_costs_a_raw_answer_more_than_a_calibrated_one(
    strength: float, raw: float, calibrated: float
) -> None:
    source = np.random.default_rng(0)
    labels = np.arange(600) % 3
    logprobs = source.normal(size=(600, 3)) + 2 * np.eye(3)[labels]
    biased = logprobs + np.array([strength, 0.0, 0.0])

    def right(scores: NDArray[np.float64]) -> float:
        return float((scores.argmax(axis=1) == labels).mean())

    assert right(logprobs) == pytest.approx(right(calibrate(logprobs.tolist())), abs=0.01)
    assert right(logprobs) > 0.85
    assert right(biased) < raw
    assert right(calibrate(biased.tolist())) > calibrated


@pytest.mark.parametrize(
    ("logprobs", "told"),
    [
        ([], "needs examples"),
        ([[-1.0, -2.0], [-1.0]], "the same number of choices"),
        ([[-1.0, float("-inf")]], "finite"),
        ([[-1.0, float("nan")]], "finite"),
    ],
)
def test_what_cannot_be_calibrated(logprobs: list[list[float]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        calibrate(logprobs)


# In a run ----------------------------------------------------------------------------------------


def test_both_scores_are_summarised_from_their_own_answers() -> None:
    task = get_task("xnli")
    assert isinstance(task, ChoiceTask)
    answers = [  # label, raw, calibrated
        ("entailment", "neutral", "entailment"),
        ("neutral", "neutral", "contradiction"),
        ("contradiction", "neutral", "contradiction"),
    ]
    keys = ("label", "prediction", "prediction_calibrated")
    rows = [{**dict(zip(keys, given, strict=True)), "logprobs": [-1.0] * 3} for given in answers]
    scores = summarise_choices(task, rows)
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["accuracy_calibrated"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((0 + 1 / 2 + 0) / 3)
    assert scores["macro_f1_calibrated"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert scores["accuracy_calibrated_stderr"] == pytest.approx((2 / 9 / 2) ** 0.5)
    assert "macro_f1_calibrated_stderr" in scores


@pytest.fixture(scope="module")
def record(
    tiny_folder: Path, sib_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Of an untrained model, which prefers some labels to others."""
    values = {
        "model": {"name": str(tiny_folder)},
        "method": {"name": "none"},
        "task": {"name": "sib200", "data": str(sib_folder)},
        "output": str(tmp_path_factory.mktemp("runs")),
    }
    return run(RunConfig.read(values))


def test_a_run_has_both_for_every_language(record: dict[str, Any]) -> None:
    folder = RunFolder(Path(record["config"]["output"]) / record["id"])
    labels = record["task"]["labels"]
    for code, scores in record["scores"].items():
        rows = folder.predictions(code) or []
        assert len(rows) == 21
        for name in ("prediction", "prediction_calibrated"):
            column = "accuracy" + name.removeprefix("prediction")
            assert scores[column] == sum(row[name] == row["label"] for row in rows) / 21
        # Of all examples of the language together, and of no others.
        found = calibrate([row["logprobs"] for row in rows]).argmax(axis=1)
        assert [row["prediction_calibrated"] for row in rows] == [labels[i] for i in found]
        raw = {row["prediction"] for row in rows}
        assert len(raw) < len({row["prediction_calibrated"] for row in rows})
    assert record["task"]["headline"] == "accuracy"


def test_what_is_shown(record: dict[str, Any], tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    show_record(record, console)
    text = console.export_text()
    rows = language_scores(record)
    source, *targets = rows
    assert [row.calibrated for row in rows] == [
        record["scores"][row.language.code]["accuracy_calibrated"] for row in rows
    ]
    mean = sum(row.calibrated or 0.0 for row in targets) / len(targets)
    assert text.count("calibrated") == 5  # languages, families, scripts, and twice in the sentence
    assert f"English {source.score:.3f} (calibrated {source.calibrated:.3f}); mean of 2" in text
    assert f"{sum(row.score for row in targets) / 2:.3f} (calibrated {mean:.3f})" in text
    for row in rows:
        [line] = [line for line in text.splitlines() if row.language.code in line]
        shown = [f"{value:.3f}" for value in (row.score, row.stderr, row.calibrated or 0.0)]
        assert " ".join(shown) in " ".join(line.split())
    [group, *_] = group_scores(rows, lambda language: language.script)
    assert group.calibrated == pytest.approx(mean)

    comparison = compare([record])
    assert comparison.runs[0].calibrated == pytest.approx(mean)
    show_comparison(comparison, console)
    [line] = [line for line in console.export_text().splitlines() if "calibrated" in line]
    assert line.split() == ["calibrated", f"{mean:.3f}"]
    found = settings_by_method([record])
    write_page(tmp_path / "page.html", found, tmp_path, title="One run")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"<td>{mean:.3f}</td>" in page
    assert f"; calibrated {source.calibrated:.3f}" in page


def test_without_calibrated_scores_there_is_no_column(
    record: dict[str, Any], tmp_path: Path
) -> None:
    """Written answers have none, and the best is never taken for the raw score."""
    scores = {
        code: {name: v for name, v in values.items() if "calibrated" not in name}
        for code, values in record["scores"].items()
    }
    other = record | {"scores": scores}
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    show_record(other, console)
    show_comparison(compare([other]), console)
    found = settings_by_method([other])
    write_page(tmp_path / "page.html", found, tmp_path, title="One run")
    assert "alibrated" not in console.export_text()
    assert "alibrated" not in (tmp_path / "page.html").read_text(encoding="utf-8")
