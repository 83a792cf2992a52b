"""From runs to tables: the one place of the analysis that reads records and predictions.

A *method* of the analysis is what was run but for the seed: two runs of prefix tuning with other
lengths are two methods, and are named by what they differ in (``prefix_tuning length=5``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from polyprefix.analysis.scores import language_scores
from polyprefix.analysis.seen import pretraining_shares
from polyprefix.config import RunError, digest
from polyprefix.results import RunFolder

Array = npt.NDArray[np.float64]

PREDICTED = {
    "accuracy": "prediction",
    "accuracy_calibrated": "prediction_calibrated",
    "accuracy_per_character": "prediction_per_character",
}
"""The key of a choice task's prediction rows that a score counts."""


def finished(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs of folders, which must be finished.

    Raises:
        RunError: a folder holds no run, or one that is not finished.
    """
    runs = [RunFolder(Path(folder)) for folder in folders]
    for run in runs:
        if (status := run.record()["status"]) != "finished":
            raise RunError(f"{str(run.path)!r} is {status}: run it to its end first")
    return runs


def with_scores(records: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The records, of which each must have scores.

    Raises:
        RunError: one has none.
    """
    for record in records:
        if "scores" not in record:
            raise RunError(f"run {record['id']!r} has no scores: it is {record['status']}")
    return records


# Methods -----------------------------------------------------------------------------------------


def flat_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was, flat: ``model``, the method's keys, ``train.*``, ``decoding.*``, ``task.*``.

    Left out is what does not tell methods apart: the seed, and which languages were scored.
    """
    identity = record["identity"]
    task = {
        name: value
        for name, value in identity["task"].items()
        if name not in ("languages", "prompts", "revision")
    }
    prompts = identity["task"].get("prompts", {})
    flat: dict[str, Any] = {
        "model": record["model"]["name"],
        "dtype": identity["model"]["dtype"],
        "revision": identity["model"]["revision"],
        **identity["method"],
        "prompt": prompts.get(record["task"]["source_language"]),
    }
    for section, values in (
        ("train", identity["train"]),
        ("decoding", identity["decoding"]),
        ("task", task),
    ):
        flat |= {f"{section}.{name}": value for name, value in (values or {}).items()}
    return flat


def method_labels(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each record's method, the same for runs that differ in their seed alone.

    It is the method's name and, where runs of it differ in more, the settings that do.

    Raises:
        RunError: two records are of one run.
    """
    flats = [flat_settings(record) for record in records]
    keys = [digest(flat) for flat in flats]
    counts = Counter(
        (key, record["identity"]["seed"]) for key, record in zip(keys, records, strict=True)
    )
    for (key, seed), count in counts.items():
        if count > 1:
            same = next(r["id"] for k, r in zip(keys, records, strict=True) if k == key)
            raise RunError(f"run {same!r} (seed {seed}) is there {count} times: name it once")
    default_rates = {
        key
        for key, record in zip(keys, records, strict=True)
        if (record["config"].get("train") or {}).get("learning_rate") is None
    }
    labels: dict[str, str] = {}
    for name in dict.fromkeys(flat["name"] for flat in flats):
        of_name = {key: flat for key, flat in zip(keys, flats, strict=True) if flat["name"] == name}
        every = dict.fromkeys(setting for flat in of_name.values() for setting in flat)
        apart = [
            setting
            for setting in every
            if len({repr(flat.get(setting)) for flat in of_name.values()}) > 1
        ]
        # A local model's name says more than its revision; where both differ one will do.
        if "model" in apart and "revision" in apart:
            apart.remove("revision")
        # A default learning rate follows from the rest.
        rest = [setting for setting in apart if setting != "train.learning_rate"]
        if of_name.keys() <= default_rates and _distinct(of_name.values(), rest):
            apart = rest
        for key, flat in of_name.items():
            parts = [
                f"{setting.removeprefix('train.')}={_short(flat.get(setting))}" for setting in apart
            ]
            labels[key] = " ".join([name, *parts])
    return [labels[key] for key in keys]


def _distinct(flats: Collection[Mapping[str, Any]], settings: Sequence[str]) -> bool:
    return len({repr([flat.get(name) for name in settings]) for flat in flats}) == len(flats)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Scores ------------------------------------------------------------------------------------------


def score_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a run and language, with what is known of both.

    Columns: ``run``, ``method`` (see :func:`method_labels`), ``seed``, ``task``, ``model``,
    ``parameters``, ``trainable``; ``language``, ``name``, ``family``, ``branch``, ``script``,
    ``resource_level``, ``speakers``; ``source``; ``n``, ``score`` (the task's headline score),
    ``stderr``, ``gap`` (source score minus this one), ``calibrated``, ``majority``; ``seen`` in
    pretraining (True, False, or None where it is not known) and ``share`` of the pretraining text;
    ``tokens_per_word`` and ``premium``, see :func:`text_measures`. What is not known is NaN.

    Raises:
        RunError: a record has no scores, or two are of one run.
    """
    rows = []
    for record, label in zip(with_scores(records), method_labels(records), strict=True):
        model = record["model"]
        shares = pretraining_shares(model["name"], model["model_type"])
        texts = text_measures(record)
        for row in language_scores(dict(record)):
            language = row.language
            seen = None if shares is None else language.code in shares
            share = None if shares is None else shares.get(language.code, 0.0)
            rows.append(
                {
                    "run": record["id"],
                    "method": label,
                    "seed": record["identity"]["seed"],
                    "task": record["task"]["name"],
                    "model": model["name"],
                    "parameters": model["parameters"],
                    "trainable": record["trainable_parameters"],
                    "language": language.code,
                    "name": language.name,
                    "family": language.family,
                    "branch": language.branch,
                    "script": language.script,
                    "resource_level": language.resource_level,
                    "speakers": language.speakers,
                    "source": row.source,
                    "n": row.n,
                    "score": row.score,
                    "stderr": row.stderr,
                    "gap": row.gap,
                    "calibrated": row.calibrated,
                    "majority": row.majority,
                    "seen": seen,
                    "share": share,
                    **texts.get(language.code, {"tokens_per_word": None, "premium": None}),
                }
            )
    numbers = ("calibrated", "majority", "share", "tokens_per_word", "premium", "resource_level")
    return pd.DataFrame(rows).astype(dict.fromkeys((*numbers, "speakers"), float))


def text_measures(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How the backbone's tokenizer treats each language's test texts; empty for older records.

    ``tokens_per_word``: fertility, tokens for each word that white space sets off (Rust et al.
    2021); means little where words are not set off. ``premium``: tokens for each token of the
    source language for the same texts (Petrov et al. 2023), NaN where texts are not the same.
    """
    texts = record["task"].get("texts")
    if texts is None:
        return {}
    source = texts[record["task"]["source_language"]]["tokens"]
    parallel = record["task"]["parallel"]
    return {
        code: {
            "tokens_per_word": counts["tokens"] / counts["words"] if counts["words"] else np.nan,
            "premium": counts["tokens"] / source if parallel and source else np.nan,
        }
        for code, counts in texts.items()
    }


# Examples ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """What methods scored on the same examples.

    Attributes:
        task: its name.
        score: the score that is counted.
        source: the source language's code.
        methods: their names, see :func:`method_labels`.
        seeds: of each method.
        trained: whether a method trains anything; if not, its seeds cannot differ.
        ids: of the examples of each language, the source language first.
        runs: by language, for each method an array ``[seeds, n]``.
        parallel: whether column i is the same example in every language.
    """

    task: str
    score: str
    source: str
    methods: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    trained: tuple[bool, ...]
    ids: dict[str, tuple[str, ...]]
    runs: dict[str, tuple[Array, ...]]
    parallel: bool

    @property
    def targets(self) -> list[str]:
        """The languages other than the source."""
        return [code for code in self.ids if code != self.source]

    def index(self, method: str) -> int:
        """Where a method stands.

        Raises:
            RunError: there is no such method; those there are are named.
        """
        if method not in self.methods:
            raise RunError(f"no runs of method {method!r}; there are {', '.join(self.methods)}")
        return self.methods.index(method)

    def scores(self, method: str, language: str) -> Array:
        """The method's scores ``[n]`` in a language, the mean of its seeds."""
        return np.asarray(self.runs[language][self.index(method)].mean(axis=0))

    def differences(self, first: str, second: str, language: str) -> Array:
        """``first`` minus ``second``, ``[n]``."""
        return self.scores(first, language) - self.scores(second, language)


def read_examples(folders: Sequence[Path], *, score: str | None = None) -> Examples:
    """Read the predictions of finished runs and pair them by example.

    Languages, and examples of a language, that a run lacks are left out for all.

    Args:
        folders: of runs of one task and source language.
        score: ``accuracy``, ``accuracy_calibrated`` or ``accuracy_per_character`` for choices, a
            score of the task's answers (``f1``, ``exact_match``) otherwise; ``None``: the headline.

    Raises:
        RunError: the runs are of several tasks or source languages, or not finished; they have no
            example in common; the right answers differ; the score is not one of single examples.
    """
    runs = finished(folders)
    records = [run.record() for run in runs]
    kinds = {(record["task"]["name"], record["task"]["source_language"]) for record in records}
    if len(kinds) != 1:
        raise RunError(f"runs of one task and source language expected, found {sorted(kinds)}")
    (task, source), first = kinds.pop(), records[0]["task"]
    score = score or first["headline"]
    labels = method_labels(records)
    methods = tuple(dict.fromkeys(labels))
    order = sorted(
        range(len(runs)),
        key=lambda i: (methods.index(labels[i]), records[i]["identity"]["seed"]),
    )
    runs, records = [runs[i] for i in order], [records[i] for i in order]
    labels = [labels[i] for i in order]
    common = set.intersection(*(set(record["scores"]) for record in records))
    codes = [source, *(code for code in first["languages"] if code in common - {source})]
    ids: dict[str, tuple[str, ...]] = {}
    values: dict[str, tuple[Array, ...]] = {}
    for code in codes:
        ids[code], scored = _paired(runs, code, score)
        values[code] = tuple(
            np.stack([row for row, label in zip(scored, labels, strict=True) if label == method])
            for method in methods
        )
    same = len({frozenset(names) for names in ids.values()}) == 1
    if parallel := same and first.get("parallel", True):
        # The same column for the same example: every language in the source's order.
        for code in codes[1:]:
            place = {name: column for column, name in enumerate(ids[code])}
            columns = [place[name] for name in ids[source]]
            values[code] = tuple(array[:, columns] for array in values[code])
            ids[code] = ids[source]
    of = {
        method: [r for r, label in zip(records, labels, strict=True) if label == method]
        for method in methods
    }
    return Examples(
        task=task,
        score=score,
        source=source,
        methods=methods,
        seeds=tuple(tuple(r["identity"]["seed"] for r in of[method]) for method in methods),
        trained=tuple(of[method][0]["trainable_parameters"] > 0 for method in methods),
        ids=ids,
        runs=values,
        parallel=parallel,
    )


def _paired(
    runs: Sequence[RunFolder], code: str, score: str
) -> tuple[tuple[str, ...], list[Array]]:
    """The ids that all runs have in a language, and each run's scores in their order."""
    found: list[tuple[list[str], list[float]]] = []
    gold: dict[str, Any] = {}
    for run in runs:
        names, answers, scores = _scored(run, code, score)
        for name, answer in zip(names, answers, strict=True):
            if gold.setdefault(name, answer) != answer:
                raise RunError(
                    f"{str(run.path)!r}: the right answer to example {name!r} of {code} is "
                    f"{answer!r}, in another run {gold[name]!r}: the runs' data differ"
                )
        found.append((names, scores))
    first = found[0][0]
    if all(names == first for names, _ in found):
        ids = tuple(first)
        arrays = [np.array(scores, dtype=np.float64) for _, scores in found]
    else:
        by_id = [dict(zip(names, scores, strict=True)) for names, scores in found]
        ids = tuple(name for name in first if all(name in scores for scores in by_id))
        arrays = [np.array([scores[name] for name in ids]) for scores in by_id]
    if not ids:
        records = [run.record() for run in runs]
        seeds = {record["identity"]["seed"] for record in records}
        sampled = any(record["config"].get("task", {}).get("test_samples") for record in records)
        why = ", since task.test_samples draws others for every seed"
        raise RunError(
            f"the runs have no example of {code} in common"
            f"{why if sampled and len(seeds) > 1 else ''}"
        )
    return ids, arrays


def _scored(run: RunFolder, code: str, score: str) -> tuple[list[str], list[Any], list[float]]:
    """Of a run's examples of a language: ids, right answers, scores."""
    if score in PREDICTED:
        texts = run.prediction_texts(code, ("id", "label", PREDICTED[score]))
        if texts is not None:
            names, labels, predicted = texts
            return names, labels, [float(a == b) for a, b in zip(labels, predicted, strict=True)]
    rows = run.predictions(code)
    if rows is None:
        raise RunError(f"{str(run.path)!r} has no predictions for {code}")
    return (
        [row["id"] for row in rows],
        [row.get("label", row.get("answers")) for row in rows],
        [_score(row, score, run) for row in rows],
    )


def _score(row: Mapping[str, Any], score: str, run: RunFolder) -> float:
    if "scores" in row:
        if score in row["scores"]:
            return float(row["scores"][score] or 0.0)
        known = list(row["scores"])
    else:
        if score in PREDICTED and PREDICTED[score] in row:
            return float(row[PREDICTED[score]] == row["label"])
        known = [name for name, key in PREDICTED.items() if key in row]
    raise RunError(
        f"{str(run.path)!r}: {score!r} is not a score of single examples; there are "
        f"{', '.join(known)}"
    )
