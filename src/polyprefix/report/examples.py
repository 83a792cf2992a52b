"""Single examples with what every method answered, for the page to browse."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polyprefix.config import ConfigError, PolyprefixError, RunConfig
from polyprefix.languages import Language
from polyprefix.report.group import Group
from polyprefix.results import RunFolder
from polyprefix.tasks import load_task_data

LONGEST = 2000
"""Characters of a text that are shown."""

MOST_LABELS = 10
"""Labels up to which every choice's score is shown."""

Texts = dict[tuple[str, str], Mapping[str, str]]
"""Fields of examples by language and id."""


def browse(group: Group, limit: int) -> dict[str, Any]:
    """Examples of every language, as data for the page's script.

    Args:
        group: whose predictions are read.
        limit: examples of a language. Which ones is drawn by id, so that they are the same
            sentences in every language where the test sets are parallel.

    Returns:
        ``languages`` (name, BCP-47 tag, direction), ``methods`` (name and seeds), ``labels``,
        ``score``; ``examples``, each with ``l`` (place of its language), ``id``, ``fields``,
        ``gold``, and for each method ``a`` (an answer a seed, ``None`` where it was not asked),
        ``s`` (their scores) and ``p`` (percent of each label among the choices, the mean over
        seeds); ``missing``: why texts are not there.
    """
    task = group.records[0]["task"]
    labels = list(task["labels"])
    kept = {
        language.code: _drawn(group, language.code, limit) if limit else {}
        for language in group.languages
    }
    wanted = [(code, name) for code, examples in kept.items() for name in examples]
    texts, missing = read_texts(group.records, wanted)
    return {
        "languages": [_language(language) for language in group.languages],
        "methods": [
            {
                "name": group.shown[name],
                "seeds": [run.record["identity"]["seed"] for run in setting.runs],
            }
            for name, setting in zip(group.names, group.settings, strict=True)
        ],
        "labels": labels,
        "score": group.headline,
        "examples": [
            _example(place, name, rows, texts.get((code, name), {}), task["headline"], labels)
            for place, code, name, rows in _by_rank(kept)
        ],
        "missing": missing,
    }


def _by_rank(
    kept: Mapping[str, Mapping[str, list[list[Any]]]],
) -> list[tuple[int, str, str, list[list[Any]]]]:
    """The first example of every language, then the second of every language, and so on."""
    found = [
        (rank, place, code, name, rows)
        for place, (code, examples) in enumerate(kept.items())
        for rank, (name, rows) in enumerate(examples.items())
    ]
    return [item[1:] for item in sorted(found, key=lambda item: item[:2])]


def read_texts(
    records: Sequence[dict[str, Any]], wanted: Iterable[tuple[str, str]]
) -> tuple[Texts, str]:
    """Fields of examples, from the data that the runs were made with.

    Predictions hold no texts: they would stand there once for every run. The data is read as the
    runs read it, and is used if its revision is the one that they recorded.

    Returns:
        The texts found, and why others were not; empty if all were.
    """
    left, found, why = set(wanted), Texts(), ""
    failed: set[str] = set()
    for record in records:
        if not left:
            break
        try:
            config = RunConfig.read(record["config"])
        except ConfigError as error:
            why = why or f"The record's configuration cannot be read: {error}"
            continue
        if (key := config.task.model_dump_json()) in failed:
            continue
        try:
            data = load_task_data(config.task, seed=config.seed, with_training="training" in record)
        except PolyprefixError as error:
            failed.add(key)
            why = why or f"The data cannot be read: {error}"
            continue
        if data.revision != (then := record["task"]["data_revision"]):
            failed.add(key)
            why = why or f"The data has changed: it is {data.revision}, the runs had {then}"
            continue
        for code, examples in data.test.items():
            for example in examples:
                if (code, example.id) in left:
                    found[code, example.id] = example.fields
                    left.discard((code, example.id))
    return found, why if left else ""


def _drawn(group: Group, code: str, limit: int) -> dict[str, list[list[Any]]]:
    """By id, for each setting a prediction row a seed, or ``None``."""
    runs = [[_rows(group, run.record["id"], code) for run in s.runs] for s in group.settings]
    flat = [rows for of_setting in runs for rows in of_setting]
    ids = dict.fromkeys(name for rows in flat for name in rows)

    def place(name: str) -> tuple[int, str]:
        # Examples that all methods answered come first.
        lacking = sum(name not in rows for rows in flat)
        return lacking, hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    return {
        name: [[rows.get(name) for rows in of_setting] for of_setting in runs]
        for name in sorted(ids, key=place)[:limit]
    }


def _rows(group: Group, run: str, code: str) -> dict[str, dict[str, Any]]:
    rows = RunFolder(group.folder / run).predictions(code) or []
    return {row["id"]: row for row in rows}


def _language(language: Language) -> dict[str, str]:
    return {"name": language.name, "tag": language.bcp47, "dir": language.direction}


def _example(
    place: int,
    name: str,
    rows: list[list[dict[str, Any] | None]],
    fields: Mapping[str, str],
    headline: str,
    labels: Sequence[str],
) -> dict[str, Any]:
    one = next(row for of_setting in rows for row in of_setting if row is not None)
    found: dict[str, Any] = {
        "l": place,
        "id": name,
        "fields": {key: _cut(text) for key, text in fields.items()},
        "gold": [one["label"]] if "label" in one else one["answers"],
        "a": [[row and _cut(row["prediction"]) for row in of_setting] for of_setting in rows],
        "s": [[row and _score(row, headline) for row in of_setting] for of_setting in rows],
    }
    if "logprobs" in one and len(labels) <= MOST_LABELS:
        found["p"] = [_percent(of_setting) for of_setting in rows]
    return found


def _score(row: Mapping[str, Any], headline: str) -> float:
    if "label" in row:
        return int(row["prediction"] == row["label"])
    return round(float(row["scores"][headline] or 0.0), 3)


def _percent(rows: Sequence[dict[str, Any] | None]) -> list[int] | None:
    """Of the choices among each other, the mean over seeds."""
    values = np.array([row["logprobs"] for row in rows if row is not None])
    if not len(values):
        return None
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    shares = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    return [round(100 * float(share)) for share in shares]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"
