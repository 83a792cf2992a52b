"""Files of tasks, read row by row: what they hold, and what is said about broken ones."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import DataError
from polyprefix.tasks import Example, get_task, label_in, text_in

SIB = get_task("sib200")
XNLI = get_task("xnli")
SPLITS = {"train": 701, "dev": 99, "test": 204}
HEADER = "index_id\tcategory\ttext\n"


def sib_file(folder: Path, content: str | bytes, split: str = "test") -> Path:
    path = folder / "eng_Latn" / f"{split}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def nli_file(folder: Path, content: str, name: str = "train.tsv") -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


# Rows --------------------------------------------------------------------------------------------


def test_sib200_quotes_are_undone_and_everything_else_stays(tmp_path: Path) -> None:
    rows = {
        '"He said ""yes""."': 'He said "yes".',
        '"""Quoted from end to end"""': '"Quoted from end to end"',
        'a 5" disk': 'a 5" disk',
        '"a\ttab"': "a\ttab",
        "  spaces and\u00a0": "  spaces and\u00a0",
        "line\u2028separator\u0085": "line\u2028separator\u0085",
        "\u202eright to left\u200f\ufffd": "\u202eright to left\u200f\ufffd",
        "a\rreturn inside": "a\rreturn inside",
        "\\n is no escape": "\\n is no escape",
        "{{ text }}": "{{ text }}",
    }
    lines = "".join(f"{n}\ttravel\t{cell}\n" for n, cell in enumerate(rows))
    split = SIB.read_file(sib_file(tmp_path, HEADER + lines), "test")
    assert split.bad_rows == []
    assert [example.fields["text"] for example in split.examples] == list(rows.values())
    assert {example.label for example in split.examples} == {1}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n  \n"])
def test_line_ends_byte_order_marks_and_blank_lines_at_the_end(
    tmp_path: Path, bom: bytes, end: str, tail: str
) -> None:
    content = (HEADER + "7\thealth\tone\n8\tsports\ttwo" + tail).replace("\n", end)
    split = SIB.read_file(sib_file(tmp_path, bom + content.encode()), "test")
    assert split.bad_rows == []
    assert split.examples == [
        Example("7", {"text": "one"}, SIB.labels.index("health")),
        Example("8", {"text": "two"}, SIB.labels.index("sports")),
    ]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = sib_file(tmp_path, "text\tsource\tcategory\tindex_id\nhello\tweb\tTravel\t3\n")
    assert SIB.read_file(path, "test").examples == [Example("3", {"text": "hello"}, 1)]


BAD = {
    b"9\ttravel": r"2 columns where 3 are expected \(index_id, category, text\)",
    b"9\ttravel\ta\tb": "4 columns where 3 are expected",
    b"alone": "1 column where 3 are expected",
    b"": "the line is empty",
    b"9\ttravel\t  ": "column 'text' is empty",
    b"\ttravel\ta": "column 'index_id' is empty",
    b"9\t\ta": "column 'category' is empty",
    b"9\tcooking\ta": "unknown label 'cooking'; expected one of science/technology, travel",
    b"9\ttravel\tab\xffc": r"not UTF-8 \(0xff at byte 12\)",
    b"9\ttravel\t\xed\xa0\x80": r"not UTF-8 \(0xed at byte 10\)",
    b"9\ttravel\ta\0b": r"a NUL byte \(at byte 11 of the line\)",
    b'9\ttravel\t"never closed': "quoting: a quote is not closed on the line",
    b'9\ttravel\t"closed" too early': "quoting: ",
    b"index_id\tcategory\ttext": "the header again",
    b"1\ttravel\tsame number": "the id '1' is taken by line 2",
}


@pytest.mark.parametrize("row", BAD, ids=lambda row: repr(row)[2:-1])
def test_a_bad_row_gives_file_line_and_reason_and_costs_no_other_row(
    tmp_path: Path, row: bytes
) -> None:
    lines = [HEADER.strip().encode(), b"1\ttravel\tbefore", row, b"2\ttravel\tafter", b""]
    path = sib_file(tmp_path, b"\n".join(lines))
    split = SIB.read_file(path, "test")
    assert [example.fields["text"] for example in split.examples] == ["before", "after"]
    (bad,) = split.bad_rows
    assert (bad.file, bad.line) == (str(path), 3)
    assert re.match(BAD[row], bad.reason)
    assert str(bad) == f"{path}, line 3: {bad.reason}"


def test_a_long_label_is_cut_in_the_message(tmp_path: Path) -> None:
    path = sib_file(tmp_path, HEADER + f"1\t{'x' * 5000}\ta\n")
    (bad,) = SIB.read_file(path, "test").bad_rows
    assert len(bad.reason) < 250


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"1\ttravel\tno header\n", "line 1: the header lacks the column 'index_id'; expected"),
        (b"index_id\ttext\n1\ta\n", "line 1: the header lacks the column 'category'"),
        (b"index_id\tcategory\ttext\ttext\n", "line 1: the header has more than one column 'text'"),
        (b"index_id\tcategory\t\xff\n", "line 1: not UTF-8"),
        ("index_id\tcategory\ttext\n".encode("utf-16"), "line 1: a NUL byte"),
    ],
)
def test_a_file_without_its_columns_is_refused_whatever_is_skipped(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = sib_file(tmp_path, content)
    with pytest.raises(DataError, match=message) as error:
        SIB.read_file(path, "test")
    assert str(path) in str(error.value)


def test_an_example_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Example("1", {}, 0).label = 1  # type: ignore[misc]


def test_what_the_hub_may_hold_in_a_column() -> None:
    labels = {"a": 0}
    for row, message in [
        ({}, "no column 'x'; there are "),
        ({"x": None}, "column 'x' is empty"),
        ({"x": 3.5}, "column 'x' holds 3.5, not a text"),
    ]:
        with pytest.raises(ValueError, match=message):
            text_in(row, "x")
        with pytest.raises(ValueError, match=message):
            label_in(row, "x", labels)


# XNLI's files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", 'p "1"\th\tneutral\nq\t"i\tcontradictory\n'),
        ("t.tsv", 'premise\thypothesis\tlabel\np "1"\th\tneutral\nq\t"i\tcontradiction\n'),
        ("t.tsv", 'Label\tHypo\tPremise\nneutral\th\tp "1"\nContradictory\t"i\tq\n'),
        ("t.tsv", 'gold_label\tx\tsentence1\thypo\nneutral\t\tp "1"\th\ncontradictory\t\tq\t"i\n'),
        ("t.csv", 'premise,hypothesis,label\n"p ""1""",h,neutral\nq,"""i",contradiction\n'),
        ("t.CSV", '\ufeff"p ""1""","h","neutral"\r\n"q","""i","contradictory"\r\n'),
    ],
)  # fmt: skip
def test_training_files_of_every_form(tmp_path: Path, name: str, content: str) -> None:
    split = XNLI.read_file(nli_file(tmp_path, content, name), "train")
    assert split.bad_rows == []
    assert split.examples == [
        Example("1", {"premise": 'p "1"', "hypothesis": "h"}, 1),
        Example("2", {"premise": "q", "hypothesis": '"i'}, 2),
    ]


def test_a_comma_in_an_unquoted_csv_cell_is_a_bad_row(tmp_path: Path) -> None:
    path = nli_file(tmp_path, "premise,hypothesis,label\na, b,c,neutral\na,b,-\n", "t.csv")
    first, second = XNLI.read_file(path, "train").bad_rows
    assert (first.line, second.line) == (2, 3)
    assert "4 columns where 3" in first.reason
    assert "unknown label '-'" in second.reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("premise\thypothesis\na\tb\n", "the rows have no label; expected premise"),
        ("a\tb\nc\td\n", "the rows have no label; expected premise"),
        ("premise\tlabel\na\tneutral\n", "line 1: the header lacks the column 'hypothesis'"),
        ("premise\thypo\thypothesis\tlabel\n", "more than one column 'hypothesis'"),
    ],
)
def test_training_files_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        XNLI.read_file(nli_file(tmp_path, content), "train")


def test_test_labels_belong_to_rows_by_number_bad_rows_included(tmp_path: Path) -> None:
    nli_file(tmp_path, "neutral\nneutral\ncontradiction\nmaybe\n\n", "test-labels.txt")
    path = nli_file(tmp_path, "a\tb\nbroken\nc\td\ne\tf\n", "test-sw.tsv")
    split = XNLI.read_local(tmp_path, "swh_Latn", "test")
    assert [(e.id, e.fields["premise"], e.label) for e in split.examples] == [
        ("1", "a", 1),
        ("3", "c", 2),
    ]
    assert [(bad.line, bad.reason.partition(";")[0]) for bad in split.bad_rows] == [
        (2, "1 column where 2 are expected (premise, hypothesis)"),
        (4, "unknown label 'maybe'"),
    ]
    assert split.sources == [str(path), str(tmp_path / "test-labels.txt")]


def test_test_files_may_carry_their_labels(tmp_path: Path) -> None:
    nli_file(tmp_path, "a\tb\tentailment\nc\td\tneutral\n", "test-de.tsv")
    split = XNLI.read_local(tmp_path, "deu_Latn", "test")
    assert [example.label for example in split.examples] == [0, 1]
    assert len(split.sources) == 1


def test_labels_that_are_missing_or_do_not_fit_the_rows(tmp_path: Path) -> None:
    nli_file(tmp_path, "a\tb\nc\td\n", "test-de.tsv")
    with pytest.raises(DataError, match=r"no '.*test-labels.txt' with them"):
        XNLI.read_local(tmp_path, "deu_Latn", "test")
    nli_file(tmp_path, "neutral\n", "test-labels.txt")
    with pytest.raises(DataError, match=r"has 1 labels, but .*test-de.tsv has 2 rows"):
        XNLI.read_local(tmp_path, "deu_Latn", "test")


# Local folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["data/annotated", "annotated", "data", "."])
def test_sib200_is_found_in_each_layout(tmp_path: Path, above: str) -> None:
    sib_file(tmp_path / above, HEADER + "1\ttravel\ta\n", "dev")
    assert SIB.languages_in(tmp_path) == ["eng_Latn"]
    assert len(SIB.read_local(tmp_path, "eng_Latn", "dev").examples) == 1


def test_a_folder_that_does_not_exist_names_a_close_one(tmp_path: Path) -> None:
    (tmp_path / "sib200").mkdir()
    with pytest.raises(DataError, match=r"sib20' does not exist. Did you mean '.*sib200'\?.*train"):
        SIB.languages_in(tmp_path / "sib20")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file' is not a folder"):
        SIB.languages_in(tmp_path / "file")


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "dev-en.tsv").touch()
    with pytest.raises(DataError, match=r"no file of task 'sib200'.*The folder holds: dev-en.tsv"):
        SIB.languages_in(tmp_path)


def test_a_missing_file_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    for name in ("dev-en.tsv", "dev-sw.tsv"):
        nli_file(tmp_path, "a\tb\tneutral\n", name)
    with pytest.raises(DataError, match=r"no dev file for deu_Latn.*dev-de.tsv.*eng_Latn, swh_Lat"):
        XNLI.read_local(tmp_path, "deu_Latn", "dev")
    with pytest.raises(DataError, match=r"train-en.tsv'; train files there: none. .*task.train_da"):
        XNLI.read_local(tmp_path, "eng_Latn", "train")


# The real files ----------------------------------------------------------------------------------


def test_every_row_of_sib200(real_data: Path) -> None:
    folder = real_data / "sib200"
    assert SIB.languages_in(folder) == list(SIB.language_codes)
    for split, count in SPLITS.items():
        english = SIB.read_local(folder, "eng_Latn", split).examples
        for code in SIB.language_codes:
            read = SIB.read_local(folder, code, split)
            assert read.bad_rows == []
            assert len(read.examples) == count
            # Parallel: same sentences, same order, same topics.
            assert [(e.id, e.label) for e in read.examples] == [(e.id, e.label) for e in english]
            # Written again with the quoting of Python's csv, the file is the same to the byte.
            text = io.StringIO(newline="")
            writer = csv.writer(text, delimiter="\t", lineterminator="\n")
            writer.writerow(SIB.columns)
            writer.writerows(
                [example.id, SIB.labels[example.label], example.fields["text"]]
                for example in read.examples
            )
            assert text.getvalue().encode() == Path(read.sources[0]).read_bytes()


def test_every_row_of_xnli(real_data: Path) -> None:
    folder = real_data / "xnli"
    assert XNLI.languages_in(folder) == list(XNLI.language_codes)
    english = XNLI.read_local(folder, "eng_Latn", "dev").examples
    for code in XNLI.language_codes:
        test = XNLI.read_local(folder, code, "test")
        assert Counter(e.label for e in test.examples) == {0: 1670, 1: 1670, 2: 1670}
        dev = XNLI.read_local(folder, code, "dev")
        assert [e.label for e in dev.examples] == [e.label for e in english]
        assert len(dev.examples) == 2490
        assert test.bad_rows == dev.bad_rows == []


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("multinli.train.en.tsv", {2: 5504, 0: 5100, 1: 4397}),
        ("mnli.dev.csv", {0: 6998, 2: 6532, 1: 6117}),
    ],
)
def test_stand_ins_for_the_training_file(real_data: Path, name: str, counts: Any) -> None:
    read = XNLI.read_file(real_data / "nli_train" / name, "train")
    assert read.bad_rows == []
    assert Counter(example.label for example in read.examples) == counts
