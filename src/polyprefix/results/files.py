"""Writing files so that a kill at any moment leaves the old one or the new one, never a part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polyprefix.config import RunError, Unwritable


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file in full or not at all: a temporary file beside it, synced, then renamed.

    Raises:
        Unwritable: the folder cannot be written to, or the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise Unwritable(f"cannot write {str(path)!r}: {error.strerror or error}") from error


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
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of one JSON object a line.

    Raises:
        RunError: it is missing, or a line is damaged (file and line are named).
    """
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise RunError(f"{path}, line {number} is damaged: {error}") from None
    except OSError as error:
        raise RunError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    return rows
