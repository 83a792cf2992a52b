"""Answers of a finished run's adapter for new texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from polyprefix.config import ConfigError, DataError
from polyprefix.evaluation.scoring import score_answers
from polyprefix.models.encoding import Encoder
from polyprefix.results import RunFolder
from polyprefix.study.run import load_run
from polyprefix.tasks import Prompt, get_task

CHUNK = 256
"""Examples read before they are answered, so that a long input streams through."""


def parse_field(text: str) -> tuple[str, str]:
    """``name=text`` of ``--field``."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--field {text!r}: expected name=text")
    return name, value


def read_examples(path: Path | None) -> Iterator[dict[str, Any] | str]:
    """Lines of a file, or of standard input: JSON objects, or plain texts.

    Raises:
        DataError: the file is missing; a line that starts with a brace is no JSON object.
    """
    name = "standard input" if path is None else str(path)
    try:
        file = sys.stdin if path is None else path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {name!r}: {error.strerror}") from None
    with file:
        for number, line in enumerate(file, start=1):
            line = line.rstrip("\r\n")
            if not line.strip():
                continue
            if not line.lstrip().startswith("{"):
                yield line
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{name}, line {number}: not a JSON object: {error}") from None


def answers(folder: Path, examples: Iterable[dict[str, Any] | str]) -> Iterator[dict[str, Any]]:
    """One answer an example: its fields, ``prediction``, ``probabilities`` of the labels among
    each other, and the ``logprobs`` they come from.

    Raises:
        RunError: the run is not finished.
        DataError: an example lacks a field, or is a plain text where the task has several fields.
    """
    model, record = load_run(RunFolder(folder))
    task = record["task"]
    prompt = Prompt(task["prompt"]["template"], tuple(task["prompt"]["choices"]))
    if prompt.version != get_task(task["name"]).prompt.version:
        print(
            "note: the task's prompt has changed since this run; using the run's", file=sys.stderr
        )
    fields = prompt.fields
    encoder = Encoder(model.backbone.tokenizer, record["config"]["task"]["max_length"])
    batch_tokens = record["config"]["runtime"]["evaluation_batch_tokens"]
    stream = iter(examples)
    start = 1
    while chunk := list(islice(stream, CHUNK)):
        values = [_fields(item, fields, start + i) for i, item in enumerate(chunk)]
        start += len(chunk)
        prompts = [prompt.render(item) for item in values]
        encoded = encoder.encode(prompts, [prompt.choices] * len(prompts))
        scores = score_answers(model, encoded, batch_tokens=batch_tokens)
        for item, logprobs in zip(values, scores, strict=True):
            yield _answer(item, task["labels"], logprobs)


def _fields(item: dict[str, Any] | str, fields: tuple[str, ...], number: int) -> dict[str, str]:
    if isinstance(item, str):
        if len(fields) != 1:
            raise DataError(
                f"example {number} is a plain text; this task has the fields {', '.join(fields)}: "
                "give JSON objects, or --field name=text for each"
            )
        return {fields[0]: item}
    if not isinstance(item, dict) or not all(isinstance(item.get(name), str) for name in fields):
        raise DataError(f"example {number}: expected an object with the texts {', '.join(fields)}")
    return {name: item[name] for name in fields}


def _answer(item: dict[str, str], labels: list[str], logprobs: list[float]) -> dict[str, Any]:
    import numpy as np

    values = np.array(logprobs)
    weights = np.exp(values - values.max())
    shares = weights / weights.sum()
    return {
        **item,
        "prediction": labels[int(values.argmax())],
        "probabilities": {k: round(float(v), 6) for k, v in zip(labels, shares, strict=True)},
        "logprobs": {k: round(v, 6) for k, v in zip(labels, logprobs, strict=True)},
    }
