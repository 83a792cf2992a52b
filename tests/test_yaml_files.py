"""Tables and JSON lines as people have them, read by the task of a YAML file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyprefix.config import DataError
from polyprefix.tasks import get_task
from tests.yaml_tasks import CHOICE, changed, texts, written


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("a.csv", ' text ,sentiment\n"One, two",positive\n  three  , NEGATIVE\n'),
        ("a.csv", '"text";"sentiment"\n"One, two";positive\nthree;negative\n'),
        ("a.CSV", 'n;text;sentiment\n1;One, two;positive\n;;\n2;"three";negative\n;;\n;;\n'),
        ("a.csv", "text\tsentiment\nOne, two\tpositive\n\nthree\tnegative\n"),
        ("a.tsv", 'text\tsentiment\n"One, two"\tpositive\nthree\tnegative\n'),
        ("a.txt", "sentiment\ttext\npositive\tOne, two\nnegative\tthree\n"),
        ("a.jsonl", '{"text": "One, two", "sentiment": "positive"}\n{"text": " three",'
         ' "sentiment": "negative", "n": 1}\n'),
    ],
)  # fmt: skip
def test_tables_of_every_form(tmp_path: Path, name: str, table: str, end: str, bom: str) -> None:
    path = tmp_path / name
    path.write_bytes((bom + table).replace("\n", end).encode())
    task = get_task(str(written(tmp_path, CHOICE, {})))
    split = task.read_file(path, "train")
    assert split.bad_rows == []
    assert [(e.fields["text"], e.label) for e in split.examples] == [("One, two", 0), ("three", 1)]


def test_format_delimiter_and_quotes_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text('text|sentiment\n"One|positive\n')
    spec = changed(CHOICE, format="csv", delimiter="|", quoted=False)
    task = get_task(str(written(tmp_path, spec, {})))
    assert texts(task.read_file(tmp_path / "a.dat", "train").examples) == ['"One']
    task = get_task(str(written(tmp_path, CHOICE, {})))
    with pytest.raises(DataError, match=r"a.dat: the name does not say .*mine.yaml the key 'for"):
        task.read_file(tmp_path / "a.dat", "train")


def test_cells_may_have_several_lines_and_an_open_quote_costs_one_row(tmp_path: Path) -> None:
    table = (
        "text,sentiment\n"
        '"Good.\n\nI mean it, ""really"".",positive\n'  # lines 2 to 4
        "Bad,negative\n"
        '"Never closed,positive\n'  # line 6
        'So, so","negative","x"\n'  # line 7: closes it, but three cells are no row here
        '"Good","positive"\n'
        '"Never closed either,negative\n'  # line 9
        "Fine,positive\n"
    )
    task = get_task(str(written(tmp_path, CHOICE, {"a.csv": table})))
    split = task.read_file(tmp_path / "a.csv", "train")
    assert texts(split.examples) == ['Good.\n\nI mean it, "really".', "Bad", "Good", "Fine"]
    assert [bad.line for bad in split.bad_rows] == [6, 7, 9]
    assert "a quote is not closed on the line" in split.bad_rows[0].reason


def test_a_row_on_which_the_prompt_fails_is_a_bad_row(tmp_path: Path) -> None:
    spec = changed(CHOICE, prompt="{{ 10 // (text | int) }}")
    task = get_task(
        str(written(tmp_path, spec, {"a.csv": "text,sentiment\n5,positive\nx,positive"}))
    )
    split = task.read_file(tmp_path / "a.csv", "train")
    assert len(split.examples) == 1
    assert str(split.bad_rows[0]).endswith("line 3: prompt: integer division or modulo by zero")


def test_choices_that_differ_from_row_to_row(tmp_path: Path) -> None:
    spec = changed(CHOICE, choices={"0": "{{ a }}", "1": "{{ b }}"})
    spec["columns"] = {"label": "right", "fields": {"a": "options.0", "b": "options.1"}}
    rows = [
        {"text": "t", "options": ["x", "y"], "right": 1},
        {"text": "u", "options": ["x", "x"], "right": 0},
        {"text": "v", "options": ["x"], "right": 0},
    ]
    lines = "\n".join(map(json.dumps, rows))
    task = get_task(str(written(tmp_path, spec, {"a.jsonl": lines})))
    split = task.read_file(tmp_path / "a.jsonl", "train")
    [example] = split.examples
    assert example.label == 1
    assert task.prompt.render_choices(example.fields) == (" x", " y")
    first, second = split.bad_rows
    assert first.reason == "two choices are the same: ' x', ' x'"
    assert second.reason == "no column 'options.1'; there are text, options, right"
