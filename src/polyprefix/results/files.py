"""Writing files so that a kill at any moment leaves the old one or the new one, never a part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from polyprefix.config import RunError, Unwritable

PART = ".part"
"""How the names of files end that are not whole yet."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong with files in here is told as a path that cannot be written.

    Raises:
        Unwritable: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise Unwritable(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file in full or not at all: a temporary file beside it, synced, then renamed.

    Raises:
        Unwritable: the folder cannot be written to, or the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def remove_parts(folder: Path) -> None:
    """Remove what killed processes had not written to its end, in a folder and below it."""
    for path in folder.rglob(f".*{PART}"):
        with suppress(OSError):
            path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, atomically."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_atomically(path, "".join(line + "\n" for line in lines))


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        RunError: it is missing or damaged.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: expected an object, found {type(value).__name__}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of one JSON object a line.

    Raises:
        RunError: it is missing, or a line is damaged (file and line are named).
    """
    rows: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError) as error:
                    raise RunError(f"{path}, line {number} is damaged: {error}") from None
                if not isinstance(row, dict):
                    raise RunError(f"{path}, line {number} is damaged: not an object")
                rows.append(row)
    except OSError as error:
        raise RunError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    return rows
