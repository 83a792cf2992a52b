"""What every task's data becomes, wherever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from polyprefix.config import printable

SplitName = Literal["train", "dev", "test"]
"""What a part of a task's data is for."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question, with its right label or its right answers.

    Attributes:
        id: unique in its split; the same in every language where the languages are parallel.
        fields: what the prompt's template may use.
        label: index into the ``labels`` of a task of choices, -1 for other tasks.
        answers: texts that are right, for a task whose answers are written freely.
        target: the text to train on where that is not the first of ``answers``, a solution with its
            steps for instance.
    """

    id: str
    fields: dict[str, str]
    label: int = -1
    answers: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: the file (or hub dataset), its line, counted from 1, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Split:
    """The examples of one split in one language, in the order of the file.

    ``sources`` names every file that was read for it.
    """

    examples: list[Example] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


class RowError(ValueError):
    """Why one row cannot be used. It ends the row, not the reading: it becomes a BadRow."""


Row = Mapping[str, Any]
"""A row by the names of its columns: texts from a file, what the dataset holds from the hub."""


def collect(
    file: str,
    rows: Iterable[tuple[int, Row | RowError]],
    make: Callable[[int, Row], Example],
    sources: Iterable[str] = (),
) -> Split:
    """Make the examples of a split, and keep what is wrong with the rows that give none.

    Args:
        file: what the rows come from, for the bad rows.
        rows: each row's line and its columns, or what is wrong with it.
        make: from a row's position, counted from 1, and its columns to an example.
        sources: what else was read.
    """
    split = Split(sources=[file, *sources])
    line_of: dict[str, int] = {}
    for position, (line, row) in enumerate(rows, start=1):
        try:
            if isinstance(row, RowError):
                raise row
            example = make(position, row)
            _check_texts(example)
            if example.id in line_of:
                raise RowError(f"the id {example.id!r} is taken by line {line_of[example.id]}")
        except RowError as error:
            split.bad_rows.append(BadRow(file, line, _one_line(str(error))))
        else:
            line_of[example.id] = line
            split.examples.append(example)
    return split


def unpaired(text: str) -> str | None:
    """What is wrong with a text that JSON can write (``"\\ud800"``) and UTF-8 cannot, if it is
    one: no tokenizer reads it, and no file takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not Unicode text: an unpaired surrogate at character {error.start + 1}"
    return None


def _check_texts(example: Example) -> None:
    texts = [("id", example.id), *example.fields.items(), ("target", example.target)]
    for name, text in [*texts, *(("answer", answer) for answer in example.answers)]:
        if (problem := unpaired(text)) is not None:
            raise RowError(f"{name!r} is {problem}")


LONGEST = 400
"""Characters of a reason: what stands in a row may be a megabyte."""


def _one_line(reason: str) -> str:
    """A reason as it can be printed: a row's texts may turn the line around, or colour it."""
    return printable(reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}...")


def text_in(row: Row, column: str) -> str:
    """The text in a column, exactly as it stands there, spaces at its ends included.

    Raises:
        RowError: there is no such column, or no text in it.
    """
    if column not in row:
        raise RowError(f"no column {column!r}; there are {', '.join(row)}")
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowError(f"column {column!r} is empty")
    if not isinstance(value, str):
        raise RowError(f"column {column!r} holds {value!r}, not a text")
    return value


def label_in(row: Row, column: str, labels: Mapping[str, int]) -> int:
    """The index of the label in a column; case and surrounding spaces do not matter.

    Args:
        row: the columns of a row.
        column: where the label is.
        labels: every accepted spelling, in lower case, and its index.

    Raises:
        RowError: no column, nothing in it, or none of ``labels``.
    """
    text = text_in(row, column)
    index = labels.get(text.strip().lower())
    if index is None:
        shown = text if len(text) <= 60 else text[:60] + "..."
        raise RowError(f"unknown label {shown!r}; expected one of {', '.join(labels)}")
    return index
