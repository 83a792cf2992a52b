"""A run's folder that several processes work on: the first one reads and writes, for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyprefix.distributed import world
from polyprefix.results import RunFolder


class CommonFolder(RunFolder):
    """A run's folder. All processes call its methods, in the same order."""

    def has_record(self) -> bool:
        return world().first(self._files.has_record)

    def finished(self) -> bool:
        return world().first(self._files.finished)

    def record(self) -> dict[str, Any]:
        return world().first(self._files.record)

    def write_record(self, record: dict[str, Any]) -> None:
        world().first(lambda: self._files.write_record(record))

    def write_config(self, config: dict[str, Any]) -> None:
        world().first(lambda: self._files.write_config(config))

    def predictions(self, language: str) -> list[dict[str, Any]] | None:
        return world().first(lambda: self._files.predictions(language))

    def write_predictions(self, language: str, rows: Sequence[dict[str, Any]]) -> None:
        world().first(lambda: self._files.write_predictions(language, rows))

    def clear(self) -> None:
        world().first(self._files.clear)

    def tidy(self) -> None:
        world().first(self._files.tidy)

    def write_alone(self, record: dict[str, Any]) -> None:
        """Write the record without a word to the others, who may be gone."""
        if world().main:
            self._files.write_record(record)

    @property
    def _files(self) -> RunFolder:
        return RunFolder(self.path)
