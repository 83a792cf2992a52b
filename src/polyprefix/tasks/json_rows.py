"""Rows of JSON Lines files, read so that one broken row costs one row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from polyprefix.tasks.examples import Row, RowError
from polyprefix.tasks.rows import read_lines


def json_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """The objects of a file: the line of each, counted from 1, and the object or what is wrong.

    Raises:
        DataError: the file is missing, cannot be read or is empty.
    """
    for number, line in enumerate(read_lines(path), start=1):
        try:
            # decoded here: json would take NUL bytes for the sign of another encoding
            value = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield number, RowError(f"not UTF-8 (byte {error.start + 1} of the line)")
        except json.JSONDecodeError as error:
            yield number, RowError(f"not JSON: {error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:  # digits or brackets without end
            yield number, RowError(f"not JSON: {error}")
        else:
            problem = RowError(f"expected a JSON object, found {type(value).__name__}")
            yield number, value if isinstance(value, dict) else problem
