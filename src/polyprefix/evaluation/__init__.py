"""Scoring of choices, writing of answers, and metrics."""

from polyprefix.evaluation.choices import encode_choices
from polyprefix.evaluation.decoding import Decoding, Row, RunningBatch, alike, columns, to_draw_from
from polyprefix.evaluation.evaluate import predict, summarise
from polyprefix.evaluation.generation import generate, in_order
from polyprefix.evaluation.metrics import accuracy, macro_f1, majority
from polyprefix.evaluation.scoring import score_answers

__all__ = [
    "Decoding",
    "Row",
    "RunningBatch",
    "accuracy",
    "alike",
    "columns",
    "encode_choices",
    "generate",
    "in_order",
    "macro_f1",
    "majority",
    "predict",
    "score_answers",
    "summarise",
    "to_draw_from",
]
