"""Names of what answers are scored by: the one table of them.

Tasks name metrics and a headline from it, and ``polyprefix.evaluation``, a floor above, computes
what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

CHOICE_SCORES = ("accuracy", "macro_f1")
"""The scores of choices, the one to be judged by first."""

ANSWER_SCORES: Mapping[str, tuple[str, ...]] = {
    "squad": ("f1", "exact_match"),
    "mlqa": ("mlqa_f1", "mlqa_exact_match"),
    "number": ("number",),
    "mgsm": ("harness_number",),
    "exact": ("exact",),
}
"""The metrics of written answers and the scores that each gives, the one to be judged by first."""
