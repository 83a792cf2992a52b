"""Scoring of choices, and metrics."""

from polyprefix.evaluation.choices import encode_examples, predict, summarise
from polyprefix.evaluation.metrics import accuracy, macro_f1, majority
from polyprefix.evaluation.scoring import score_answers

__all__ = [
    "accuracy",
    "encode_examples",
    "macro_f1",
    "majority",
    "predict",
    "score_answers",
    "summarise",
]
