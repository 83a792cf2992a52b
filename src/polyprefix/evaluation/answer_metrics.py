"""Metrics of written answers by the names that tasks call them by.

A metric is a function of one answer, its gold answers and its language, and gives one or more
scores from 0 to 1; ``None`` is an answer in which nothing could be scored. Such answers count as
wrong, and a run says how many there were. What the scores are called is in
``polyprefix.tasks.scores``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polyprefix.config import ConfigError, unknown
from polyprefix.evaluation.answers import mlqa_score, squad_score
from polyprefix.evaluation.numeric import mgsm_match, numeric_match
from polyprefix.tasks.scores import ANSWER_SCORES

AnswerMetric = Callable[[str, Sequence[str], str], tuple[float | None, ...]]
"""Of the answer, the gold answers and the answer's language (FLORES-200 code); gives the scores
that ``ANSWER_SCORES`` names, in that order."""


def _squad(answer: str, golds: Sequence[str], _language: str) -> tuple[float | None, ...]:
    score = squad_score(answer, golds)
    return score.f1, score.exact_match


def _mlqa(answer: str, golds: Sequence[str], language: str) -> tuple[float | None, ...]:
    score = mlqa_score(answer, golds, language)
    return score.f1, score.exact_match


def _number(answer: str, golds: Sequence[str], language: str) -> tuple[float | None, ...]:
    found = [numeric_match(answer, gold, language) for gold in golds]
    if all(match is None for match in found):
        return (None,)
    return (float(any(found)),)


def _mgsm(answer: str, golds: Sequence[str], language: str) -> tuple[float | None, ...]:
    return (float(any(mgsm_match(answer, gold, language) for gold in golds)),)


def _exact(answer: str, golds: Sequence[str], _language: str) -> tuple[float | None, ...]:
    return (float(any(answer.strip() == gold.strip() for gold in golds)),)


ANSWER_METRICS: dict[str, AnswerMetric] = {
    "squad": _squad,
    "mlqa": _mlqa,
    "number": _number,
    "mgsm": _mgsm,
    "exact": _exact,
}


def score_answer(
    metrics: Sequence[str], answer: str, golds: Sequence[str], language: str
) -> dict[str, float | None]:
    """The scores of one answer by all of a task's metrics.

    Raises:
        ConfigError: a metric is not known.
    """
    scores: dict[str, float | None] = {}
    for name in metrics:
        if name not in ANSWER_METRICS:
            raise ConfigError(unknown("metric", name, ANSWER_METRICS))
        values = ANSWER_METRICS[name](answer, golds, language)
        scores |= zip(ANSWER_SCORES[name], values, strict=True)
    return scores
