"""What stands in the columns of rows that come from anywhere: tables, JSON, the hub."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from polyprefix.tasks.examples import Row, RowError, text_in

Rows = list[tuple[int, Row | RowError]]
"""The line of each row, and its columns or what is wrong with it."""


def names_in(rows: Rows) -> list[str]:
    """The columns that some row has."""
    return list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))


def value_in(row: Row, column: str) -> Any:
    """What is in a column; ``a.b.0`` reaches into one that holds mappings or lists.

    Raises:
        RowError: there is no such column.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise RowError(f"no column {column!r}; there are {', '.join(row)}")
    return value


def plain_text(value: Any, column: str) -> str:
    """A text as it is, a number or truth value as JSON writes it.

    Raises:
        RowError: it is nothing of the kind, or empty.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(f"column {column!r} is empty ({value})")  # what pandas makes of no text
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError as error:  # more digits than Python writes
            raise RowError(f"column {column!r}: {error}") from None
    return text_in({column: value}, column)


def text_of(row: Row, column: str) -> str:
    """The text in a column, without spaces around it.

    Raises:
        RowError: there is no such column, or no text in it.
    """
    return plain_text(value_in(row, column), column).strip()


def _shown(row: Row, column: str) -> str:
    try:
        return text_of(row, column)
    except RowError:
        return "(nothing)"


def values_in(rows: Rows, column: str) -> list[str]:
    """What stands in a column, each once."""
    return sorted({_shown(row, column) for _, row in rows if not isinstance(row, RowError)})


def part_of(row: Row | RowError, column: str, value: str) -> Row | RowError | None:
    """The row if it belongs to a part, or if nobody knows to which part it belongs."""
    if isinstance(row, RowError):
        return row
    try:
        return row if text_of(row, column).casefold() == value.casefold() else None
    except RowError as error:
        return error
