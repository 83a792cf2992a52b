"""A study's runs on other data, or so small that all of them end on a laptop in minutes.

At the nano scale the packaged model stands in for every other and a few examples for all. Such runs
show that a study works from end to end; their scores say nothing about the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyprefix.config import DataError, override
from polyprefix.languages import parse_languages
from polyprefix.tasks import AnswerTask, Task, get_task

NANO = "polyprefix/nano"
NANO_LAYERS = 5
NANO_TASK = "polytopics"
"""The packaged task, which has the languages that the packaged model knows."""

MOST: dict[str, int] = {
    "task.train_samples": 32,
    "task.train_per_class": 2,
    "task.dev_samples": 16,
    "task.test_samples": 8,
    "task.max_length": 384,
    "train.batch_size": 8,
    "method.length": 8,
    "method.network_size": 64,
    "decoding.max_new_tokens": 8,
}
"""Numbers above these are these; those that a run does not give stay as they are, but for samples,
new tokens and steps."""

STEPS = 6
LANGUAGES = 3


class Scale:
    """What is done to every run of a study before it is read.

    Args:
        nano: make it small.
        data: a folder with one folder a task, named like it, in that task's own layout.
        say: told, once each, what is replaced and what is left out.
    """

    def __init__(self, *, nano: bool, data: Path | None, say: Callable[[str], None]) -> None:
        self.nano, self.folder, self._say = nano, data, say
        self._said: set[str] = set()

    def __call__(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """The values of a run, or ``None``: there is no data for it."""
        given = values.get("task")
        name = given.get("name") if isinstance(given, dict) else None
        if not isinstance(name, str):
            return values  # reading it says what is wrong
        values = override(values, [])  # a copy
        task = get_task(name.partition("@")[0])
        if self.folder is not None and task.packaged is None:
            folder = self.folder / task.name
            if not folder.is_dir():
                self._once(f"left out: task {task.name}, there is no folder {str(folder)!r}")
                return None
            values["task"]["data"] = str(folder)
        if self.nano:
            self._shrink(values, task)
        return values

    def _shrink(self, values: dict[str, Any], task: Task) -> None:
        for section in ("model", "train", "decoding", "method"):
            if not isinstance(values.get(section, {}), dict):
                return
        self._replace(values, "model", {"name": NANO})
        for key, most in MOST.items():
            section, name = key.split(".")
            number = values.get(section, {}).get(name)
            if number is None and name == "train_samples":
                number = None if "train_per_class" in values["task"] else most
            elif number is None and (name.endswith("_samples") and name != "train_samples"):
                number = most
            elif number is None and name == "max_new_tokens" and isinstance(task, AnswerTask):
                number = most
            if isinstance(number, int):
                self._replace(values, key, min(number, most))
        self._replace(values, "train.steps", STEPS)
        for key in ("train.epochs", "train.evaluate_every", "train.mixed_precision", "runtime"):
            self._replace(values, key, None)
        layers = values.get("method", {}).get("layers")
        if isinstance(layers, str) and (match := re.fullmatch(r"(first|last):(\d+)", layers)):
            few = min(int(match[2]), NANO_LAYERS)
            self._replace(values, "method.layers", f"{match[1]}:{few}")
        self._replace(values, "task.languages", self._languages(values["task"], task))

    def _languages(self, given: dict[str, Any], task: Task) -> list[str]:
        """The first of the languages asked for that the model knows and the data has."""
        asked = parse_languages(given.get("languages", "all"), list(task.language_codes))
        source = parse_languages(
            given.get("source_language", "eng_Latn"), list(task.language_codes)
        )
        data = given.get("data")
        there = task.languages_in(Path(data)) if data is not None else list(task.language_codes)
        known = get_task(NANO_TASK).language_codes
        some = [code for code in asked if code in there and code in known]
        return list(dict.fromkeys([*source, *some]))[:LANGUAGES]

    def _replace(self, values: dict[str, Any], key: str, value: Any) -> None:
        """Set a key, or take it out (``None``)."""
        *parents, last = key.split(".")
        for parent in parents:
            values = values.setdefault(parent, {})
        before = values.pop(last, None)
        if value is not None:
            values[last] = value
        if before != value:
            shown = "the default" if value is None else value
            self._once(f"nano: {key} is {shown}" + (f" instead of {before}" if before else ""))

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


__all__ = ["DataError", "Scale"]
