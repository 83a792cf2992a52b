"""Evaluate any task: predictions of examples, and what they amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyprefix.evaluation.choices import predict_choices, summarise_choices
from polyprefix.evaluation.decoding import Decoding
from polyprefix.evaluation.written import predict_written, summarise_written
from polyprefix.methods import AdaptedModel
from polyprefix.models.budget import Budget
from polyprefix.models.encoding import Encoder
from polyprefix.tasks import AnswerTask, ChoiceTask, Example, Task, TaskData


def predict(
    model: AdaptedModel,
    data: TaskData,
    language: str,
    examples: Sequence[Example],
    encoder: Encoder,
    decoding: Decoding,
    *,
    batch_tokens: int | Budget,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Prediction rows, see :func:`predict_choices` and :func:`predict_written`.

    Args:
        model: under the adapter in use.
        data: whose task and prompts are used.
        language: of the examples.
        examples: what to predict.
        encoder: makes token ids of prompts.
        decoding: how answers are written; of no effect for a task of choices.
        batch_tokens: padded tokens of one forward pass.
        advance: called with the number of examples done.
    """
    task, prompt = data.task, data.prompts[language]
    if isinstance(task, ChoiceTask):
        return predict_choices(
            model, task, prompt, examples, encoder, batch_tokens=batch_tokens, advance=advance
        )
    assert isinstance(task, AnswerTask)
    return predict_written(
        model,
        task,
        prompt,
        examples,
        encoder,
        decoding,
        language=language,
        source_language=data.source_language,
        batch_tokens=batch_tokens,
        advance=advance,
    )


def summarise(task: Task, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Scores of one language from its prediction rows."""
    if isinstance(task, ChoiceTask):
        return summarise_choices(task, rows)
    return summarise_written(rows)
