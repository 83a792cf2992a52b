"""Statistics over records, without torch."""

from polyprefix.analysis.comparison import Comparison, MethodRun, compare
from polyprefix.analysis.scores import (
    GroupScore,
    LanguageScore,
    group_scores,
    language_scores,
    mean_calibrated,
)

__all__ = [
    "Comparison",
    "GroupScore",
    "LanguageScore",
    "MethodRun",
    "compare",
    "group_scores",
    "language_scores",
    "mean_calibrated",
]
