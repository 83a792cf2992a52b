"""From runs to tables, and what is made of them: real runs of a tiny model, and written ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from polyprefix.analysis import (
    compare_languages,
    compare_means,
    compare_seeds,
    curve,
    doubling_trend,
    group_means,
    language_means,
    method_labels,
    pool_languages,
    read_examples,
    score_table,
    setting,
    win_matrix,
)
from polyprefix.config import RunConfig, RunError
from polyprefix.results import RunFolder
from polyprefix.study import run

CODES = ("eng_Latn", "deu_Latn", "swh_Latn")


# Runs of a tiny model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(
    tiny_folder: Path, sib_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Two methods and two seeds, one method that trains nothing, and one other length."""
    output = tmp_path_factory.mktemp("runs")
    found = []
    for method, seed in [
        ({"name": "lora"}, 1),
        ({"name": "lora"}, 0),
        ({"name": "prefix_tuning", "length": 4}, 0),
        ({"name": "prefix_tuning", "length": 4}, 1),
        ({"name": "prefix_tuning", "length": 2}, 0),
        ({"name": "none"}, 0),
    ]:
        values = {
            "model": {"name": str(tiny_folder)},
            "method": method,
            "task": {"name": "sib200", "data": str(sib_folder)},
            "train": {"steps": 4, "batch_size": 8},
            "seed": seed,
            "output": str(output),
        }
        record = run(RunConfig.read(values))
        found.append(output / record["id"])
    return found


def test_real_runs_become_examples_and_tables(folders: list[Path]) -> None:
    records = [RunFolder(folder).record() for folder in folders]
    examples = read_examples(folders)
    names = ("lora", "prefix_tuning length=4", "prefix_tuning length=2", "none")
    assert examples.methods == names
    assert examples.seeds == ((0, 1), (0, 1), (0,), (0,))
    assert examples.trained == (True, True, True, False)
    assert tuple(examples.ids) == CODES
    assert examples.parallel
    assert (examples.source, examples.score) == ("eng_Latn", "accuracy")
    table = score_table(records)
    assert len(table) == 6 * 3
    for code in CODES:
        for name in names:
            rows = table[(table["method"] == name) & (table["language"] == code)]
            assert examples.scores(name, code).mean() == pytest.approx(rows["score"].mean())
    assert table["seen"].isna().all()  # of a folder's model nothing is known
    assert set(table["family"]) == {"Indo-European", "Atlantic-Congo"}


def test_records_say_how_long_texts_are(folders: list[Path], sib_folder: Path) -> None:
    from transformers import AutoTokenizer

    record = RunFolder(folders[0]).record()
    tokenizer = AutoTokenizer.from_pretrained(record["model"]["name"])
    for code, counts in record["task"]["texts"].items():
        lines = (sib_folder / "data/annotated" / code / "test.tsv").read_text().splitlines()[1:]
        texts = [line.split("\t")[2] for line in lines]
        assert counts["examples"] == len(texts) == 21
        assert counts["words"] == sum(len(text.split()) for text in texts)
        assert counts["characters"] == sum(map(len, texts))
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        assert counts["tokens"] == sum(map(len, ids))
    rows = score_table([record]).set_index("language")
    texts = record["task"]["texts"]
    assert rows["premium"]["eng_Latn"] == 1
    assert rows["premium"]["swh_Latn"] == pytest.approx(
        texts["swh_Latn"]["tokens"] / texts["eng_Latn"]["tokens"]
    )
    assert rows["tokens_per_word"]["deu_Latn"] == pytest.approx(
        texts["deu_Latn"]["tokens"] / texts["deu_Latn"]["words"]
    )


def test_a_record_of_before_lacks_lengths(folders: list[Path]) -> None:
    record = RunFolder(folders[0]).record()
    del record["task"]["texts"], record["task"]["parallel"]
    assert score_table([record])["premium"].isna().all()


def test_a_curve_of_real_runs(folders: list[Path]) -> None:
    records = [RunFolder(folder).record() for folder in folders]
    prefix = [record for record in records if record["method"]["name"] == "prefix_tuning"]
    found = curve(prefix, "method.length")
    assert list(found["x"]) == [2, 4]
    assert list(found["seeds"]) == [1, 2]
    assert list(found["languages"]) == [2, 2]
    scores = [
        np.mean([record["scores"][code]["accuracy"] for code in CODES[1:]])
        for record in prefix
        if record["method"]["length"] == 4
    ]
    assert found["score"][1] == pytest.approx(np.mean(scores))
    assert np.isnan(found["low"][0])
    with pytest.raises(RunError, match=r"differ in more than train\.learning_rate and the seed"):
        curve(prefix, "train.learning_rate")
    with pytest.raises(RunError, match=r"no key 'method.lenght'; 'method' has .*length"):
        curve(prefix, "method.lenght")


