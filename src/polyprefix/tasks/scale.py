"""A study's runs on other data, or so small that all of them end on a laptop in minutes.

At the nano scale the packaged model stands in for every other and a few examples for all. Such runs
show that a study works from end to end; their scores say nothing about the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyprefix.config import override, put
from polyprefix.languages import parse_languages
from polyprefix.tasks.base import AnswerTask, Task
from polyprefix.tasks.registry import get_task

NANO = "polyprefix/nano"
NANO_LAYERS = 5
NANO_TASK = "polytopics"
"""The packaged task, which has the languages that the packaged model knows."""

MOST = {
    "task.train_samples": 32,
    "task.train_per_class": 2,
    "task.max_length": 384,
    "method.length": 8,
    "method.network_size": 64,
}
"""The largest number of a key, where a run has it."""

SMALL: dict[str, Any] = {
    "model": {"name": NANO},
    "task.dev_samples": 16,
    "task.test_samples": 8,
    "train.steps": 6,
    "train.batch_size": 8,
    "train.epochs": None,
    "train.evaluate_every": None,
    "train.mixed_precision": None,
    "runtime": None,
}
"""What every run has; ``None``: the default."""

NEW_TOKENS = 8
LANGUAGES = 3


class Scale:
    """What is done to the values of every run of a study.

    Args:
        nano: make it small.
        data: a folder with one folder a task, named like it, in that task's own layout.
        say: told, once each, what is replaced and what is left out.
    """

    def __init__(self, *, nano: bool, data: Path | None, say: Callable[[str], None]) -> None:
        self.nano, self.folder, self._say = nano, data, say
        self._said: set[str] = set()
        self.left_out: list[str] = []
        """Of the tasks for which there is no data, what is missing."""

    def __call__(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """The values of a run, which are those of a valid configuration; ``None``: there is no data
        for it.

        Raises:
            ConfigError: there is no such task.
            DataError: the data's folder holds something else.
        """
        values = override(values, [])  # a copy
        task = get_task(values["task"]["name"].partition("@")[0])
        if self.folder is not None and task.packaged is None:
            folder = self.folder / task.name
            if not folder.is_dir():
                missing = f"task {task.name}, there is no folder {str(folder)!r}"
                if missing not in self.left_out:
                    self.left_out.append(missing)
                advice = "its files go there, or leave --data out to read the hub"
                self._once(f"left out: {missing}; {advice}. Expected: {task.layout}")
                return None
            values["task"]["data"] = str(folder)
        if self.nano:
            self._shrink(values, task)
        return values

    def _shrink(self, values: dict[str, Any], task: Task) -> None:
        small = dict(SMALL)
        for key, most in MOST.items():
            section, name = key.split(".")
            if isinstance(number := values[section].get(name), int):
                small[key] = min(number, most)
        if "train_per_class" not in values["task"]:
            small.setdefault("task.train_samples", MOST["task.train_samples"])
        if isinstance(task, AnswerTask):
            small["decoding.max_new_tokens"] = NEW_TOKENS
        layers = values["method"].get("layers")
        if isinstance(layers, str) and (match := re.fullmatch(r"(first|last):(\d+)", layers)):
            small["method.layers"] = f"{match[1]}:{min(int(match[2]), NANO_LAYERS)}"
        small["task.languages"] = self._languages(values["task"], task)
        for key, value in small.items():
            self._replace(values, key, value)

    def _languages(self, given: dict[str, Any], task: Task) -> list[str]:
        """The first of the languages asked for that the model knows and the data has."""
        codes = list(task.language_codes)
        source = parse_languages(given.get("source_language", "eng_Latn"), codes)
        asked = parse_languages(given.get("languages", "all"), codes)
        data = given.get("data")
        there = codes if data is None else task.languages_in(Path(data).expanduser())
        known = get_task(NANO_TASK).language_codes
        some = [code for code in asked if code in there and code in known]
        return list(dict.fromkeys([*source, *some]))[:LANGUAGES]

    def _replace(self, values: dict[str, Any], key: str, value: Any) -> None:
        section, _, name = key.partition(".")
        held: Any = values.get(section)
        before = held.get(name) if name and held else held
        if before == value:
            return
        if value is not None:
            put(values, key, value)
        elif name:
            del held[name]
        else:
            del values[section]
        shown = "the default" if value is None else value
        self._once(f"nano: {key} is {shown}" + (f" instead of {before}" if before else ""))

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)
