"""Any text in any column of any format: the example has that text, or the row is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyprefix.config import DataError, TaskConfig
from polyprefix.tasks import Example, TaskData, load_task_data
from tests.reliability.hostile import FORMATS, TEXTS, Format

NOT_BARE = {"NUL", "line breaks", "tab"}
"""What a table without quotes cannot hold."""


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
    for column, place in format_.turns_up.items():
        if place != "no text":
            good = str(format_.row(41)[column]) if place != "answer" else "word 41"
            folder = tmp_path / column
            task = format_.write(folder, "target", column, good)
            found = splits(load(format_, folder, task))
            assert [len(found[part]) for part in ("train", "dev", "test", "target")] == [8, 4, 4, 4]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_hostile_text_is_there_as_it_is_or_refused(name: str, kind: str, tmp_path: Path) -> None:
    format_, text = FORMATS[name], TEXTS[kind]
    for column, place in format_.turns_up.items():
        for split in ("train", "target"):
            folder = tmp_path / f"{column}-{split}"
            task = format_.write(folder, split, column, text)
            try:
                data = load(format_, folder, task)
            except DataError as error:
                told(str(error))
                check_skipping(format_, folder, task, split)
                continue
            found = splits(data)
            assert place != "no text" or column in ("answer_number", "answer"), (column, split)
            if len(found[split]) == len(format_.row(0)) * 0:  # a split that the format ignores
                continue
            if place == "no text":
                continue
            texts = [where(example, place) for example in found[split]]
            assert texts.count(text) + texts.count(text.strip()) >= 1 or in_part(format_, split), (
                column,
                split,
                [t[:80] for t in texts],
            )


def in_part(format_: Format, split: str) -> bool:
    """Whether a format does not take this split's rows from where the text stands."""
    tables = {"mgsm": ("train", "dev"), "gsm8k": ("test", "target")}
    if format_ is FORMATS["mgsm"]:
        return split in tables["mgsm"]
    if format_ is FORMATS["gsm8k"]:
        return split in tables["gsm8k"]
    return False


def told(message: str) -> None:
    """It can be printed, says which file, and is no longer than somebody reads."""
    assert len(message) < 4000
    assert all(c.isprintable() or c == "\n" for c in message)
    assert "Correct them" in message or "line 1" in message or "no usable row" in message
    assert any(end in message for end in (".tsv", ".csv", ".json"))


def check_skipping(format_: Format, folder: Path, task: str, split: str) -> None:
    """Without the bad row the others are what they were: none has a part of the text."""
    try:
        found = splits(load(format_, folder, task, bad_rows="skip"))
    except DataError as error:
        told(str(error))
        return
    good = {
        tuple(map(str, format_.row(n).values())) for n in (*range(8), *range(20, 24), *range(40, 44))
    }
    allowed = {text for row in good for text in row}
    for example in found[split]:
        for field in example.fields.values():
            assert field in allowed or any(field.rstrip(".") in text for text in allowed), field
