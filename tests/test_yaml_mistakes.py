"""Mistakes in the YAML file of a task and in its data, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import ConfigError, DataError
from polyprefix.tasks import get_task
from tests.yaml_tasks import ANSWER, CHOICE, changed, load, tables, written

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"promt": "x"}, r"unknown key 'promt'. Did you mean 'prompt'\? Known keys: na"),
    "inner key": ({"columns": {"lable": "x"}}, r"unknown key 'columns.lable'. Did you mean 'lab"),
    "no key": ({"prompt": None}, "key 'prompt' is required"),
    "kind": ({"kind": "choices"}, r"key 'kind': .*'choice' or 'answer' \(got 'choices'\)"),
    "name": ({"name": "my task"}, r"key 'name': .*\(got 'my task'\)"),
    "taken": ({"name": "xnli"}, "key 'name': there is a task 'xnli' already"),
    "language": ({"languages": {"en": "en", "xx": "Swahilli"}}, r"'languages.xx': .*swh_Latn"),
    "twice": ({"languages": ["sw", "swh"]}, "'sw' and 'swh' both mean swh_Latn"),
    "no language": ({"languages": []}, "key 'languages' is empty"),
    "both": ({"hub": "a/b"}, "give 'files', or 'hub' with a name: both are given"),
    "neither": ({"files": None}, "give 'files', or 'hub' with a name: neither is given"),
    "split": ({"files": {"valid": "x"}}, r"key 'files.valid.*'train', 'dev' or 'test'"),
    "no dev": ({"files": {"test": "{language}"}}, r"'files.dev' is required.*dev_share: 0.1"),
    "dev twice": (
        {"files": {"dev": "{language}", "test": "{language}"}, "dev_share": 0.1},
        "'dev_share' has no effect: there is 'files.dev'",
    ),
    "which": ({"files": "{split}.csv"}, r"key 'files.train': of which language is .*{en: {sp"),
    "placeholder": ({"files": "{split}-{lang}"}, r"unknown placeholder 'lang'.*Known: langu"),
    "file of": (
        {"files": {"test": {"enn": "x"}, "dev": {"en": "x"}}},
        r"key 'files.test.enn': unknown language 'enn'. Did you mean 'en'",
    ),
    "splits": (
        {"files": {"test": "{language}", "dev": {"en": "x"}}, "splits": {"dev": "valid"}},
        r"'splits' has no effect: no path holds {split}",
    ),
    "folder as hub": ({"files": None, "hub": "./data"}, r"'hub.name': './data' is not the na"),
    "config": (
        {"files": None, "hub": {"name": "a/b", "config": "x"}},
        r"'hub.config' holds no {language}",
    ),
    "hub format": ({"files": None, "hub": "a/b", "format": "csv"}, "'format' has no effect: the"),
    "json": ({"format": "jsonl", "quoted": "no"}, "'quoted' has no effect: JSON Lines"),
    "no label": ({"columns": {"id": "n"}}, "key 'columns.label' is required"),
    "one choice": ({"choices": {"a": "b"}}, "key 'choices' is required: two or more"),
    "same answer": ({"choices": {"a": "x", "b": "x"}}, r"'choices': the choices .* not all diff"),
    "same label": ({"labels": {"Positive": "negative"}}, "label 'positive' is named twice"),
    "labels": ({"labels": {"1": "postive"}}, r"'labels.1': unknown choice .*mean 'positive'"),
    "metrics": ({"metrics": ["squad"]}, "key 'metrics' has no effect: kind is 'choice'"),
    "headline": ({"headline": "f1"}, r"'headline': unknown score 'f1'.*Known: accuracy, m"),
    "braces": ({"prompt": "{text} is"}, r"key 'prompt': it uses no column.*{{ text }}, in two"),
    "jinja": ({"prompt": "{{ text"}, r"keys 'prompt' and 'choices': .*unexpected end of template"),
    "space": ({"prompt": "{{ text }} is "}, "ends in white space"),
    "backslash": ({"prompt": r"{{ text }}\nIs"}, "key 'prompt' holds a backslash and an n"),
    "field": (
        {"columns": {"label": "sentiment", "fields": {"txt": "text"}}},
        r"'columns.fields.txt' has no effect: unknown field of the prompt 'txt'. Did you mean 'tex",
    ),
    "too long": ({"delimiter": ";;"}, "key 'delimiter': .*at most 1 character"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_meant_is_said_with_file_and_key(tmp_path: Path, mistake: str) -> None:
    changes, message = MISTAKES[mistake]
    path = written(tmp_path, changed(CHOICE, **changes), tables())
    with pytest.raises(ConfigError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": "rouge"}, r"'metrics': unknown metric 'rouge'.*Known: exact, mgsm, mlqa, num"),
        ({"metrics": None}, "key 'metrics' is required: one or more of squad"),
        ({"choices": {"a": "b"}}, "key 'choices' has no effect: kind is 'answer'"),
        ({"columns": {}}, "key 'columns.answers' is required"),
        ({"passage": "text"}, "key 'passage': unknown field of the prompt 'text'"),
        ({"stop": r"\n\n"}, "key 'stop' holds a backslash"),
        ({"headline": "exact_mach"}, "unknown score .*Did you mean 'exact_match'"),
        ({"max_new_tokens": "0"}, "key 'max_new_tokens': .*greater than 0"),
    ],
)
def test_mistakes_in_tasks_of_written_answers(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_task(str(written(tmp_path, changed(ANSWER, **changes), {})))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: mine\nkind: choice\nname: other\n",
            r"line 3, column 1: the key 'name' stands on li",
        ),
        (
            "name: mine\nprompt: {{ text }}\n",
            r"line 2, column 10: text with braces has to stand in",
        ),
        ("name: mine\nfiles: {language}.csv\n", r"line 2, .*: "),
        ("name: mine\nhub: {config: {language}}\n", r"line 2, column 15: text with braces has to"),
        ("name: mine\n\tkind: choice\n", r"line 2, column 1: found character '\\t'"),
        ("- mine\n", "expected keys and values, found list"),
        ("", "expected keys and values, found NoneType"),
        ("model: {name: x}\ntask: {name: sib200}\n", "unknown key 'model'"),
    ],
)
def test_a_file_that_is_not_a_task(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text, {})
    with pytest.raises(ConfigError, match=message) as error:
        get_task(str(path))
    assert str(error.value).startswith(str(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, CHOICE, {})
    with pytest.raises(ConfigError, match=r"'task.name': no task file '.*yuors.yaml'; .* mine.y"):
        get_task(str(tmp_path / "yuors.yaml"))
    with pytest.raises(ConfigError, match="no task file"):
        get_task("no/such")
    with pytest.raises(ConfigError, match="cannot read the task file"):
        get_task(str(tmp_path) + "/")
    path.write_bytes("name: mine".encode("utf-16"))
    with pytest.raises(ConfigError, match="cannot read the task file"):
        get_task(str(path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"label": "sentiment"},
            r"train-en.csv: unknown column 'text'..*Known: review, sentiment. .*mine.yaml asks "
            r"for it with key 'prompt'. Write the column .* columns.fields.text",
        ),
        (
            {"label": "sentimnt", "fields": {"text": "review"}},
            r"Did you mean 'sentiment'\?.* with key 'columns.label'. Name the right one there",
        ),
        ({"label": "sentiment", "fields": {"text": "body"}}, "with key 'columns.fields.text'"),
        ({"label": "sentiment", "fields": {"text": "review"}, "id": "n"}, "key 'columns.id'"),
        ({"label": "sentiment", "fields": {"text": "review"}, "split": "n"}, "key 'columns.split'"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_column_that_is_not_there(
    tmp_path: Path, columns: Any, message: str, suffix: str
) -> None:
    table = "review;sentiment\nGreat;positive\n"
    if suffix == "jsonl":
        table = '{"review": "Great", "sentiment": "positive"}'
        message = message.replace("en.csv", "en.jsonl")
    spec = changed(CHOICE, columns=columns, files=f"{{split}}-{{language}}.{suffix}")
    with pytest.raises(DataError, match=message):
        load(written(tmp_path, spec, tables(table, suffix)))


def test_bad_rows_name_their_line_in_the_file(tmp_path: Path) -> None:
    table = b"text,sentiment\nGood,positive\nFine,positve\nSch\xf6n,positive\nBad\n"
    path = written(tmp_path, CHOICE, tables(table))
    with pytest.raises(DataError) as error:
        load(path, languages="en")
    assert "test-en.csv, line 3: unknown label 'positve'" not in str(error.value)  # five are shown
    assert f"{tmp_path}/train-en.csv, line 3: unknown label 'positve'; expected" in str(error.value)
    assert f"{tmp_path}/train-en.csv, line 4: not UTF-8 (0xf6 at byte 4)" in str(error.value)
    assert "line 5: 1 column where 2 are expected (text, sentiment)" in str(error.value)
    assert load(path, languages="en", bad_rows="skip").sizes["train"] == 1
    (tmp_path / "train-en.csv").write_text("text,text,sentiment\n")
    with pytest.raises(DataError, match="more than one column 'text'"):
        load(path)
    lines = {name.replace("csv", "jsonl"): b"[1]\n" for name in tables()}
    spec = changed(CHOICE, files="{split}-{language}.jsonl")
    with pytest.raises(DataError, match=r"line 1: expected a JSON object, found list"):
        load(written(tmp_path, spec, lines))
