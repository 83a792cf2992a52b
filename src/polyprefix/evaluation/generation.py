"""Answers to a list of prompts, for every method by the same code.

Prompts are put in batches under a budget of tokens. What prompts of a batch share at their start,
a passage that several questions are about, is computed once; each row then gets a copy of its keys
and values. Rows that are finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from polyprefix.evaluation.decoding import Decoding, Row, RunningBatch
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import common, groups
from polyprefix.models.budget import Budget, unless_out_of_memory


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
    batch_tokens: int | Budget,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Generated]:
    """Answer every prompt under the adapter in use.

    Args:
        model: put into evaluation mode for the call.
        prompts: token ids without soft tokens; they are put in here.
        decoding: how.
        batch_tokens: of one batch, prompts and answers with padding. Fewer where memory does not
            suffice; a budget is then smaller afterwards.
        advance: called with the number of answers that are done.

    Raises:
        OutOfMemory: one prompt and its answer by themselves do not fit.

    Returns:
        The answers, in the order of ``prompts``.
    """
    budget = Budget.of(batch_tokens)
    rows = [Row.of(model, ids, decoding, model.active) for ids in prompts]
    # A window counts columns: the padding between a shared part and a shorter rest would move what
    # a query sees.
    sharing = model.backbone.sliding_window is None
    training = model.training
    model.eval()
    try:
        left = list(range(len(rows)))
        while left:
            for batch in batches([rows[i] for i in left], decoding, budget, sharing=sharing):
                chosen = [left[place] for place in batch]
                work = partial(_answer, model, [rows[i] for i in chosen])
                if unless_out_of_memory(work) is not None:
                    advance(len(chosen))
                    continue
                sizes = [len(rows[i].ids) + decoding.max_new_tokens for i in chosen]
                one = max(sizes) if len(sizes) == 1 else 0
                budget.halve(columns([rows[i] for i in chosen]) * len(chosen), one)
                for i in chosen:  # what they have written, and drawn, is written again
                    rows[i] = Row.of(model, prompts[i], decoding, model.active)
                break
            left = [i for i in left if rows[i].left]
    finally:
        model.train(training)
    return [Generated(row.text, len(row.new), row.done) for row in rows]


@torch.inference_mode()
def _answer(model: AdaptedModel, rows: list[Row]) -> None:
    """Write the answers of a batch."""
    running = RunningBatch(model)
    running.join(rows)
    while running.going:
        running.step()


def columns(rows: Sequence[Row]) -> int:
    """Of the cache of a batch: the longest shared part and the longest rest may be of different
    rows."""
    shared, rest = max(row.shared for row in rows), max(len(row.ids) - row.shared for row in rows)
    return shared + rest + max(row.decoding.max_new_tokens for row in rows)


def batches(
    rows: list[Row], decoding: Decoding, budget: Budget, *, sharing: bool
) -> list[list[int]]:
    """Places of rows: those that begin alike stand together; then batches of similar length,
    longest first."""
    new = decoding.max_new_tokens
    together = groups([row.ids for row in rows]) if sharing else [[i] for i in range(len(rows))]
    for group in together:
        # At least one token is left to each row: its logits begin the answer.
        shortest = min(len(rows[i].ids) for i in group) - 1
        first, last = rows[group[0]], rows[group[-1]]
        shared = min(common(first.ids, last.ids), shortest) if len(group) > 1 else 0
        for i in group:
            rows[i].shared = shared
    together.sort(key=lambda group: (-max(len(rows[i].ids) for i in group), group[0]))
    batches: list[list[int]] = []
    longest = 0
    for i in (i for group in together for i in group):
        # The longest shared part and the longest rest may be of different rows.
        size = max(longest, len(rows[i].ids) + new)
        if batches and size * (len(batches[-1]) + 1) <= budget.tokens:
            batches[-1].append(i)
            longest = size
        else:
            batches.append([i])
            longest = len(rows[i].ids) + new
    for batch in batches:
        chosen = [rows[i] for i in batch]
        rests = [len(row.ids) - row.shared for row in chosen if row.shared]
        for row in chosen:
            if rests and not row.shared:
                # What shares nothing is its own beginning: all rests would be padded to its length.
                row.shared = max(0, len(row.ids) - max(rests))
    return batches
