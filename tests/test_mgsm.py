"""MGSM: its files and GSM8K's, the hub, what is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import DataError, DecodingConfig
from polyprefix.tasks import Example, get_task
from polyprefix.tasks import mgsm as mgsm_module
from tests.benchmark_files import load, repository, write

MGSM = get_task("mgsm")
SOLVED = "He has 2*3 = <<2*3=6>>6 cows.\nThat is $<<6*200=1200>>1200.\n#### 1,200"


@pytest.fixture
def mgsm_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "both"
    train = [{"question": f"Train {n}?", "answer": SOLVED} for n in range(3)]
    tested = [{"question": "Both  sold how many?", "answer": "It is 5.\n#### 5"}]
    rest = [{"question": f"Dev {n}?", "answer": "A loss.\n#### -10"} for n in range(2)]
    write(folder / "gsm8k" / "train.jsonl", *train)
    write(folder / "gsm8k" / "test.jsonl", *tested, *rest)
    write(folder / "mgsm" / "mgsm_en.tsv", "Both sold how many?\t5", 'Says "2"?\t2,125')
    write(folder / "mgsm" / "mgsm_ja.tsv", "何個？\t5", "合計は？\t2,125")
    return folder


def test_mgsm_is_trained_on_gsm8k_and_nothing_tested_is_in_its_dev_split(mgsm_folder: Path) -> None:
    data = load(MGSM, mgsm_folder)
    assert data.languages == ["eng_Latn", "jpn_Jpan"]
    assert data.train[0] == Example(
        "1",
        {
            "question": "Train 0?",
            "solution": "He has 2*3 = 6 cows.\nThat is $1200.",
            "answer": "1200",
        },
        answers=("1200",),
    )
    assert [example.fields["question"] for example in data.dev] == ["Dev 0?", "Dev 1?"]
    assert data.dev[0].answers == ("-10",)
    assert [example.answers for example in data.test["jpn_Jpan"]] == [("5",), ("2125",)]
    assert [e.id for e in data.test["jpn_Jpan"]] == [e.id for e in data.test["eng_Latn"]]
    assert data.test["eng_Latn"][1].fields == {"question": 'Says "2"?'}
    assert "dev: 1 examples left out, they are about what is tested" in data.notes
    assert "train: 3 examples in eng_Latn, upstream has 7473" in data.notes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Q?", "answer": "It is 5."}, "column 'answer' has no '####'"),
        ({"question": "Q?", "answer": "#### 5"}, "has no solution before '####'"),
        ({"question": "Q?", "answer": "Some. #### five"}, "'five' is not a whole number"),
        ({"question": "Q?", "answer": "Some. #### 1,20"}, "'1,20' is not a whole number"),
        ({"question": "", "answer": "Some. #### 5"}, "column 'question' is empty"),
        ({"answer": "Some. #### 5"}, "no column 'question'"),
        ("[]", "expected a JSON object"),
    ],
)
def test_a_bad_row_of_gsm8k_costs_itself(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"question": "Q?", "answer": SOLVED}
    split = MGSM.read_file(write(tmp_path / "train.jsonl", good, row, good), "train")
    assert len(split.examples) == 2
    assert [bad.line for bad in split.bad_rows] == [2]
    assert reason in split.bad_rows[0].reason


def test_a_bad_row_of_mgsm_costs_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "mgsm_de.tsv", "Wie viele?\t3", "Wie viele?", "Wann?\tum 3", "Wo?\t")
    split = MGSM.read_file(path, "test")
    assert len(split.examples) == 1
    assert [bad.line for bad in split.bad_rows] == [2, 3, 4]
    assert "1 column where 2 are expected" in split.bad_rows[0].reason
    assert "'um 3' is not a whole number" in split.bad_rows[1].reason


@pytest.mark.parametrize("given", [False, True])
def test_without_gsm8ks_test_set_a_part_of_its_training_set_is_held_out(
    mgsm_folder: Path, given: bool
) -> None:
    (mgsm_folder / "gsm8k" / "test.jsonl").unlink()
    rows = [{"question": f"Train {n}?", "answer": SOLVED} for n in range(200)]
    rows.append({"question": "Both sold how many?", "answer": SOLVED})
    own = write(mgsm_folder / ("own" if given else "gsm8k") / "train.jsonl", *rows)
    if given:
        (mgsm_folder / "gsm8k" / "train.jsonl").unlink()
        data = load(MGSM, mgsm_folder, train_data=str(own))
    else:
        data = load(MGSM, mgsm_folder)
    assert len(data.train) + len(data.dev) == 200
    assert 10 <= len(data.dev) <= 35
    asked = [{example.fields["question"] for example in part} for part in (data.train, data.dev)]
    assert not asked[0] & asked[1]
    assert "train: 1 examples left out, they are about what is tested" in data.notes
    assert data.notes[-1] == f"dev: {len(data.dev)} of the training examples, held out"


def test_mgsm_cannot_be_trained_in_another_language(mgsm_folder: Path) -> None:
    with pytest.raises(DataError, match="no train file for jpn_Jpan"):
        load(MGSM, mgsm_folder, source_language="ja")


def test_what_is_trained_on_and_what_stops_depend_on_the_variant(
    mgsm_folder: Path, tiny_folder: Path
) -> None:
    from polyprefix.api import load as load_model
    from polyprefix.config import RuntimeConfig
    from polyprefix.study.fit import Fitting

    model = load_model(str(tiny_folder))
    decode = model.backbone.tokenizer.decode
    cot = " He has 2*3 = 6 cows.\nThat is $1200.\nThe answer is 1200.</s>"
    marks = ("</s>", "<|im_end|>")
    for variant, ending, target, stop, new in [
        (None, "?\nStep-by-Step Answer:", cot, ("Question:", *marks), 256),
        ("direct", "?\nAnswer:", " 1200</s>", ("\n",), 32),
        ("lm-eval", "?\nAnswer:", " 1200</s>", ("問題：", *marks), 256),
        ("lm-eval-en-cot", "?\nStep-by-Step Answer:", cot, ("問題：", *marks), 256),
        ("lm-eval-native-cot", "?\nStep-by-Step Answer:", cot, ("問題：", *marks), 256),
    ]:
        data = load(MGSM, mgsm_folder, prompt=variant)
        fitting = Fitting(model, data, 1024, RuntimeConfig())
        (encoded,) = fitting.right_answers(data.train[:1])
        assert decode(encoded.prompt).endswith(ending)
        assert decode(encoded.answers[0]) == target
        used = fitting.decodings["jpn_Jpan"]
        assert (used.stop, used.max_new_tokens) == (stop, new)
        short = Fitting(model, data, 1024, RuntimeConfig(), DecodingConfig(max_new_tokens=7))
        assert short.decodings["jpn_Jpan"].max_new_tokens == 7


def test_a_run_of_mgsm(mgsm_folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    from polyprefix.config import RunConfig
    from polyprefix.study import run

    record = run(
        RunConfig.read(
            {
                "model": {"name": str(tiny_folder)},
                "method": {"name": "soft_prompt"},
                "task": {"name": "mgsm", "data": str(mgsm_folder), "max_length": 400},
                "train": {"steps": 2, "batch_size": 2},
                "decoding": {"max_new_tokens": 5},
                "output": str(tmp_path / "runs"),
            }
        )
    )
    scores = record["scores"]["jpn_Jpan"]
    assert scores["n"] == 2
    assert {"number", "harness_number"} <= set(scores)


def test_mgsm_on_real_files(real_data: Path) -> None:
    data = load(MGSM, real_data)
    assert data.bad_rows == []
    assert (len(data.train), len(data.dev)) == (7473, 1069)
    assert {len(examples) for examples in data.test.values()} == {250}
    assert len(data.test) == 11
    golds = {tuple(example.answers for example in examples) for examples in data.test.values()}
    assert len(golds) == 1  # the same in every language
    assert [a for a in golds.pop() if int(a[0]) > 2000] >= [("2125",)]
    assert not any("<<" in example.fields["solution"] for example in data.train)
    tested = {example.fields["question"] for example in data.test["eng_Latn"]}
    assert not tested & {example.fields["question"] for example in data.train + data.dev}


def test_mgsm_and_gsm8k_from_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(text: str, number: int) -> dict[str, Any]:
        unused = {"answer": None, "equation_solution": None}
        return {"question": text, "answer_number": number} | unused

    rows = {"en__test": [row("Sold?", 5), row("Sum?", 2125)], "de__test": [row("Wie viel?", 5)]}
    solved = [{"question": text, "answer": SOLVED} for text in ("Sold?", "Else?")]
    mgsm = repository(hub / "mgsm", **rows)
    gsm8k = repository(hub / "gsm8k", main__train=solved[1:], main__test=solved)
    monkeypatch.setattr(type(MGSM), "hub", mgsm)
    monkeypatch.setattr(mgsm_module, "GSM8K", gsm8k)
    data = load(MGSM, None, languages=["en", "de"])
    assert [example.answers for example in data.test["eng_Latn"]] == [("5",), ("2125",)]
    assert len(data.test["deu_Latn"]) == len(data.train) == 1
    assert [example.fields["question"] for example in data.dev] == ["Else?"]
    assert f"hub:{gsm8k}/main/test" in data.sources
    assert data.revision == f"hub:{mgsm}@main {gsm8k}@main"
