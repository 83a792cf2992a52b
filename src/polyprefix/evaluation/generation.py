"""Answers to a list of prompts, for every method by the same code.

One batch runs under a budget of tokens. What prompts that join it together share at their start, a
passage that several questions are about, is computed once; each row then gets a copy of its keys
and values. Where half of the rows are finished they leave, and prompts that wait take their places:
answers differ in length, and a step takes about as long for few rows as for many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from polyprefix.distributed import spread
from polyprefix.evaluation.decoding import Decoding, Row, RunningBatch, columns
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
    """Answer every prompt under the adapter in use; by all processes of a run, each prompt by one.

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
    budget = Budget.of(batch_tokens, shared=model.backbone.sharded)

    def work(chosen: list[int]) -> list[Generated]:
        return _generate(model, [prompts[i] for i in chosen], decoding, budget, advance)

    return spread(model, prompts, work)


def _generate(
    model: AdaptedModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    budget: Budget,
    advance: Callable[[int], None],
) -> list[Generated]:
    rows = [Row.of(model, ids, decoding, model.active) for ids in prompts]
    # A window counts columns: the padding between a shared part and a shorter rest would move what
    # a query sees.
    sharing = model.backbone.sliding_window is None
    training = model.training
    model.eval()
    try:
        left = list(range(len(rows)))
        while left:
            waiting = deque(in_order([rows[i] for i in left], sharing=sharing))
            begun: list[Row] = []
            if unless_out_of_memory(partial(_answer, model, waiting, begun, budget, advance)):
                break
            running = [row for row in begun if row.left]
            width = columns(running)
            budget.halve(width * len(running), width if len(running) == 1 else 0)
            left = [i for i in left if rows[i].left]
            for i in left:  # what they have written, and drawn, is written again
                rows[i] = Row.of(model, prompts[i], decoding, model.active)
    finally:
        model.train(training)
    return [Generated(row.text, len(row.new), row.done) for row in rows]


def _answer(
    model: AdaptedModel,
    waiting: deque[Row],
    begun: list[Row],
    budget: Budget,
    advance: Callable[[int], None],
) -> None:
    """Write all answers. Rows move from ``waiting`` to ``begun`` as they join the batch."""
    with model.without_gradients():
        running = RunningBatch(model)
        while waiting or running.going:
            left = [row for row in running.rows if row.left]
            new = []
            if 2 * len(left) <= len(running.rows):  # each time the batch is copied: seldom
                new = running.admit(waiting, budget.tokens)
            if new:
                begun += new
                running.join(new)
            else:
                running.step()
            if done := sum(not row.left for row in (*left, *new)):
                advance(done)


def in_order(rows: list[Row], *, sharing: bool) -> list[Row]:
    """Rows that begin alike stand together; longest first."""
    together = groups([row.ids for row in rows]) if sharing else [[i] for i in range(len(rows))]
    for group in together:
        # At least one token is left to each row: its logits begin the answer.
        shortest = min(len(rows[i].ids) for i in group) - 1
        first, last = rows[group[0]], rows[group[-1]]
        shared = min(common(first.ids, last.ids), shortest) if len(group) > 1 else 0
        for i in group:
            rows[i].shared = shared
    together.sort(key=lambda group: (-max(len(rows[i].ids) for i in group), group[0]))
    return [rows[i] for group in together for i in group]
