"""A run's folder.

::

    runs/sib200-prefix_tuning-1f0c2a9b7d3e/
        config.json             the configuration, every default filled in
        record.json             what the run was and what it found
        log.jsonl               a line an optimizer step
        adapter/                the best adapter, see methods/storage.py
        predictions/<code>.jsonl  a line an example, with the score of every choice
        checkpoints/            while training

Every file appears whole. A record says in ``status`` how far the run is: ``running``, ``finished``
or ``failed``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyprefix.config import RunError
from polyprefix.results.files import (
    read_jsonl,
    read_object,
    remove_parts,
    write_json,
    write_jsonl,
)

FORMAT = 1
STATUSES = ("running", "finished", "failed")
ANEW = "--again runs the run anew"


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The folder's name, which is the run's in records and tables."""
        return self.path.name

    @property
    def adapter(self) -> Path:
        """Where the best adapter is."""
        return self.path / "adapter"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run; beside the folder, which may be replaced."""
        return self.path.parent / f".{self.path.name}.lock"

    # Record ------------------------------------------------------------------------------------

    def has_record(self) -> bool:
        """Whether the run was begun."""
        return (self.path / "record.json").is_file()

    def finished(self) -> bool:
        """Whether the run has come to its end.

        Raises:
            RunError: its record is damaged.
        """
        return self.has_record() and self.record()["status"] == "finished"

    def record(self) -> dict[str, Any]:
        """The record.

        Raises:
            RunError: there is none, it is damaged, or of another version's format.
        """
        path = self.path / "record.json"
        if not path.is_file():
            raise RunError(f"{str(self.path)!r} is not a run's folder: it has no record.json")
        try:
            record = read_object(path)
        except RunError as error:
            raise RunError(f"{error}. {ANEW}") from error
        if (found := record.get("format")) != FORMAT:
            raise RunError(
                f"{path}: format {found!r}; this version of Polyprefix reads format {FORMAT}"
            )
        if record.get("status") not in STATUSES:
            raise RunError(f"{path} is damaged: its status is {record.get('status')!r}. {ANEW}")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """``record.json``, whole, with the number of its format."""
        write_json(self.path / "record.json", {"format": FORMAT, **record})

    def write_config(self, config: dict[str, Any]) -> None:
        """``config.json``, whole."""
        write_json(self.path / "config.json", config)

    # Predictions -------------------------------------------------------------------------------

    def predictions_path(self, language: str) -> Path:
        """Of the prediction rows of a language (FLORES-200 code)."""
        return self.path / "predictions" / f"{language}.jsonl"

    def predictions(self, language: str) -> list[dict[str, Any]] | None:
        """The prediction rows of a language, ``None`` if it has not been scored."""
        path = self.predictions_path(language)
        return read_jsonl(path) if path.is_file() else None

    def prediction_texts(self, language: str, keys: Sequence[str]) -> list[list[str]] | None:
        """Some keys of the prediction rows, a list each, without reading the rest.

        Much faster than :meth:`predictions`, of which most is log-probabilities. ``None`` where
        there are none, where a row lacks a key or has something other than a text there, or where
        the file is damaged: :meth:`predictions` says which.
        """
        import pyarrow as pa  # slow to import, and few need it
        from pyarrow import json

        path = self.predictions_path(language)
        if not path.is_file():
            return None
        options = json.ParseOptions(
            explicit_schema=pa.schema([(key, pa.string()) for key in keys]),
            unexpected_field_behavior="ignore",
        )
        try:
            table = json.read_json(path, parse_options=options)
        except (pa.ArrowInvalid, OSError):
            return None
        columns = [table.column(key) for key in keys]
        if any(column.null_count for column in columns):
            return None
        return [column.to_pylist() for column in columns]

    def write_predictions(self, language: str, rows: Sequence[dict[str, Any]]) -> None:
        """A row an example, whole: a language that has its file has been scored."""
        write_jsonl(self.predictions_path(language), rows)

    # Work in progress --------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove everything, to run anew."""
        shutil.rmtree(self.path, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a training would go on from, and what a kill left half written; the run is
        over."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        remove_parts(self.path)
