"""Answers of a finished run's adapter for new texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from polyprefix.config import ConfigError, DataError, PolyprefixError
from polyprefix.evaluation import Decoding, generate, score_answers
from polyprefix.methods import AdaptedModel
from polyprefix.models.budget import Budget
from polyprefix.models.encoding import Encoder
from polyprefix.results import RunFolder
from polyprefix.study.run import load_run
from polyprefix.tasks import Prompt, get_task, unpaired

CHUNK = 256
"""Examples answered together, unless the caller wants each as it comes."""


def parse_field(text: str) -> tuple[str, str]:
    """``name=text`` of ``--field``."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--field {text!r}: expected name=text")
    return name, value


def read_examples(path: Path | None) -> Iterator[dict[str, Any] | str]:
    """Lines of a file, or of standard input: JSON objects, or plain texts.

    Raises:
        DataError: at once, the file is missing; on reading, a line that starts with a brace is no
            JSON object, or the text is not UTF-8.
    """
    if path is None:
        return _lines("standard input", sys.stdin)
    try:
        return _lines(str(path), path.open(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _lines(name: str, file: TextIO) -> Iterator[dict[str, Any] | str]:
    number = 0
    try:
        with file:
            for line in file:
                number += 1
                text = line.rstrip("\r\n")
                if not text.strip():
                    continue
                yield json.loads(text) if text.lstrip().startswith("{") else text
    except UnicodeDecodeError:
        raise DataError(f"{name}, after line {number}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}, line {number}: not a JSON object: {error}") from None


def answers(
    folder: Path,
    examples: Iterable[dict[str, Any] | str],
    *,
    device: str | None = None,
    chunk_size: int = CHUNK,
) -> Iterator[dict[str, Any]]:
    """One answer an example: its fields and ``prediction``; for a task of choices also
    ``probabilities`` of the labels among each other, and the ``logprobs`` they come from.

    Examples are asked as those of the source language were.

    Raises:
        RunError: the run is not finished.
        DataError: an example lacks a field, or is a plain text where the task has several fields.
    """
    model, record = load_run(RunFolder(folder), device)
    assert model.active is not None
    predictor = Predictor(model, record, model.active)
    config = record["config"]["task"]
    source_language = record["task"]["source_language"]
    current = _current_version(config["name"], source_language, config["prompt"])
    if current not in (predictor.prompt.version, None):
        print(
            "note: the task's prompt has changed since this run; using the run's", file=sys.stderr
        )
    stream = iter(examples)
    start = 1
    while chunk := list(islice(stream, chunk_size)):
        yield from predictor.answers(chunk, first=start)
        start += len(chunk)


class Predictor:
    """Answers to a run's own task, with the prompt that its source language had.

    Args:
        model: holds the run's adapter.
        record: the run's.
        adapter: its name on the model.
    """

    def __init__(self, model: AdaptedModel, record: dict[str, Any], adapter: str) -> None:
        self.model, self.adapter = model, adapter
        self.prompt = _prompt(record["task"]["prompt"])
        self.labels: list[str] = record["task"]["labels"]
        self.decoding: Decoding | None = None
        if "decoding" in record:
            recorded = record["decoding"]
            self.decoding = Decoding(**recorded | {"stop": tuple(recorded["stop"])})
        room = model.room(record["config"]["task"]["max_length"], adapter)
        self._encoder = Encoder(model.backbone.tokenizer, room)
        self._budget = Budget(record["config"]["runtime"]["evaluation_batch_tokens"])

    def examples(
        self, items: Sequence[dict[str, Any] | str], first: int = 1
    ) -> list[dict[str, str]]:
        """The fields of examples.

        Args:
            items: texts or objects.
            first: the number of the first one, for messages.

        Raises:
            DataError: one lacks a field, or is a plain text where the task has several fields.
        """
        return [_fields(item, self.prompt.fields, first + i) for i, item in enumerate(items)]

    def answers(
        self, items: Sequence[dict[str, Any] | str], first: int = 1
    ) -> list[dict[str, Any]]:
        """See :func:`answers`; the adapter is in use afterwards.

        Raises:
            DataError: as :meth:`examples`; or there is no room for a prompt.
        """
        values = self.examples(items, first)
        self.model.use(self.adapter)
        prompts = [self.prompt.render(item) for item in values]
        if self.decoding is not None:
            reserve = self.decoding.max_new_tokens
            encoded = self._encoder.encode(prompts, [()] * len(prompts), reserve=reserve)
            asked = [item.prompt for item in encoded]
            written = generate(self.model, asked, self.decoding, batch_tokens=self._budget)
            return [
                {**item, "prediction": answer.text.strip()}
                for item, answer in zip(values, written, strict=True)
            ]
        choices = [self.prompt.render_choices(item) for item in values]
        encoded = self._encoder.encode(prompts, choices)
        scores = score_answers(self.model, encoded, batch_tokens=self._budget)
        return [
            _answer(item, self.labels, logprobs)
            for item, logprobs in zip(values, scores, strict=True)
        ]


def _prompt(recorded: dict[str, Any]) -> Prompt:
    """The prompt of a record, whose lists were tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in recorded.items()
        if name != "version"
    }
    return Prompt(**values)


def _current_version(name: str, language: str, variant: str | None) -> str | None:
    """Of the task's prompt; ``None`` if its file or package is gone: the run has its own prompt."""
    try:
        return get_task(name).prompt_of(language, variant).version
    except PolyprefixError:
        return None


def _fields(item: dict[str, Any] | str, fields: tuple[str, ...], number: int) -> dict[str, str]:
    if isinstance(item, str):
        if len(fields) != 1:
            raise DataError(
                f"example {number} is a plain text; this task has the fields {', '.join(fields)}: "
                "give JSON objects, or --field name=text for each"
            )
        item = {fields[0]: item}
    if not isinstance(item, dict) or not all(isinstance(item.get(name), str) for name in fields):
        raise DataError(f"example {number}: expected an object with the texts {', '.join(fields)}")
    for name in fields:
        if (problem := unpaired(item[name])) is not None:
            raise DataError(f"example {number}: {name!r} is {problem}")
    return {name: item[name] for name in fields}


def _answer(item: dict[str, str], labels: list[str], logprobs: list[float]) -> dict[str, Any]:
    values = np.array(logprobs)
    weights = np.exp(values - values.max())
    shares = weights / weights.sum()
    return {
        **item,
        "prediction": labels[int(values.argmax())],
        "probabilities": {k: round(float(v), 6) for k, v in zip(labels, shares, strict=True)},
        "logprobs": {k: round(v, 6) for k, v in zip(labels, logprobs, strict=True)},
    }
