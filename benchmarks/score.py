"""Scoring of choices: examples per second against lm-evaluation-harness.

    python -m benchmarks.score --data DATA --languages eng_Latn,deu_Latn

``DATA`` holds a folder for each task (``xnli``, ``sib200``, ``belebele...``). Every method is
compared with the same adapter in PEFT's format. Needs ``polyprefix[harness]``; see
``benchmarks/evaluating.py`` for what the two sides do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.common import Comparison, finish, timed
from benchmarks.evaluating import EVERY_METHOD, Sides, choice_requests, options_of, sides

TASKS = ("xnli", "sib200", "belebele")
TOLERANCE = 1e-3
"""Of log-probabilities in float32, summed over an answer's tokens."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = options_of(__doc__, TASKS)
    parser.add_argument("--methods", nargs="+", default=EVERY_METHOD, choices=EVERY_METHOD)
    parser.add_argument("--examples", type=int, default=100, help="of each language")
    options = parser.parse_args(arguments)
    counts = dict.fromkeys(TASKS, options.examples)
    found = [
        result
        for pair in sides(options, options.methods, counts, {})
        for result in timed([prepare(pair, options)], options)
    ]
    return finish("score", options, found)


def prepare(pair: Sides, options: argparse.Namespace) -> Comparison:
    """One task and method."""
    requests = choice_requests(pair.fitting.data)

    def ask(asked: list[Any]) -> list[float]:
        return [value for value, _ in pair.lm.loglikelihood(asked, disable_tqdm=True)]

    rows, theirs = pair.predict(), ask(requests)
    ours = [value for row in rows for value in row["logprobs"]]
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    agreement = {"largest difference": difference}
    agrees = difference < TOLERANCE
    if pair.case["method"] != "none":
        effect = _effect(pair, ours)
        agreement["effect of the adapter"] = effect
        agrees = agrees and effect > 10 * difference
    return pair.comparison(
        ask,
        requests,
        options,
        agrees=agrees,
        agreement=agreement,
        requests=len(requests),
    )


def _effect(pair: Sides, scores: Sequence[float]) -> float:
    """How much the adapter changes the scores of the first example: one that neither side applies
    would pass for one that both do."""
    language, examples = next(iter(pair.languages.items()))
    with pair.without_adapter():
        [row] = pair.fitting.predict(language, examples[:1])
    changes = (abs(a - b) for a, b in zip(row["logprobs"], scores, strict=False))
    return float(max(changes))


if __name__ == "__main__":
    sys.exit(main())
