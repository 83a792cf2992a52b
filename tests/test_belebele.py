"""Belebele: its files of three kinds, the hub, what is trained on."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import DataError, TaskConfig
from polyprefix.tasks import Example, get_task, load_task_data
from tests.benchmark_files import load, repository, write

BELEBELE = get_task("belebele")


def question(**changes: Any) -> dict[str, Any]:
    """A row as the hub has them."""
    return {
        "link": "https://en.wikibooks.org/wiki/Accordion",
        "question_number": 2,
        "flores_passage": "Use the bellows.",
        "question": "What helps?",
        "mc_answer1": "Speed",
        "mc_answer2": "Force",
        "mc_answer3": "Less",
        "mc_answer4": "More",
        "correct_answer_num": "3",
        "dialect": "eng_Latn",
    } | changes


FIELDS = {key: value for key, value in question().items() if key[0] in "fm" or key == "question"}


def test_belebele_as_on_the_hub(tmp_path: Path) -> None:
    for place in (tmp_path / "a", tmp_path / "b" / "data"):
        write(place / "eng_Latn.jsonl", question(), question(question_number=1))
    expected = Example("https://en.wikibooks.org/wiki/Accordion#2", FIELDS, 2)
    for folder in (tmp_path / "a", tmp_path / "b"):
        split = BELEBELE.read_local(folder, "eng_Latn", "test")
        assert split.bad_rows == []
        assert split.examples[0] == expected
    assert BELEBELE.prompt.render(FIELDS) == (
        "P: Use the bellows.\nQ: What helps?\nA: Speed\nB: Force\nC: Less\nD: More\nAnswer:"
    )
    assert BELEBELE.prompt.choices == (" A", " B", " C", " D")


def test_belebele_with_all_questions_of_a_passage_in_a_line(tmp_path: Path) -> None:
    answers = [{"text": text, "correct": text == "Less"} for text in list(FIELDS.values())[2:]]
    broken = [
        {"question": "?", "answers": answers[:3]},
        {"question": "?", "answers": answers[:2] * 2},
        {"question": "?", "answers": "none"},
        {"question": "", "answers": answers},
        "none",
    ]
    passage = {
        "text": "Use the bellows.",
        "items": [*broken, {"question": "What helps?", "answers": answers}],
        "metadata": {"extra": {"url": "https://en.wikibooks.org/wiki/Accordion"}},
    }
    path = write(tmp_path / "eng_Latn.jsonl", {"text": "T", "items": 3}, passage)
    split = BELEBELE.read_file(path, "test")
    assert split.examples == [Example("https://en.wikibooks.org/wiki/Accordion#6", FIELDS, 2)]
    assert [bad.line for bad in split.bad_rows] == [1, 2, 2, 2, 2, 2]
    reasons = [bad.reason for bad in split.bad_rows]
    assert reasons[0] == "'items' holds int, expected a list"
    assert reasons[1] == "question 1: 3 answers, 1 of them right; expected 4 and 1"
    assert reasons[2] == "question 2: 4 answers, 0 of them right; expected 4 and 1"
    assert reasons[3].startswith("question 3: expected 'question' and 'answers'")
    assert reasons[4] == "column 'question' is empty"


@pytest.mark.parametrize("value", ["0", "5", "", None, "two", 2.5])
def test_a_right_answer_that_is_none(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "train.jsonl", question(correct_answer_num=value))
    (bad,) = BELEBELE.read_file(path, "train").bad_rows
    assert "expected 1, 2, 3 or 4" in bad.reason


HEADER = [
    *("", "dataset", "split", "passage_id", "question_id", "passage", "question"),
    *("answer1", "answer2", "answer3", "answer4", "correct_answer", "correct_answer_num"),
]


def training_set(path: Path) -> Path:
    """A table as pandas writes it: quotes where needed, and line ends within a passage."""
    rows = [
        ["0", "sciQ", "train", "1", "1", "One line.", "A?", "a", "b", "c", "d", "b", "2"],
        ["0", "RACE", "train", "1", "0", 'Two\n"lines".', "B?", "a", "b", "c", "d", "d", "4.0"],
        ["1", "RACE", "dev", "2", "0", "Three\r\nlines\n.", "C?", "a", "b", "c", "d", "a", "1"],
        ["2", "RACE", "train", "3", "0", "Four.", "", "a", "b", "c", "d", "a", "1"],
    ]
    table = io.StringIO()
    csv.writer(table, delimiter="\t", lineterminator="\n").writerows([HEADER, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(table.getvalue().encode())
    return path


def test_belebeles_training_set(tmp_path: Path) -> None:
    path = training_set(tmp_path / "belebele_training_set.tsv")
    train, dev = BELEBELE.read_file(path, "train"), BELEBELE.read_file(path, "dev")
    assert [example.fields["flores_passage"] for example in train.examples] == [
        "One line.",
        'Two\n"lines".',
    ]
    assert [example.label for example in train.examples] == [1, 3]
    assert [(bad.line, bad.reason) for bad in train.bad_rows] == [(8, "column 'question' is empty")]
    assert [example.fields["flores_passage"] for example in dev.examples] == ["Three\r\nlines\n."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("passage\tquestion\n", "line 1: the header lacks correct_answer_num, mc_answer1"),
        ("\t".join(HEADER) + '\n0\tx\ttrain\t1\t1\t"open', "line 2: quoting"),
        ("", "the header lacks"),
    ],
)
def test_a_broken_training_set(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        BELEBELE.read_file(path, "train")


def test_belebele_trains_on_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder / "eng_Latn.jsonl", question())
    write(folder / "deu_Latn.jsonl", question(dialect="deu_Latn"))
    with pytest.raises(DataError, match=r"no train file for eng_Latn.*given as task\.train_data"):
        load(BELEBELE, folder)
    # A file of one's own: part of its passages is held out.
    rows = [question(link=None, flores_passage=f"Passage {n // 2}.") for n in range(400)]
    data = load(BELEBELE, folder, train_data=str(write(tmp_path / "own.jsonl", *rows)))
    assert len(data.train) + len(data.dev) == 400
    assert 4 <= len(data.dev) <= 60
    passages = [{e.fields["flores_passage"] for e in part} for part in (data.train, data.dev)]
    assert not passages[0] & passages[1]
    # The training set has a dev split.
    training_set(folder / "belebele_training_set.tsv")
    data = load(BELEBELE, folder, bad_rows="skip")
    assert (len(data.train), len(data.dev), len(data.bad_rows)) == (2, 1, 1)
    assert data.languages == ["eng_Latn", "deu_Latn"]


def test_belebele_on_real_files(real_data: Path) -> None:
    folder = real_data / "belebele_en_de"
    english, german = (
        BELEBELE.read_local(folder, code, "test") for code in ("eng_Latn", "deu_Latn")
    )
    for split in (english, german):
        assert split.bad_rows == []
        assert len(split.examples) == 900
        assert len({example.fields["flores_passage"] for example in split.examples}) == 488
    assert [e.id for e in english.examples] == [e.id for e in german.examples]
    assert [e.label for e in english.examples] == [e.label for e in german.examples]


def test_belebele_from_the_hub_is_only_tested_on(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(BELEBELE), "hub", repository(hub / "belebele", eng_Latn__test=[question()])
    )
    config = TaskConfig(name="belebele", languages="en")
    data = load_task_data(config, seed=0, with_training=False)
    assert data.test["eng_Latn"][0].fields == FIELDS
    with pytest.raises(DataError, match=r"no train split for eng_Latn on the hub.*train_data"):
        load_task_data(config, seed=0)
