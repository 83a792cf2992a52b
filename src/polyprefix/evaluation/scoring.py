"""Log-probabilities of answers given their prompts.

An example's answers share its prompt. All answers of one token are read from the same forward
pass, at the prompt's last token; an answer of k tokens needs its first k - 1 as input. Rows are
made only for inputs that are not the beginning of another one, and logits are computed only where
an answer's token is predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import Row, by_tokens, lay_out
from polyprefix.models.encoding import Encoded


class _Target(NamedTuple):
    """A token of an answer: its ``place`` counts from 0, at the row's first read."""

    example: int
    answer: int
    place: int
    token: int


def score_answers(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    *,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[float]]:
    """The log-probability of every answer of every example, under the adapter in use.

    Args:
        model: put into evaluation mode for the call.
        examples: prompts without soft tokens; they are put in here.
        batch_tokens: padded tokens of one forward pass.
        advance: called with the number of examples done.

    Returns:
        For each example the natural log-probability of each answer, summed over its tokens.
    """
    scores, _ = _score(model, examples, batch_tokens, advance, greedy=False)
    return scores


def score_greedy_answers(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    *,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[list[float]], list[list[bool]]]:
    """As :func:`score_answers`, and which answers are those that greedy decoding would write.

    Returns:
        For each example the log-probability of each answer; and for each whether every token of it
        is the most probable one after those before it.
    """
    return _score(model, examples, batch_tokens, advance, greedy=True)


def _score(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    batch_tokens: int,
    advance: Callable[[int], None],
    *,
    greedy: bool,
) -> tuple[list[list[float]], list[list[bool]]]:
    rows: list[Row] = []
    targets: list[list[_Target]] = []
    for number, example in enumerate(examples):
        _rows_of(model, number, example, rows, targets)
    scores = [[0.0] * len(example.answers) for example in examples]
    likeliest = [[True] * len(example.answers) for example in examples]
    left = Counter(wanted[0].example for wanted in targets)
    training = model.training
    model.eval()
    try:
        for batch in by_tokens([len(row.ids) for row in rows], batch_tokens):
            wanted = [targets[i] for i in batch]
            for target, value, best in _read(model, [rows[i] for i in batch], wanted, greedy):
                scores[target.example][target.answer] += value
                likeliest[target.example][target.answer] &= best
            left.subtract(found[0].example for found in wanted)
            advance(sum(left[done] == 0 for done in {found[0].example for found in wanted}))
    finally:
        model.train(training)
    return scores, likeliest


def _rows_of(
    model: AdaptedModel,
    number: int,
    example: Encoded,
    rows: list[Row],
    targets: list[list[_Target]],
) -> None:
    prompt = model.wrap(example.prompt)
    stems = {tuple(answer[:-1]) for answer in example.answers}
    leaves = [
        stem
        for stem in sorted(stems)
        if not any(other != stem and other[: len(stem)] == stem for other in stems)
    ]
    wanted: list[list[_Target]] = [[] for _ in leaves]
    for place, answer in enumerate(example.answers):
        stem = tuple(answer[:-1])
        leaf = next(i for i, other in enumerate(leaves) if other[: len(stem)] == stem)
        wanted[leaf] += [_Target(number, place, i, token) for i, token in enumerate(answer)]
    for continuation, reads in zip(leaves, wanted, strict=True):
        depth = 1 + max(target.place for target in reads)
        places = [len(prompt) - 1 + i for i in range(depth)]
        rows.append(Row([*prompt, *continuation], places))
        targets.append(reads)


def _read(
    model: AdaptedModel, rows: list[Row], targets: list[list[_Target]], greedy: bool
) -> list[tuple[_Target, float, bool]]:
    """The log-probability of each target, and (where asked for) whether it is the most probable."""
    batch = lay_out(rows, model.pad_id, model.backbone.device)
    with torch.inference_mode():
        logits = model(batch.input_ids, batch.attention_mask, keep=batch.keep).logits
        logprobs = logits.float().log_softmax(-1)
        flat, start = [], 0
        for row, wanted in zip(rows, targets, strict=True):
            flat += [(target, start + target.place) for target in wanted]
            start += len(row.reads)
        places = torch.tensor([place for _, place in flat], device=logprobs.device)
        tokens = torch.tensor([target.token for target, _ in flat], device=logprobs.device)
        values = logprobs[places, tokens].tolist()
        best = [True] * len(flat)
        if greedy:
            best = (logits.argmax(-1)[places] == tokens).tolist()
    return [
        (target, value, top) for (target, _), value, top in zip(flat, values, best, strict=True)
    ]
