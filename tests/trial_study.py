"""A small study that tests run in different ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyprefix.config import Study, StudyConfig, StudyFile, expand
from polyprefix.results import Silent, StudyFolder


class Recorder(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def began(self) -> int:
        return sum(line.startswith("run ") for line in self.lines)

    def saying(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


Make = Callable[..., tuple[Study, StudyFolder]]


def trial_values(model: Path, data: Path) -> dict[str, Any]:
    """A study's file."""
    return {
        "name": "trial",
        "title": "A trial",
        "reports": "Nothing.",
        "base": {
            "model": {"name": str(model)},
            "task": {"name": "sib200", "data": str(data)},
            "train": {"steps": 3, "batch_size": 8},
        },
        "grid": {"method": [{"name": "lora"}, {"name": "prefix_tuning", "length": 4}]},
    }


def maker(values: dict[str, Any], place: Path) -> Make:
    """Makes the study, and its folder below ``place``, with other keys than ``values``."""

    def study(grid: Any = None, output: str = "study", **keys: Any) -> tuple[Study, StudyFolder]:
        folder = place / output
        config = StudyConfig.read(values | ({} if grid is None else {"grid": grid}) | keys)
        return expand(StudyFile(config, "trial.yaml", {}), output=str(folder)), StudyFolder(folder)

    return study


def scores(study: Study, folder: StudyFolder) -> list[Any]:
    """Of the runs; ``None``: not finished."""
    records = [folder.record(item.key) for item in study.runs]
    return [None if record is None else record["scores"] for record in records]
