"""Greedy decoding: examples per second against lm-evaluation-harness.

    python -m benchmarks.generate --data DATA --languages eng_Latn,spa_Latn

``DATA`` holds the folders ``xquad`` and ``mgsm``. XQuAD's questions are taken passage by passage,
as they stand in its files. A random model hardly ever writes a stop string, so its answers are all
as long as they may be. Those of a trained model are not: every task is measured a second time with
a character as another stop string, on both sides, that ends answers of the random model after
about ``--stopped-at`` of the limit, one sooner, one later. Needs ``polyprefix[harness]``; see
``benchmarks/evaluating.py`` for what the two sides do.

Of the methods that PEFT has too only LoRA can be compared: in left-padded batches, which the
harness makes, PEFT's prompt methods compute something else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.common import Comparison, finish, timed
from benchmarks.evaluating import Sides, options_of, requests_for, sides
from polyprefix.tasks import Example

TASKS = ("xquad", "mgsm")
SAME = 0.99
"""The share of texts that have to be the same: in float32 two tokens may be as good as equal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = options_of(__doc__, TASKS)
    add = parser.add_argument
    add("--methods", nargs="+", default=["none"], choices=["none", "lora"])
    add("--xquad-examples", type=int, default=50, help="of each language")
    add("--xquad-tokens", type=int, default=8, help="of an answer at most")
    add("--mgsm-examples", type=int, default=25)
    add("--mgsm-tokens", type=int, default=64)
    add(
        "--stopped-at",
        type=float,
        default=0.4,
        help="share of the limit after which answers end on average, in the second measurement of "
        "a task; 0 leaves it out",
    )
    options = parser.parse_args(arguments)
    counts = {"xquad": options.xquad_examples, "mgsm": options.mgsm_examples}
    tokens = {"xquad": options.xquad_tokens, "mgsm": options.mgsm_tokens}
    found = []
    for pair in sides(options, options.methods, counts, tokens):
        found += timed([prepare(pair, options)], options)
        if options.stopped_at:
            stop_early(pair, options.stopped_at)
            found += timed([prepare(pair, options)], options)
    return finish("generate", options, found)


def prepare(pair: Sides, options: argparse.Namespace) -> Comparison:
    """One task and method."""
    prompts, decodings = pair.fitting.data.prompts, pair.fitting.decodings

    def requests_of(language: str, example: Example) -> list[Any]:
        decoding = decodings[language]
        wanted = {
            "until": list(decoding.stop),
            "max_gen_toks": decoding.max_new_tokens,
            "do_sample": False,
        }
        return [(prompts[language].render(example.fields), wanted)]

    requests = requests_for(pair.fitting.data, "generate_until", requests_of)

    def ask(asked: list[Any]) -> list[str]:
        texts: list[str] = pair.lm.generate_until(asked, disable_tqdm=True)
        return texts

    rows, theirs = pair.predict(), ask(requests)
    same = sum(row["prediction"] == text.strip() for row, text in zip(rows, theirs, strict=True))
    distinct = len(set(theirs))
    agreement: dict[str, Any] = {"same texts": f"{same} of {len(rows)}", "distinct": distinct}
    agrees = same >= SAME * len(rows) and distinct > 1
    if pair.case["method"] != "none":
        changed = _changed(pair, rows)
        agreement["changed by the adapter"] = changed
        agrees = agrees and changed > 0
    lengths = [row["tokens"] for row in rows]
    limit = max(decoding.max_new_tokens for decoding in decodings.values())
    answers = f"{sum(lengths) / len(lengths):.0f} of {limit} tokens"
    told = replace(pair, case=pair.case | {"answers": answers})
    return told.comparison(
        ask,
        requests,
        options,
        agrees=agrees,
        agreement=agreement,
        **{
            "tokens written": sum(lengths),
            "shortest": min(lengths),
            "longest": max(lengths),
            "stop": [*next(iter(decodings.values())).stop],
        },
    )


def stop_early(pair: Sides, share: float) -> None:
    """Have answers end at the character that leaves about a ``share`` of what is written now."""
    texts = [row["prediction"] for row in pair.predict()]

    def left(character: str) -> float:
        """Mean share of a text before it."""
        kept = [len(text.partition(character)[0]) / len(text) for text in texts if text]
        return sum(kept) / len(kept)

    characters = sorted({character for text in texts for character in text if character.isalpha()})
    stop = min(characters, key=lambda character: abs(left(character) - share))
    decodings = pair.fitting.decodings
    for language, decoding in decodings.items():
        decodings[language] = replace(decoding, stop=(*decoding.stop, stop))


def _changed(pair: Sides, rows: Sequence[dict[str, Any]]) -> int:
    """Answers of the first language that are others without the adapter: one that neither side
    applies would pass for one that both do."""
    language, examples = next(iter(pair.languages.items()))
    with pair.without_adapter():
        plain = pair.fitting.predict(language, examples)
    pairs = zip(plain, rows, strict=False)  # the first language's rows stand first
    return sum(bare["prediction"] != row["prediction"] for bare, row in pairs)


if __name__ == "__main__":
    sys.exit(main())
