"""Evaluate a choice task: predictions with the score of every choice, and what they amount to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from polyprefix.config import RunError
from polyprefix.evaluation.calibration import calibrate
from polyprefix.evaluation.metrics import accuracy, macro_f1, majority
from polyprefix.evaluation.scoring import score_answers
from polyprefix.methods import AdaptedModel
from polyprefix.models.budget import Budget
from polyprefix.models.encoding import Encoded, Encoder
from polyprefix.tasks import ChoiceTask, Example, Prompt
from polyprefix.tasks.scores import CHOICE_SCORES


def encode_choices(encoder: Encoder, prompt: Prompt, examples: Sequence[Example]) -> list[Encoded]:
    """Prompts of examples, each with all its choices."""
    prompts = [prompt.render(example.fields) for example in examples]
    choices = [prompt.render_choices(example.fields) for example in examples]
    return encoder.encode(prompts, choices)


def predict_choices(
    model: AdaptedModel,
    task: ChoiceTask,
    prompt: Prompt,
    examples: Sequence[Example],
    encoder: Encoder,
    *,
    batch_tokens: int | Budget,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row an example.

    Args:
        examples: all test examples of a language: what is calibrated depends on the others.

    Keys: ``id``, ``label``, ``prediction`` (names), ``logprobs`` of the choices in task order;
    ``prediction_calibrated``, see :mod:`polyprefix.evaluation.calibration`;
    where choices differ in length also ``prediction_per_character`` and ``logprobs_per_character``
    (the sum divided by the choice's characters without the space before it, as
    lm-evaluation-harness's ``acc_norm``).

    Raises:
        RunError: a log-probability is not finite.
    """
    encoded = encode_choices(encoder, prompt, examples)
    scores = score_answers(model, encoded, batch_tokens=batch_tokens, advance=advance)
    if not all(math.isfinite(value) for logprobs in scores for value in logprobs):
        raise RunError(
            "the model's log-probabilities are not finite: its weights have diverged, or "
            "model.dtype is too narrow. A lower train.learning_rate or model.dtype=float32 may help"
        )
    calibrated = calibrate(scores).tolist()
    rows = []
    for example, item, logprobs, fair in zip(examples, encoded, scores, calibrated, strict=True):
        row = {
            "id": example.id,
            "label": task.labels[example.label],
            "prediction": task.labels[_best(logprobs)],
            "prediction_calibrated": task.labels[_best(fair)],
            "logprobs": [round(value, 6) for value in logprobs],
        }
        if any(len(answer) > 1 for answer in item.answers):
            choices = [choice.lstrip() for choice in prompt.render_choices(example.fields)]
            normalised = [v / len(c) for v, c in zip(logprobs, choices, strict=True)]
            row["prediction_per_character"] = task.labels[_best(normalised)]
            row["logprobs_per_character"] = [round(value, 6) for value in normalised]
        rows.append(row)
    return rows


def _best(values: Sequence[float]) -> int:
    """Index of the largest value; the first of equals."""
    return max(range(len(values)), key=lambda i: values[i])


def summarise_choices(task: ChoiceTask, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Scores of one language from its prediction rows; those of calibrated answers beside them."""
    place = {label: number for number, label in enumerate(task.labels)}
    labels = [place[row["label"]] for row in rows]
    scores: dict[str, float | int] = {"n": len(rows)}
    for key, suffix in (("prediction", ""), ("prediction_calibrated", "_calibrated")):
        predictions = [place[row[key]] for row in rows]
        found = (accuracy(labels, predictions), macro_f1(labels, predictions, len(task.labels)))
        for name, (value, error) in zip(CHOICE_SCORES, found, strict=True):
            scores |= {f"{name}{suffix}": value, f"{name}{suffix}_stderr": error}
    scores |= {
        "majority": majority(labels, len(task.labels)),
        "gold_logprob": sum(_gold(row, place) for row in rows) / len(rows),
    }
    if any("prediction_per_character" in row for row in rows):
        normalised = [place[row.get("prediction_per_character", row["prediction"])] for row in rows]
        share, error = accuracy(labels, normalised)
        scores |= {"accuracy_per_character": share, "accuracy_per_character_stderr": error}
    return scores


def _gold(row: dict[str, Any], place: dict[str, int]) -> float:
    """Log-probability of the right choice among the choices: what a tie in accuracy is broken by,
    since a development set of a hundred examples has many."""
    values = row["logprobs"]
    largest = max(values)
    total = largest + math.log(sum(math.exp(value - largest) for value in values))
    return float(values[place[row["label"]]] - total)
