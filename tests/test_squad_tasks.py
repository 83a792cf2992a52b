"""XQuAD, MLQA and TyDi QA: files of SQuAD's format, and where they are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import DataError, TaskConfig
from polyprefix.tasks import TaskData, get_task, load_task_data
from polyprefix.tasks import hub as hub_module
from polyprefix.tasks.apart import hold_out
from polyprefix.tasks.squad_json import read_squad, squad_example

XQUAD, TYDIQA = get_task("xquad"), get_task("tydiqa_goldp")


def paragraph(name: str, *, questions: int = 2, context: str | None = None) -> dict[str, Any]:
    """A paragraph in SQuAD's form; the questions' ids begin with its name."""
    qas = [
        {
            "id": f"{name}-{n}",
            "question": f"What is {name} {n}?",
            "answers": [{"text": f"{name} itself", "answer_start": 0}],
        }
        for n in range(questions)
    ]
    return {"context": context or f"{name} itself, said of {name}.", "qas": qas}


def write(path: Path, *paragraphs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "1.1", "data": [{"title": "T", "paragraphs": list(paragraphs)}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def load(folder: Path | None, name: str = "xquad", **keys: Any) -> TaskData:
    keys = {"name": name, "data": None if folder is None else str(folder), **keys}
    return load_task_data(TaskConfig(**keys), seed=0)


def ids(examples: Any) -> list[str]:
    return [example.id for example in examples]


# The format --------------------------------------------------------------------------------------


def test_a_question_with_its_paragraph_id_and_answers(tmp_path: Path) -> None:
    one = paragraph("A", questions=1)
    one["qas"][0]["answers"] += [{"text": " A "}, {"text": "A itself"}]
    path = write(tmp_path / "x.json", one, paragraph("B"))
    read = read_squad(path, numbered=False)
    assert read.bad_rows == []
    assert ids(read.examples) == ["A-0", "B-0", "B-1"]
    assert read.examples[0].fields == {
        "context": "A itself, said of A.",
        "question": "What is A 0?",
    }
    assert read.examples[0].answers == ("A itself", "A")
    assert read.sources == [str(path)]


def test_restructured_files(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    questions = [{"question": "q", "answer": " a"}, {"question": "r", "answer": ["b", "c"]}]
    entry = {"context": "a b c", "qas": questions, "abstract": "x", "blank": ["y"]}
    path.write_text("\ufeff" + json.dumps([entry, {"paragraphs": [entry]}]), encoding="utf-8")
    read = read_squad(path, numbered=False)
    assert read.bad_rows == []
    assert ids(read.examples) == ["1-1", "1-2", "2-1-1", "2-1-2"]
    assert [example.answers for example in read.examples[:2]] == [("a",), ("b", "c")]


def test_rows_of_the_hub() -> None:
    row = {"id": "7", "context": "c", "question": "q", "title": "t"}
    answers = {"text": ["x", "y"], "answer_start": [1, 2]}
    assert squad_example(1, {**row, "answers": answers}).answers == ("x", "y")
    assert squad_example(3, {**row, "id": None, "answers": answers}).id == "3"
    with pytest.raises(ValueError, match=r"no answer .*SQuAD 2\.0"):
        squad_example(1, {**row, "answers": {"text": [], "answer_start": []}})


def test_a_broken_entry_costs_what_is_in_it(tmp_path: Path) -> None:
    broken = paragraph("B", questions=8)
    answers: list[Any] = [[], None, "", [{"text": ""}], [{"text": 5}], 3]
    for question, value in zip(broken["qas"], answers, strict=False):
        question["answers"] = value
    del broken["qas"][6]["question"]
    broken["qas"].append("what?")
    twice = paragraph("A", questions=1)
    path = write(
        tmp_path / "x.json",
        paragraph("A"), broken, {"context": "c"}, {**paragraph("C"), "context": " "}, [], twice,
    )  # fmt: skip
    content = json.loads(path.read_text())
    content["data"].append({"paragraphs": None})
    path.write_text(json.dumps(content))
    read = read_squad(path, numbered=False)
    assert ids(read.examples) == ["A-0", "A-1", "B-7"]
    place = f"{path}, article 1, paragraph"
    expected = [
        f"{place} 2, question 1 (id 'B-0'): no answer (SQuAD 2.0",
        f"{place} 2, question 2 (id 'B-1'): no 'answers'; there are id, question, answers",
        f"{place} 2, question 3 (id 'B-2'): an answer is empty (XTREME's",
        f"{place} 2, question 4 (id 'B-3'): an answer is empty (XTREME's",
        f"{place} 2, question 5 (id 'B-4'): an answer holds 5, not a text",
        f"{place} 2, question 6 (id 'B-5'): 'answers' holds 3, not a list",
        f"{place} 2, question 7 (id 'B-6'): no column 'question'",
        f"{place} 2, question 9: expected an object, found str",
        f"{place} 3: expected 'context' and a list 'qas', found context",
        f"{place} 4: column 'context' is empty; its 2 questions are left out",
        f"{place} 5: expected 'context' and a list 'qas', found list",
        f"{place} 6, question 1 (id 'A-0'): the id is taken by a question before",
        f"{path}, article 2: 'paragraphs' is not a list",
    ]
    for bad, start in zip(read.bad_rows, expected, strict=True):
        assert str(bad).startswith(start)


def test_ids_that_repeat_are_numbered_where_that_is_asked(tmp_path: Path) -> None:
    paragraphs = [paragraph("A", questions=1) for _ in range(3)]
    paragraphs[0]["qas"][0]["id"] = paragraphs[2]["qas"][0]["id"] = 12
    paragraphs[1]["qas"][0]["id"] = "12"
    path = write(tmp_path / "x.json", *paragraphs, paragraph("A", questions=1))
    assert ids(read_squad(path, numbered=True).examples) == ["12", "12.2", "12.3", "A-0"]
    assert ids(XQUAD.read_file(path, "train").examples) == ["12", "12.2", "12.3", "A-0"]
    assert ids(XQUAD.read_file(path, "test").examples) == ["12", "A-0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"data": [\n1,,]}', "line 2: not JSON: Expecting value at character 3"),
        (b'["\xff"]', r"not UTF-8 \(at byte 3\)"),
        (b'{"version": 1, "rows": []}', "an object with version, rows; expected the format of"),
        (b"5", "no list; expected the format of SQuAD"),
        (b"", "line 1: not JSON"),
    ],
)
def test_files_of_another_format(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_squad(tmp_path / "x.json", numbered=False)
    with pytest.raises(DataError, match=r"'.*y\.json' does not exist"):
        read_squad(tmp_path / "y.json", numbered=False)


# Training, dev and test of a folder ---------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """XQuAD in two languages, and English files to train on and to select by."""
    for code in ("en", "de"):
        write(tmp_path / f"xquad.{code}.json", *(paragraph(f"X{n}") for n in range(3)))
    write(tmp_path / "train.json", *(paragraph(f"T{n}") for n in range(40)))
    return tmp_path


def test_xquad_with_files_for_training_and_dev(folder: Path) -> None:
    write(folder / "dev.json", *(paragraph(f"D{n}") for n in range(3)))
    data = load(folder)
    tested = dict.fromkeys(("eng_Latn", "deu_Latn"), 6)
    assert data.sizes == {"train": 80, "dev": 6, "test": tested}
    assert ids(data.dev) == [f"D{n}-{m}" for n in range(3) for m in range(2)]
    assert ids(data.test["deu_Latn"]) == ids(data.test["eng_Latn"])
    assert data.notes[0] == "train: 80 examples in eng_Latn, upstream has 87599"
    assert len(data.notes) == 3  # and dev and test: there is nothing else to note


def test_what_is_tested_is_neither_trained_on_nor_selected_by(folder: Path) -> None:
    # SQuAD's dev set holds XQuAD's paragraphs; white space apart, they are the same.
    spaced = paragraph("X1", context=" X1 itself,  said of X1.\n")
    write(folder / "dev-v1.1.json", paragraph("D0"), paragraph("X0"), spaced)
    write(folder / "train.json", paragraph("X2", questions=3), paragraph("T0"))
    data = load(folder)
    assert ids(data.dev) == ["D0-0", "D0-1"]
    assert ids(data.train) == ["T0-0", "T0-1"]
    assert data.notes[-2:] == [
        "train: 3 examples left out, they are about what is tested",
        "dev: 4 examples left out, they are about what is tested",
    ]
    with pytest.raises(DataError, match=r"all 6 train examples are about what .*xquad.en"):
        load(folder, train_data=str(folder / "xquad.en.json"))


def test_without_a_dev_file_a_part_of_the_training_file_is_held_out(folder: Path) -> None:
    write(folder / "train.json", *(paragraph(f"T{n}") for n in range(400)))
    data = load(folder)
    assert len(data.train) + len(data.dev) == 800
    assert 40 <= len(data.dev) <= 120
    # Whole paragraphs, and the same ones whatever else the file holds.
    assert not {e.fields["context"] for e in data.train} & {e.fields["context"] for e in data.dev}
    assert data.notes[-1] == f"dev: {len(data.dev)} of the training examples, held out"
    write(folder / "train.json", *(paragraph(f"T{n}") for n in range(200, 600)))
    again = load(folder)
    assert {i for i in ids(data.dev) if int(i[1:].split("-")[0]) >= 200} == {
        i for i in ids(again.dev) if int(i[1:].split("-")[0]) < 400
    }


def test_bad_rows_stay_with_the_training_split(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", *(paragraph(f"T{n}") for n in range(50)), {"context": "c"})
    train, dev = hold_out(read_squad(path, numbered=True), 0.5, XQUAD.unit)
    assert len(train.bad_rows) == 1
    assert dev.bad_rows == []
    assert dev.sources == [str(path)]
    assert sorted(ids([*train.examples, *dev.examples])) == sorted(
        f"T{n}-{m}" for n in range(50) for m in range(2)
    )


def test_a_run_that_does_not_train_needs_tests_only(folder: Path) -> None:
    (folder / "train.json").unlink()
    with pytest.raises(
        DataError, match=r"no train file for eng_Latn: looked for .*train-v1.1.json"
    ):
        load(folder)
    config = TaskConfig(name="xquad", data=str(folder), dev_samples=5)
    data = load_task_data(config, seed=0, with_training=False)
    assert data.train == data.dev == []
    assert data.sizes["test"] == dict.fromkeys(("eng_Latn", "deu_Latn"), 6)


def test_another_source_language_has_no_training_data(folder: Path) -> None:
    with pytest.raises(DataError, match="no train file for deu_Latn"):
        load(folder, source_language="de")
    data = load(folder, source_language="de", train_data=str(folder / "train.json"))
    assert data.source_language == "deu_Latn"
    assert data.dev


@pytest.mark.parametrize("place", ["", "split"])
def test_mlqa_in_its_own_layout(tmp_path: Path, place: str) -> None:
    for split in ("dev", "test"):
        for code in ("en", "hi"):
            name = f"{split}-context-{code}-question-{code}.json"
            write(tmp_path / (place and split) / name, paragraph(f"{split}{code}"))
    write(tmp_path / "test-context-hi-question-en.json", paragraph("other"))
    write(tmp_path / "train-v1.1.json", paragraph("T"))
    data = load(tmp_path, "mlqa")
    assert data.sizes == {"train": 2, "dev": 2, "test": {"eng_Latn": 2, "hin_Deva": 2}}
    assert ids(data.dev) == ["deven-0", "deven-1"]
    assert ids(data.test["hin_Deva"]) == ["testhi-0", "testhi-1"]
    # Languages are not parallel: each is sampled by itself.
    assert len(load(tmp_path, "mlqa", test_samples=1).test["hin_Deva"]) == 1


@pytest.mark.parametrize(
    "dev",
    [
        "tydiqa.goldp.sw.dev.json",
        "tydiqa-goldp-v1.1-dev/tydiqa.goldp.sw.dev.json",
        "tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-swahili.json",
    ],
)
def test_tydiqa_in_its_layouts(tmp_path: Path, dev: str) -> None:
    english = dev.replace(".sw.", ".en.").replace("swahili", "english")
    write(tmp_path / english, paragraph("english"))
    write(tmp_path / dev, paragraph("swahili"))
    path = tmp_path / "tydiqa-goldp-v1.1-train" / "tydiqa.goldp.en.train.json"
    write(path, *(paragraph(f"T{n}", questions=1) for n in range(100)))
    data = load(tmp_path, "tydiqa_goldp")
    assert ids(data.test["swh_Latn"]) == ["swahili-0", "swahili-1"]
    assert len(data.train) + len(data.dev) == 100
    assert data.dev
    write(tmp_path / "dev.json", paragraph("D"))
    assert ids(load(tmp_path, "tydiqa_goldp").dev) == ["D-0", "D-1"]


# The hub -----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, str | None]]:
    """What was asked of a hub that holds small datasets of the same names."""
    questions: list[tuple[str, str, str, str | None]] = []

    def row(name: str, context: str) -> dict[str, Any]:
        answers = {"text": ["a"], "answer_start": [0]}
        return {"id": name, "context": context, "question": "q", "answers": answers}

    def read_rows(repository: str, config: str, split: str, revision: str | None) -> Any:
        questions.append((repository, config, split, revision))
        if config == "secondary_task":
            contexts = [f"{split} {n}" for n in range(20)]
            return [row(f"{n}-{c}-0", c) for c in contexts for n in ("english", "swahili")]
        names = ["tested"] if "." in config else ["tested", f"{split} 1"]
        return [row(f"{split} {n}", f"about {n}") for n in names]

    monkeypatch.setattr(hub_module, "read_rows", read_rows)
    monkeypatch.setattr(
        "polyprefix.tasks.data.commit_of", lambda name, revision: f"{name[:4]}-{revision}"
    )
    return questions


def test_xquad_from_the_hub_trains_on_squad(asked: Any) -> None:
    data = load(None, languages="de", revision="v1")
    assert asked == [
        ("rajpurkar/squad", "plain_text", "train", "rajp-None"),
        ("rajpurkar/squad", "plain_text", "validation", "rajp-None"),
        ("google/xquad", "xquad.en", "validation", "goog-v1"),
        ("google/xquad", "xquad.de", "validation", "goog-v1"),
    ]
    assert data.revision == "hub:google/xquad@goog-v1 rajpurkar/squad@rajp-None"
    assert ids(data.train) == ["train train 1"]
    assert ids(data.dev) == ["validation validation 1"]
    assert data.sources[2] == "hub:google/xquad/xquad.en/validation"
    with pytest.raises(DataError, match=r"'xquad' has no train split for deu_Latn on the hub\. A"):
        load(None, source_language="de")


def test_mlqa_from_the_hub(asked: Any) -> None:
    load(None, "mlqa", languages="zh")
    assert [question[:3] for question in asked] == [
        ("rajpurkar/squad", "plain_text", "train"),
        ("google/xtreme", "MLQA.en.en", "validation"),
        ("google/xtreme", "MLQA.en.en", "test"),
        ("google/xtreme", "MLQA.zh.zh", "test"),
    ]


def test_tydiqa_from_the_hub_is_divided_by_language(asked: Any) -> None:
    data = load(None, "tydiqa_goldp", languages="sw")
    hub = "google-research-datasets/tydiqa"
    assert [question[:3] for question in asked] == [
        (hub, "secondary_task", split) for split in ("train", "validation", "validation")
    ]
    assert ids(data.test["swh_Latn"]) == [f"swahili-validation {n}-0" for n in range(20)]
    trained = [*data.train, *data.dev]
    assert sorted(ids(trained)) == sorted(f"english-train {n}-0" for n in range(20))


# The real files ----------------------------------------------------------------------------------


def test_every_question_of_xquad(real_data: Path) -> None:
    folder = real_data / "xquad"
    assert XQUAD.languages_in(folder) == list(XQUAD.language_codes)
    assert len(XQUAD.language_codes) == 12
    english = XQUAD.read_local(folder, "eng_Latn", "test")
    for code in XQUAD.language_codes:
        read = XQUAD.read_local(folder, code, "test")
        assert read.bad_rows == []
        assert len(read.examples) == 1190
        assert len({example.fields["context"] for example in read.examples}) == 240
        assert ids(read.examples) == ids(english.examples)
        assert all(example.answers[0] in example.fields["context"] for example in read.examples)


@pytest.mark.parametrize(
    ("name", "count", "paragraphs"),
    [
        ("squadshifts/new_wiki_v1.0.json", 7938, 1581),
        ("squadshifts/amazon_reviews_v1.0.json", 9885, 2050),
        ("squadshifts/reddit_v1.0.json", 9803, 2033),
        ("squad_train_part/part1.squad.json", 4370, 678),
        ("squad_train_part/part2.no-offsets.json", 4000, 800),
    ],
)
def test_training_files(real_data: Path, name: str, count: int, paragraphs: int) -> None:
    data = load(real_data / "xquad", train_data=str(real_data / name), languages="en")
    trained = [*data.train, *data.dev]
    assert len(trained) == count
    assert len({example.fields["context"] for example in trained}) == paragraphs
    assert 0.07 < len(data.dev) / count < 0.13
    assert not any("left out" in note for note in data.notes)  # none is a paragraph of XQuAD


@pytest.mark.parametrize(
    ("code", "count"), [("eng_Latn", 3696), ("swh_Latn", 2755), ("kor_Hang", 1625)]
)
def test_training_files_of_tydiqa(real_data: Path, code: str, count: int) -> None:
    read = TYDIQA.read_local(real_data / "tydiqa", code, "train")
    assert read.bad_rows == []
    assert len(set(ids(read.examples))) == len(read.examples) == count
