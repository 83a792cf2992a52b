"""Files of any bytes, in every format: examples, or a DataError that names the file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyprefix.config import DataError, PolyprefixError
from polyprefix.tasks import Split, get_task
from polyprefix.tasks.json_rows import json_rows
from tests.reliability.hostile import TEXTS, YAML_ANSWER, YAML_CHOICE

FUZZ = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def told(error: PolyprefixError) -> None:
    assert isinstance(error, DataError)
    assert "file" in str(error)


READERS = {
    "sib200": ".tsv",
    "xnli": ".tsv",
    "paws_x": ".tsv",
    "xcopa": ".jsonl",
    "xcopa's table": ".csv",
    "belebele": ".jsonl",
    "belebele's table": ".tsv",
    "xquad": ".json",
    "mgsm": ".tsv",
    "gsm8k": ".jsonl",
    "YAML CSV": ".csv",
    "YAML tabs": ".tsv",
    "YAML JSON": ".jsonl",
}

HEADERS = [
    b"index_id\tcategory\ttext",
    b"id\tsentence1\tsentence2\tlabel",
    b"premise\thypothesis\tlabel",
    b"n,text,sentiment",
    b"n;text;sentiment",
    b"n\ttext\tsentiment",
    b"premise,choice1,choice2,question,label",
    b"passage\tquestion\tanswer1\tanswer2\tanswer3\tanswer4\tcorrect_answer_num",
]

PIECES = st.one_of(
    st.sampled_from([*b"\t\n\r\",;'\\\0", *b"[]{}:", 0xEF, 0xBB, 0xBF, 0xFF, 0xFE, 0xC3, 0xD8]).map(
        lambda byte: bytes([byte])
    ),
    st.sampled_from(
        [b"sports", b"entailment", b"0", b"1", b"good", b"cause", b"####", b"NaN", b"1e999", b'""']
    ),
    st.binary(max_size=6),
    st.text(max_size=6).map(lambda text: text.encode()),
)

TABLES = st.tuples(
    st.one_of(st.sampled_from(HEADERS), st.binary(max_size=20)),
    st.lists(PIECES, max_size=40),
).map(lambda parts: parts[0] + b"\n" + b"".join(parts[1]))

KEYS = st.sampled_from(
    [
        "data",
        "paragraphs",
        "context",
        "qas",
        "id",
        "question",
        "answers",
        "text",
        "answer",
        "premise",
        "choice1",
        "choice2",
        "label",
        "idx",
        "flores_passage",
        "mc_answer1",
        "mc_answer2",
        "mc_answer3",
        "mc_answer4",
        "correct_answer_num",
        "link",
        "items",
        "answer_number",
        "metadata",
        "n",
    ]
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*(text for text in TEXTS.values() if len(text) < 100), "cause", "1", "2"]),
)

VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)

LINES = st.lists(
    st.one_of(st.dictionaries(KEYS, VALUES, max_size=8), VALUES), min_size=1, max_size=4
).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode())

WHOLE = VALUES.map(lambda value: json.dumps(value).encode())

CONTENT = st.one_of(TABLES, LINES, WHOLE, st.binary(max_size=60))


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tasks")
    found: dict[str, Any] = {}
    for name, spec in {
        "YAML CSV": YAML_CHOICE % "csv",
        "YAML tabs": YAML_CHOICE % "tsv",
        "YAML JSON": YAML_ANSWER,
    }.items():
        path = folder / f"{len(found)}.yaml"
        path.write_text(spec)
        found[name] = get_task(str(path))
    for name in READERS:
        if name not in found:
            task = {"gsm8k": "mgsm"}.get(name, name.partition("'")[0])
            found[name] = get_task(task)
    return found


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_examples_or_an_error(name: str, readers: dict[str, Any]) -> None:
    task = readers[name]

    @FUZZ
    @given(content=CONTENT, split=st.sampled_from(["train", "test"]))
    def check(content: bytes, split: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"file{READERS[name]}")
            path.write_bytes(content)
            try:
                found: Split = task.read_file(path, split)
            except PolyprefixError as error:
                told(error)
                return
        for example in found.examples:
            for text in (example.id, *example.fields.values(), *example.answers):
                assert isinstance(text, str)
                text.encode()
            prompt = task.prompt
            prompt.render(example.fields)
            assert len(prompt.render_choices(example.fields)) == len(getattr(task, "labels", ()))
        assert all(str(row).isprintable() for row in found.bad_rows if name != "xquad")

    check()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\0\0\0{", "not JSON"),
        (b'{"a"', "not JSON"),
        (b"\xff\xfe{\0", "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b"3", "expected a JSON object, found int"),
    ],
)
def test_lines_that_are_no_json(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"first": 1}\n' + line + b"\n")
    (_, first), (number, second) = json_rows(path)
    assert first == {"first": 1}
    assert number == 2
    assert message in str(second)
