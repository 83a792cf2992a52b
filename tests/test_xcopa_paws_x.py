"""XCOPA and PAWS-X: their files and the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import DataError
from polyprefix.tasks import get_task
from polyprefix.tasks import xcopa as xcopa_module
from tests.benchmark_files import load, repository, write

XCOPA, PAWS_X = map(get_task, ("xcopa", "paws_x"))


# XCOPA -------------------------------------------------------------------------------------------


def copa(**changes: Any) -> dict[str, Any]:
    return {
        "premise": "The item was packaged in bubble wrap.",
        "choice1": "It was fragile.",
        "choice2": "It was small.",
        "question": "cause",
        "label": 0,
        "idx": 0,
    } | changes


def test_xcopa_as_in_its_repository_with_copa_for_english(tmp_path: Path) -> None:
    write(tmp_path / "data" / "et" / "val.et.jsonl", copa(idx=3), copa(idx=4, label=1))
    write(tmp_path / "data" / "et" / "test.et.jsonl", copa(changed=False), copa(idx=51))
    write(tmp_path / "COPA" / "train.jsonl", copa(idx=7), copa(idx=8))
    write(tmp_path / "COPA" / "val.jsonl", copa(idx=3), copa(idx=4, question="effect"))
    write(
        tmp_path / "COPA" / "test.csv",
        "id,premise,question,choice1,choice2,label,mirrored",
        '501,"The item, wrapped.",cause,It was fragile.,It was small.,0,False',
        "552,The pilot's radar detected a storm.,effect,He went.,He stayed.,1,False",
    )
    data = load(XCOPA, tmp_path)
    assert data.languages == ["eng_Latn", "est_Latn"]
    # COPA's own numbers become XCOPA's.
    for code in data.languages:
        assert [example.id for example in data.test[code]] == ["0", "51"]
    assert data.test["eng_Latn"][1].label == 1
    assert [example.id for example in data.dev] == ["3", "4"]
    assert XCOPA.prompt.render(data.dev[0].fields) == (
        "The item was packaged in bubble wrap.\nQuestion: What was the cause?\nAnswer:"
    )
    effect = data.dev[1].fields
    assert XCOPA.prompt.render(effect).endswith("What happened as a result?\nAnswer:")
    assert XCOPA.prompt.render_choices(effect) == (" It was fragile.", " It was small.")
    with pytest.raises(DataError, match="no train file for est_Latn"):
        load(XCOPA, tmp_path, source_language="et")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (copa(question="why"), "'question' is 'why'; expected cause or effect"),
        (copa(label=-1), "unknown label '-1'"),
        (copa(choice2=" "), "column 'choice2' is empty"),
        ({k: v for k, v in copa().items() if k != "label"}, "no column 'label'"),
    ],
)
def test_a_bad_row_of_xcopa_costs_itself(tmp_path: Path, row: Any, reason: str) -> None:
    split = XCOPA.read_file(write(tmp_path / "x.jsonl", copa(idx=8), row, copa(idx=9)), "test")
    assert len(split.examples) == 2
    assert reason in split.bad_rows[0].reason


def test_xcopa_and_copa_from_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    xcopa = repository(hub / "xcopa", et__validation=[copa()], et__test=[copa(idx=51)])
    text, number = datasets.Value("string"), datasets.Value("int32")
    named = datasets.Features(
        {
            **dict.fromkeys(("premise", "choice1", "choice2", "question"), text),
            "label": datasets.ClassLabel(names=["choice1", "choice2"]),
            "idx": number,
        }
    )
    glue = repository(
        hub / "glue", named, copa__train=[copa(label=1)], copa__validation=[copa(idx=4)]
    )
    balanced = repository(
        hub / "balanced", default__test=[{k: v for k, v in copa(id=552).items() if k != "idx"}]
    )
    monkeypatch.setattr(type(XCOPA), "hub", xcopa)
    monkeypatch.setattr(xcopa_module, "ENGLISH", xcopa_module.ENGLISH._replace(repository=glue))
    monkeypatch.setattr(
        xcopa_module, "ENGLISH_TEST", xcopa_module.ENGLISH_TEST._replace(repository=balanced)
    )
    data = load(XCOPA, None, languages=["en", "et"])
    assert [e.id for e in data.test["eng_Latn"]] == [e.id for e in data.test["est_Latn"]] == ["51"]
    assert data.train[0].label == 1
    assert data.dev[0].id == "4"


# PAWS-X ------------------------------------------------------------------------------------------

PAWS_HEADER = "id\tsentence1\tsentence2\tlabel"


def test_paws_x_leaves_out_what_is_not_translated(tmp_path: Path) -> None:
    folder = tmp_path / "x-final"
    pair = 'In Paris , he " met " her .\tHe met ( her ) in Paris .'
    write(folder / "en" / "train.tsv", PAWS_HEADER, f"1\t{pair}\t0")
    write(folder / "en" / "dev_2k.tsv", PAWS_HEADER, f"1\t{pair}\t1")
    write(folder / "en" / "test_2k.tsv", PAWS_HEADER, *(f"{n}\t{pair}\t1" for n in (1, 2, 3, 4)))
    rows = ["1\tNS\tb .\t0", "2\ta .\tNS\t1", "3\t\tb .\t1", "4\ta .\tb .\t1", "5\ta .\tb .\tx"]
    write(folder / "de" / "test_2k.tsv", PAWS_HEADER, *rows)
    data = load(PAWS_X, tmp_path, bad_rows="skip")
    assert [example.id for example in data.test["deu_Latn"]] == ["4"]
    assert [bad.line for bad in data.bad_rows] == [6]
    assert "test: 2 examples in deu_Latn, upstream has 2000" in data.notes
    fields = data.test["eng_Latn"][0].fields
    assert fields["sentence1"] == 'In Paris , he " met " her .'
    assert (fields["statement"], fields["restatement"]) == (
        'In Paris, he"met"her',
        "he met (her) in Paris.",
    )
    assert PAWS_X.prompt.render(fields) == (
        'In Paris , he " met " her .\nQuestion: He met ( her ) in Paris . '
        "Does this mean the same, yes or no?\nAnswer:"
    )
    assert data.train[0].label == 0


def test_paws_x_from_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    text = datasets.Value("string")
    features = datasets.Features(
        id=datasets.Value("int32"),
        sentence1=text,
        sentence2=text,
        label=datasets.ClassLabel(names=["0", "1"]),
    )
    rows = [
        {"id": n, "sentence1": one, "sentence2": "b .", "label": 1}
        for n, one in enumerate(["a .", "NS", ""])
    ]
    splits = {f"en__{split}": rows for split in ("train", "validation", "test")}
    monkeypatch.setattr(type(PAWS_X), "hub", repository(hub / "paws", features, **splits))
    data = load(PAWS_X, None, languages="en")
    assert [(e.id, e.label) for e in data.test["eng_Latn"]] == [("0", 1)]
    assert data.bad_rows == []
