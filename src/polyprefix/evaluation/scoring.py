"""Log-probabilities of answers given their prompts.

Every prompt with one of its answers is a text. What texts share is computed once
(:mod:`polyprefix.models.batching`), so that answers of one token are read from one pass over their
prompt, at its last token, and longer ones are branches behind it; prompts about one passage share
the passage. Logits are computed only where an answer's token is predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from polyprefix.distributed import spread
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import Batch, Text
from polyprefix.models.budget import Budget, lay_out_fitting
from polyprefix.models.encoding import Encoded


def score_answers(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    *,
    batch_tokens: int | Budget,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[float]]:
    """The log-probability of every answer of every example, under the adapter in use.

    Args:
        model: put into evaluation mode for the call.
        examples: prompts without soft tokens; they are put in here.
        batch_tokens: tokens of one forward pass, padding included. Fewer where memory does not
            suffice; a budget is then smaller afterwards.
        advance: called with the number of examples done.

    Raises:
        OutOfMemory: one text by itself does not fit.

    Returns:
        For each example the natural log-probability of each answer, summed over its tokens.
    """
    return [scores for scores, _ in _spread(model, examples, batch_tokens, advance, greedy=False)]


def score_greedy_answers(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    *,
    batch_tokens: int | Budget,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[list[float]], list[list[bool]]]:
    """As :func:`score_answers`, and which answers are those that greedy decoding would write.

    Returns:
        For each example the log-probability of each answer; and for each whether every token of it
        is the most probable one after those before it.
    """
    found = _spread(model, examples, batch_tokens, advance, greedy=True)
    return [scores for scores, _ in found], [likeliest for _, likeliest in found]


def _spread(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    batch_tokens: int | Budget,
    advance: Callable[[int], None],
    *,
    greedy: bool,
) -> list[tuple[list[float], list[bool]]]:
    """By all processes of a run, each example by one of them."""
    budget = Budget.of(batch_tokens, shared=model.backbone.sharded)

    def work(chosen: list[int]) -> list[tuple[list[float], list[bool]]]:
        some = [examples[i] for i in chosen]
        return _score(model, some, budget, advance, greedy=greedy)

    return spread(model, [example.prompt for example in examples], work)


def _score(
    model: AdaptedModel,
    examples: Sequence[Encoded],
    budget: Budget,
    advance: Callable[[int], None],
    *,
    greedy: bool,
) -> list[tuple[list[float], list[bool]]]:
    texts: list[Text] = []
    asked: list[tuple[int, int]] = []  # example and answer of each text
    for number, example in enumerate(examples):
        prompt = model.wrap(example.prompt)
        for place, answer in enumerate(example.answers):
            # An answer's tokens are predicted one place before where they stand.
            reads = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
            texts.append(Text([*prompt, *answer[:-1]], reads))
            asked.append((number, place))
    scores = [[0.0] * len(example.answers) for example in examples]
    likeliest = [[True] * len(example.answers) for example in examples]
    left = Counter(number for number, _ in asked)
    training = model.training
    model.eval()
    try:
        device = model.backbone.device

        def answers(batch: Batch) -> list[list[int]]:
            return [examples[asked[i][0]].answers[asked[i][1]] for i in batch.texts]

        def read(batch: Batch) -> tuple[list[float], list[bool]]:
            return _read(model, batch, [t for answer in answers(batch) for t in answer], greedy)

        for batch, (values, best) in lay_out_fitting(
            texts, budget, model.pad_id, device, model.attention_length, read
        ):
            start = 0
            for i, answer in zip(batch.texts, answers(batch), strict=True):
                number, place = asked[i]
                end = start + len(answer)
                scores[number][place] = sum(values[start:end])
                likeliest[number][place] = all(best[start:end])
                start = end
                left[number] -= 1
            advance(sum(left[done] == 0 for done in {asked[i][0] for i in batch.texts}))
    finally:
        model.train(training)
    return list(zip(scores, likeliest, strict=True))


def _read(
    model: AdaptedModel, batch: Batch, tokens: list[int], greedy: bool
) -> tuple[list[float], list[bool]]:
    """The log-probability of the token at each read, and (where asked for) whether it is the most
    probable one there."""
    with model.without_gradients():
        # Answers to one prompt read the same places.
        keep, place = np.unique(batch.keep, return_inverse=True)
        logits = model(
            batch.input_ids, position_ids=batch.position_ids, until=batch.until, keep=keep
        ).logits
        wanted = torch.tensor(tokens, device=logits.device)
        values: list[float] = logits.float().log_softmax(-1)[place, wanted].tolist()
        best = [True] * len(tokens)
        if greedy:
            best = (logits.argmax(-1)[place] == wanted).tolist()
    return values, best