def test_unfinished_runs_are_refused(folders: list[Path], tmp_path: Path) -> None:
    record = RunFolder(folders[0]).record()
    RunFolder(tmp_path / "half").write_record(record | {"status": "running"})
    with pytest.raises(RunError, match="is running: run it to its end first"):
        read_examples([folders[0], tmp_path / "half"])
    with pytest.raises(RunError, match="is there 2 times"):
        read_examples([folders[0], folders[0]])
    with pytest.raises(RunError, match=r"no runs of method 'lroa'; there are lora"):
        read_examples(folders[:1]).scores("lroa", "eng_Latn")
    with pytest.raises(RunError, match="'macro_f1' is not a score of single examples"):
        read_examples(folders[:1], score="macro_f1")


# Written runs ------------------------------------------------------------------------------------

Scores = Mapping[str, np.ndarray]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A finished run with given scores of examples by language."""

    def folder(
        method: str,
        scores: Scores,
        *,
        seed: int = 0,
        answers: bool = False,
        ids: Mapping[str, list[str]] | None = None,
        gold: str = "yes",
        options: Mapping[str, Any] | None = None,
        model: str = "somewhere/model",
        parameters: int = 1000,
    ) -> Path:
        headline = "f1" if answers else "accuracy"
        options = dict(options or {})
        name = f"{method}-{seed}-{parameters}-{gold}-" + "-".join(map(str, options.values()))
        run = RunFolder(tmp_path / name)
        means = {code: float(values.mean()) for code, values in scores.items()}
        run.write_record(
            {
                "id": name,
                "status": "finished",
                "identity": {
                    "model": {"revision": f"{model}@1", "dtype": "float32"},
                    "method": {"name": method, **options},
                    "task": {"name": "made", "languages": list(scores)},
                    "decoding": None,
                    "train": {"learning_rate": 0.01 * 1000 / parameters},
                    "seed": seed,
                },
                "config": {"train": {"steps": 5}},
                "learning_rate": 0.01 * 1000 / parameters,
                "method": {"name": method, "title": method, **options},
                "model": {"name": model, "model_type": "llama", "parameters": parameters},
                "task": {
                    "name": "made",
                    "headline": headline,
                    "source_language": "eng_Latn",
                    "languages": list(scores),
                },
                "trainable_parameters": 0 if method == "none" else 10,
                "scores": {
                    code: {"n": 1, headline: mean, f"{headline}_stderr": 0.01}
                    for code, mean in means.items()
                },
            }
        )
        for code, values in scores.items():
            names = (ids or {}).get(code, [str(i) for i in range(len(values))])
            rows: list[dict[str, Any]] = [
                {"id": name, "answers": [gold], "scores": {"f1": float(value)}}
                if answers
                else {"id": name, "label": gold, "prediction": gold if value else "no"}
                for name, value in zip(names, values, strict=True)
            ]
            run.write_predictions(code, rows)
        return run.path

    return folder


def made(seed: int, share: float, n: int = 80) -> dict[str, np.ndarray]:
    """Right and wrong answers in seven languages, the target languages by ``share`` right."""
    rng = np.random.default_rng(seed)
    codes = ("eng_Latn", "deu_Latn", "fra_Latn", "fin_Latn", "hun_Latn", "tur_Latn", "swh_Latn")
    return {
        code: (rng.random(n) < (0.9 if code == "eng_Latn" else share)).astype(float)
        for code in codes
    }


def test_examples_are_paired_by_their_ids(write: Write) -> None:
    one = write("lora", {"eng_Latn": np.array([1, 0, 1.0])}, ids={"eng_Latn": ["a", "b", "c"]})
    other = write("full", {"eng_Latn": np.array([0, 1.0])}, ids={"eng_Latn": ["c", "a"]})
    examples = read_examples([one, other])
    assert examples.ids["eng_Latn"] == ("a", "c")
    assert list(examples.scores("full", "eng_Latn")) == [1, 0]
    assert list(examples.differences("lora", "full", "eng_Latn")) == [0, 1]
    stranger = write("none", {"eng_Latn": np.array([1.0])}, ids={"eng_Latn": ["z"]})
    with pytest.raises(RunError, match="no example of eng_Latn in common"):
        read_examples([one, stranger])
    forged = write("full", {"eng_Latn": np.array([1.0])}, ids={"eng_Latn": ["a"]}, gold="maybe")
    with pytest.raises(RunError, match=r"right answer to example 'a' .* the runs' data differ"):
        read_examples([one, forged])


def test_columns_of_predictions_are_what_rows_say(write: Write) -> None:
    folder = RunFolder(write("lora", {"eng_Latn": np.array([1, 0, 1.0])}))
    keys = ("id", "label", "prediction")
    rows = folder.predictions("eng_Latn")
    assert rows is not None
    assert folder.prediction_texts("eng_Latn", keys) == [[row[k] for row in rows] for k in keys]
    assert folder.prediction_texts("deu_Latn", keys) is None
    # What is no text, is missing or damaged is left to who reads rows, and says so.
    assert folder.prediction_texts("eng_Latn", ("id", "prediction_calibrated")) is None
    folder.write_predictions("deu_Latn", [{"id": "a", "label": 1, "prediction": 1}])
    assert folder.prediction_texts("deu_Latn", keys) is None
    path = folder.predictions_path("eng_Latn")
    path.write_text(path.read_text() + '{"id": "x", "lab')
    assert folder.prediction_texts("eng_Latn", keys) is None
    with pytest.raises(RunError, match=r"eng_Latn\.jsonl, line 4 is damaged"):
        read_examples([folder.path])


def test_numbers_as_labels_are_counted(write: Write) -> None:
    folder = RunFolder(write("lora", {"eng_Latn": np.array([1, 0, 1.0])}))
    rows = [{"id": str(i), "label": i, "prediction": 1} for i in range(3)]
    folder.write_predictions("eng_Latn", rows)
    assert list(read_examples([folder.path]).scores("lora", "eng_Latn")) == [0, 1, 0]


def test_parallel_languages_are_put_in_the_same_order(write: Write) -> None:
    ids = {"eng_Latn": ["a", "b"], "deu_Latn": ["b", "a"]}
    scores = {"eng_Latn": np.array([1.0, 0]), "deu_Latn": np.array([1.0, 0])}
    examples = read_examples([write("lora", scores, ids=ids)])
    assert examples.parallel
    assert examples.ids["deu_Latn"] == ("a", "b")
    assert list(examples.scores("lora", "deu_Latn")) == [0, 1]


def test_answers_are_compared_by_their_scores(write: Write) -> None:
    rng = np.random.default_rng(0)
    first = {code: rng.random(30) for code in CODES}
    second = {code: rng.random(30) for code in CODES}
    folders = [write("lora", first, answers=True), write("full", second, answers=True)]
    table = compare_languages(read_examples(folders), "lora", "full", resamples=500)
    for code in CODES:
        row = table.loc[code]
        assert row["difference"] == pytest.approx((first[code] - second[code]).mean())
        expected = stats.ttest_rel(first[code], second[code]).pvalue
        assert row["p"] == pytest.approx(expected, abs=0.03)


def test_methods_are_compared_by_language(write: Write) -> None:
    folders = [write("lora", made(seed, 0.7), seed=seed) for seed in (0, 1, 2)]
    folders += [write("full", made(9, 0.5)), write("none", made(10, 0.7))]
    examples = read_examples(folders)
    table = compare_languages(examples, "lora", "full", resamples=2000)
    back = compare_languages(examples, "full", "lora", resamples=2000)
    assert table["difference"].to_numpy() == pytest.approx(-back["difference"].to_numpy())
    assert table["p"].to_numpy() == pytest.approx(back["p"].to_numpy())
    targets = table.loc[examples.targets]
    assert (targets["p_holm"] >= targets["p_bh"]).all()
    assert (targets["p_bh"] >= targets["p"]).all()
    assert table.loc["eng_Latn", "p_holm"] == table.loc["eng_Latn", "p"]
    mean = compare_means(examples, "lora", "full", resamples=2000)
    assert mean.difference == pytest.approx(targets["difference"].mean())
    assert mean.low < mean.difference < mean.high
    assert mean.p < targets["p"].min()  # six languages together say more than one

    wins = win_matrix(examples)
    total = wins.wins + wins.ties + wins.losses
    assert (total.to_numpy() == 6 * (1 - np.eye(3))).all()
    assert (wins.wins.to_numpy() == wins.losses.to_numpy().T).all()
    assert wins.wins.loc["lora", "full"] == (targets["p_holm"] < 0.05).sum() > 0
    assert wins.wins.loc["lora", "none"] == 0
    stricter = win_matrix(examples, across="matrix")
    assert (stricter.tests["p_corrected"] >= wins.tests["p_corrected"] - 1e-12).all()


def test_languages_with_other_examples_are_resampled_by_themselves(write: Write) -> None:
    ids = {code: [f"{code}{i}" for i in range(80)] for code in made(0, 0.5)}
    folders = [write("lora", made(0, 0.7), ids=ids), write("full", made(1, 0.6), ids=ids)]
    examples = read_examples(folders)
    assert not examples.parallel
    mean = compare_means(examples, "lora", "full", resamples=4000)
    rows = [examples.differences("lora", "full", code) for code in examples.targets]
    assert mean.difference == pytest.approx(np.mean(rows))
    assert mean.stderr == pytest.approx(np.sqrt(np.sum(np.var(rows, axis=1) / 80)) / 6, rel=0.05)
    # All languages have as many examples, so that is one test of all of them.
    assert mean.p == pytest.approx(stats.ttest_1samp(np.concatenate(rows), 0).pvalue, abs=0.03)


def test_seeds_are_compared_as_welch_does(write: Write) -> None:
    folders = [write("lora", made(s, 0.7), seed=s) for s in (0, 1, 2)]
    folders += [write("full", made(s + 5, 0.6), seed=s) for s in (0, 1)]
    folders += [write("none", made(10, 0.5)), write("bottleneck", made(11, 0.5))]
    examples = read_examples(folders)

    def runs(seeds: range, share: float) -> list[float]:
        return [float(np.mean([v for c, v in made(s, share).items() if c != "eng_Latn"]))
                for s in seeds]  # fmt: skip

    found = compare_seeds(examples, "lora", "full")
    theirs = stats.ttest_ind(runs(range(3), 0.7), runs(range(5, 7), 0.6), equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
    constant = runs(range(10, 11), 0.5)[0]
    fixed = compare_seeds(examples, "lora", "none")
    assert fixed.p == pytest.approx(stats.ttest_1samp(runs(range(3), 0.7), constant).pvalue)
    assert np.isnan(compare_seeds(examples, "lora", "bottleneck").p)
    with pytest.raises(ValueError, match="says nothing about other seeds"):
        pool_languages(examples, "lora", "bottleneck", seeds=True)
    narrow = pool_languages(examples, "lora", "none")
    wide = pool_languages(examples, "lora", "none", seeds=True)
    assert narrow.families == 4
    assert wide.stderr**2 == pytest.approx(narrow.stderr**2 + fixed.stderr**2)


def test_labels_name_what_runs_differ_in(write: Write) -> None:
    scores = made(0, 0.5)
    folders = [
        write("lora", scores, options={"rank": 4}),
        write("lora", scores, options={"rank": 8}),
        write("full", scores),
        write("full", scores, model="other/model", parameters=2000),
    ]
    labels = method_labels([RunFolder(folder).record() for folder in folders])
    assert labels == [
        "lora rank=4",
        "lora rank=8",
        # Their learning rates are defaults, which follow from the model.
        "full model=somewhere/model",
        "full model=other/model",
    ]


def test_groups_are_means_of_languages(write: Write) -> None:
    folders = [write("lora", made(s, 0.7), seed=s) for s in (0, 1)]
    table = score_table([RunFolder(folder).record() for folder in folders])
    means = language_means(table).set_index("language")
    finnish = [made(s, 0.7)["fin_Latn"].mean() for s in (0, 1)]
    assert means.loc["fin_Latn", "score"] == pytest.approx(np.mean(finnish))
    assert means.loc["fin_Latn", "seed_sd"] == pytest.approx(np.std(finnish, ddof=1))
    groups = group_means(table, "family").set_index("group")
    uralic = means.loc[["fin_Latn", "hun_Latn"]]
    assert groups.loc["Uralic", "languages"] == 2
    assert groups.loc["Uralic", "score"] == pytest.approx(uralic["score"].mean())
    assert groups.loc["Uralic", "gap"] == pytest.approx(
        means.loc["eng_Latn", "score"] - uralic["score"].mean()
    )
    theirs = stats.ttest_1samp(uralic["score"], 0).confidence_interval()
    assert groups.loc["Uralic", "low"] == pytest.approx(theirs.low)
    assert np.isnan(groups.loc["Turkic", "low"])
    assert "Indo-European" in groups.index
    assert groups.loc["Indo-European", "languages"] == 2  # English, the source, is left out
    assert len(group_means(table, "seen")) == 1


def test_scaling_curve_and_its_slope(write: Write) -> None:
    sizes, shares = (1000, 2000, 4000), (0.5, 0.6, 0.7)
    folders = [
        write("lora", made(seed, share, 400), seed=seed, model=f"m/{size}", parameters=size)
        for size, share in zip(sizes, shares, strict=True)
        for seed in (0, 1)
    ]
    records = [RunFolder(folder).record() for folder in folders]
    found = curve(records, "model.parameters")
    assert list(found["x"]) == list(sizes)
    assert found["score"].to_numpy() == pytest.approx(shares, abs=0.02)
    assert (found["low"] <= found["score"]).all()
    assert setting(records[0], "train.learning_rate") == 0.01
    assert setting(records[0], "train.steps") == 5
    trend = doubling_trend(found["x"], found["score"])
    fit = stats.linregress(np.log2(sizes), found["score"])
    assert (trend.slope, trend.p) == pytest.approx((fit.slope, fit.pvalue))
    assert trend.slope == pytest.approx(0.1, abs=0.02)
    with pytest.raises(ValueError, match="three points"):
        doubling_trend([1, 2], [0.1, 0.2])
