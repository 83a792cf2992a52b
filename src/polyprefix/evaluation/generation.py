"""Answers to a list of prompts, for every method by the same code.

Prompts are put in batches under a budget of tokens. What prompts of a batch share at their start,
a passage that several questions are about, is computed once; each row then gets a copy of its keys
and values. Rows that are finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polyprefix.distributed import spread
from polyprefix.evaluation.decoding import Decoding, Row, RunningBatch
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import common, groups


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer: its text without what stops it, its tokens, and whether it was stopped (by a
    stop string or the end-of-text token) before it reached ``max_new_tokens``."""

    text: str
    tokens: int
    finished: bool


def generate(
    model: AdaptedModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    *,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Generated]:
    """Answer every prompt under the adapter in use; by all processes of a run, each prompt by one.

    Args:
        model: put into evaluation mode for the call.
        prompts: token ids without soft tokens; they are put in here.
        decoding: how.
        batch_tokens: of one batch, prompts and answers with padding.
        advance: called with the number of answers that are done.

    Returns:
        The answers, in the order of ``prompts``.
    """

    def work(chosen: list[int]) -> list[Generated]:
        return _generate(model, [prompts[i] for i in chosen], decoding, batch_tokens, advance)

    return spread(model, prompts, work)


def _generate(
    model: AdaptedModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    batch_tokens: int,
    advance: Callable[[int], None],
) -> list[Generated]:
    rows = [Row.of(model, ids, decoding, model.active) for ids in prompts]
    training = model.training
    model.eval()
    try:
        with model.without_gradients():
            # A window counts columns: the padding between a shared part and a shorter rest would
            # move what a query sees.
            sharing = model.backbone.sliding_window is None
            for batch in _batches(rows, decoding.max_new_tokens, batch_tokens, sharing=sharing):
                running = RunningBatch(model)
                running.join(batch)
                while running.going:
                    running.step()
                advance(len(batch))
    finally:
        model.train(training)
    return [Generated(row.text, len(row.new), row.done) for row in rows]


def _batches(rows: list[Row], new: int, budget: int, *, sharing: bool) -> list[list[Row]]:
    """Rows that begin alike stand together; then batches of similar length, longest first."""
    together = groups([row.ids for row in rows]) if sharing else [[i] for i in range(len(rows))]
    for group in together:
        # At least one token is left to each row: its logits begin the answer.
        shortest = min(len(rows[i].ids) for i in group) - 1
        first, last = rows[group[0]], rows[group[-1]]
        shared = min(common(first.ids, last.ids), shortest) if len(group) > 1 else 0
        for i in group:
            rows[i].shared = shared
    together.sort(key=lambda group: (-max(len(rows[i].ids) for i in group), group[0]))
    batches: list[list[Row]] = []
    longest = 0
    for row in (rows[i] for group in together for i in group):
        # The longest shared part and the longest rest may be of different rows.
        size = max(longest, len(row.ids) + new)
        if batches and size * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
            longest = size
        else:
            batches.append([row])
            longest = len(row.ids) + new
    return batches
