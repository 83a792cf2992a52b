"""Statistics over records, without torch."""

from polyprefix.analysis.comparison import Comparison, MethodRun, compare
from polyprefix.analysis.scores import (
    GroupScore,
    LanguageScore,
    group_scores,
    language_scores,
    mean_calibrated,
)
from polyprefix.analysis.settings import LabelledRun, Setting, settings

__all__ = [
    "Comparison",
    "GroupScore",
    "LabelledRun",
    "LanguageScore",
    "MethodRun",
    "Setting",
    "compare",
    "group_scores",
    "language_scores",
    "mean_calibrated",
    "settings",
]
