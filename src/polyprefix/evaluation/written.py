"""Evaluate a task of written answers: predictions with their scores, and what they amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyprefix.evaluation.answer_language import answer_language
from polyprefix.evaluation.answer_metrics import score_answer
from polyprefix.evaluation.decoding import Decoding
from polyprefix.evaluation.generation import generate
from polyprefix.methods import AdaptedModel
from polyprefix.models.budget import Budget
from polyprefix.models.encoding import Encoder
from polyprefix.tasks import AnswerTask, Example, Prompt


def predict_written(
    model: AdaptedModel,
    task: AnswerTask,
    prompt: Prompt,
    examples: Sequence[Example],
    encoder: Encoder,
    decoding: Decoding,
    *,
    language: str,
    source_language: str,
    batch_tokens: int | Budget,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row an example.

    Keys: ``id``, ``answers`` (gold), ``prediction``, ``tokens``, ``finished``, ``scores`` by name
    (``None`` where nothing could be scored), and for another language than the source
    ``answer_language`` (``target``, ``source``, ``other`` or ``unknown``).
    """
    prompts = [prompt.render(example.fields) for example in examples]
    encoded = encoder.encode(prompts, [()] * len(prompts), reserve=decoding.max_new_tokens)
    written = generate(
        model,
        [item.prompt for item in encoded],
        decoding,
        batch_tokens=batch_tokens,
        advance=advance,
    )
    rows = []
    for example, answer in zip(examples, written, strict=True):
        text = answer.text.strip()
        row: dict[str, Any] = {
            "id": example.id,
            "answers": list(example.answers),
            "prediction": text,
            "tokens": answer.tokens,
            "finished": answer.finished,
            "scores": score_answer(task.metrics, text, example.answers, language),
        }
        if language != source_language:
            passage = None if task.passage is None else example.fields[task.passage]
            row["answer_language"] = (
                answer_language(text, language, source_language, context=passage)
                if text
                else "empty"
            )
        rows.append(row)
    return rows


def summarise_written(rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Scores of one language from its prediction rows.

    Every score is a mean over all answers, with its standard error; an answer that could not be
    scored counts as 0, and ``unscored`` says how many there were. ``in_source_language`` and
    ``in_target_language`` are shares of all answers; the rest is in another language, unknown or
    empty.
    """
    scores: dict[str, float | int] = {"n": len(rows)}
    for name in rows[0]["scores"]:
        values = [row["scores"][name] or 0.0 for row in rows]
        mean = sum(values) / len(values)
        spread = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        scores[name] = mean
        scores[f"{name}_stderr"] = (spread / len(values)) ** 0.5
    scores["unscored"] = sum(None in row["scores"].values() for row in rows)
    scores["unfinished"] = sum(not row["finished"] for row in rows)
    if "answer_language" in rows[0]:
        for kind in ("source", "target"):
            count = sum(row["answer_language"] == kind for row in rows)
            scores[f"in_{kind}_language"] = count / len(rows)
    return scores
