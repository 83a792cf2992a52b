"""Statistics over records, without torch."""

from polyprefix.analysis.scores import (
    GroupScore,
    LanguageScore,
    group_scores,
    language_scores,
)

__all__ = ["GroupScore", "LanguageScore", "group_scores", "language_scores"]
