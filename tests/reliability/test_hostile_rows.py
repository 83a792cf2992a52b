"""Any text in any column of any format: the example has that text, or the row is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyprefix.config import DataError, TaskConfig
from polyprefix.tasks import Example, TaskData, load_task_data
from tests.reliability.hostile import FORMATS, TEXTS, Format


def load(format_: Format, folder: Path, name: str, *, bad_rows: str = "error") -> TaskData:
    config = TaskConfig.read(
        {
            "name": name,
            "data": None if name.endswith(".yaml") else str(folder),
            "languages": format_.target,
            "bad_rows": bad_rows,
        }
    )
    return load_task_data(config, seed=0)


def splits(data: TaskData) -> dict[str, list[Example]]:
    tests = dict(zip(("test", "target"), data.test.values(), strict=True))
    return {"train": data.train, "dev": data.dev, **tests}


def where(example: Example, place: str) -> str:
    if place == "id":
        return example.id
    if place == "in the id":
        return example.id.rpartition("#")[0]
    if place == "answer":
        [answer] = example.answers
        return answer
    return example.fields[place]


@pytest.mark.parametrize("name", FORMATS)
def test_the_formats_are_read(name: str, tmp_path: Path) -> None:
    """Or else what is refused below says nothing."""
    format_ = FORMATS[name]
    column = next(column for column, place in format_.turns_up.items() if place != "no text")
    task = format_.write(tmp_path, format_.splits[1], column, "a text of its own")
    found = splits(load(format_, tmp_path, task))
    assert [len(found[part]) for part in ("train", "dev", "test", "target")] == [8, 4, 4, 4]
    there = [where(example, format_.turns_up[column]) for example in found[format_.splits[1]]]
    assert there[1] == "a text of its own"


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_hostile_text_is_there_as_it_is_or_refused(name: str, kind: str, tmp_path: Path) -> None:
    format_, text = FORMATS[name], TEXTS[kind]
    for column, place in format_.turns_up.items():
        for split in format_.splits:
            folder = tmp_path / f"{column}-{split}"
            task = format_.write(folder, split, column, text)
            try:
                data = load(format_, folder, task)
            except DataError as error:
                told(str(error))
                if "\n" not in text:  # the parts of a line that is cut may be rows
                    check_skipping(format_, folder, task, split)
                continue
            assert place != "no text", (column, split)
            there = where(splits(data)[split][1], place)
            # in a quoted cell of several lines they end as the file's lines do
            same = (text, text.strip(), text.replace("\r\n", "\n"))
            assert there in same, (column, split, there[:80])


def test_a_megabyte_is_not_refused(tmp_path: Path) -> None:
    """Of the texts above, what is long and what looks like code are texts like others."""
    for kind in ("a megabyte", "HTML", "Jinja", "shell", "percent", "braces", "right to left"):
        for name in ("sib200", "xnli", "xquad", "a YAML task with CSV"):
            format_ = FORMATS[name]
            column = next(
                c
                for c, place in format_.turns_up.items()
                if place in ("text", "context", "premise")
            )
            folder = tmp_path / f"{kind}-{name}"
            task = format_.write(folder, "target", column, TEXTS[kind])
            assert splits(load(format_, folder, task))["target"]


def told(message: str) -> None:
    """It can be printed, says which file, and is no longer than somebody reads."""
    assert len(message) < 4000
    assert all(c.isprintable() or c == "\n" for c in message)
    assert any(end in message for end in (".tsv", ".csv", ".json"))


def check_skipping(format_: Format, folder: Path, task: str, split: str) -> None:
    """Without the bad row the others are what they were: none has a part of the text."""
    try:
        found = splits(load(format_, folder, task, bad_rows="skip"))
    except DataError as error:
        told(str(error))
        return
    rows = [format_.row(n) for n in (*range(8), *range(20, 24), *range(40, 44))]
    allowed = {str(value) for row in rows for value in row.values()}
    for example in found[split]:
        for field in example.fields.values():
            assert any(field.rstrip(".") in text for text in allowed), field
