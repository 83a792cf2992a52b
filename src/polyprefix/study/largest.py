"""The largest forward passes of a run, of its own texts.

What a run takes of memory is decided by them. They are found as the run finds them: the order of
training is a function of the seed, so its steps are drawn beforehand, and batches are laid out by
the run's own code.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from polyprefix.config import RunConfig
from polyprefix.evaluation import Row, RunningBatch, in_order
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import ATTENTION_LENGTH, Batch, Text, groups, lay_out
from polyprefix.models.encoding import Encoded
from polyprefix.study.fit import Fitting
from polyprefix.study.simulation import with_numbers
from polyprefix.tasks import Example
from polyprefix.training import TrainingExample, batches_from, most_of, num_steps

SAMPLE = 4096
"""Examples of a split that are looked at, the first of them."""

STEPS = 2048
"""Optimizer steps that are drawn."""

TRIED = 8
"""Of these, those that are laid out: the ones with most tokens."""

LANGUAGES = 3
"""Those with most tokens, whose batches are looked at."""

TOLD_BY = 16
"""Test examples of a language that say how long its texts are."""

CPU = torch.device("cpu")


def training_texts(model: AdaptedModel, examples: Sequence[TrainingExample]) -> list[Text]:
    """What is computed of training examples."""
    return [_text(model, example.prompt, example.answer) for example in examples]


def training_batch(
    config: RunConfig,
    model: AdaptedModel,
    examples: Sequence[TrainingExample],
    texts: Sequence[Text],
    count: int,
    tokens: int,
    device: torch.device,
) -> tuple[Batch, bool]:
    """The largest micro-batch of a training, and whether its step has others.

    Args:
        config: of the run.
        model: with the adapter in use.
        examples: that are trained on, or the first of them.
        texts: theirs.
        count: how many are trained on.
        tokens: of a micro-batch at most.
        device: that the run will be on.
    """
    size, lengths = config.train.batch_size, [len(text.ids) for text in texts]
    together = groups([example.prompt for example in examples], most_of(size))
    order = batches_from(lengths, together, size, config.seed, 0)
    steps = islice(order, min(num_steps(config.train, count), STEPS))
    largest = heapq.nlargest(TRIED, steps, key=lambda chosen: sum(lengths[i] for i in chosen))
    found = [laid_out([texts[i] for i in chosen], tokens, model, device) for chosen in largest]
    batch = max(found, key=lambda each: each.input_ids.numel())
    return batch, any(len(each.texts) < size for each in found)


def scoring_batch(
    model: AdaptedModel, encoded: Sequence[Encoded], tokens: int, device: torch.device
) -> Batch:
    """The largest batch in which answers are scored."""
    texts = [_text(model, item.prompt, answer) for item in encoded for answer in item.answers]
    batch = laid_out(texts, tokens, model, device)
    return replace(batch, keep=np.unique(batch.keep))  # answers to one prompt read the same places


def answered_rows(
    model: AdaptedModel, encoded: Sequence[Encoded], fitting: Fitting, language: str
) -> list[Row]:
    """The first batch of prompts that are answered at once: the longest, as many as may be."""
    decoding = fitting.decodings[language]
    rows = [Row.of(model, item.prompt, decoding, model.active) for item in encoded]
    waiting = deque(in_order(rows, sharing=model.backbone.sliding_window is None))
    return RunningBatch(model).admit(waiting, fitting.budget.tokens)


def busiest(fitting: Fitting, test: Mapping[str, Sequence[Example]]) -> list[str]:
    """The languages whose texts have most tokens in a batch, which does not mix languages. More
    than one, since places that are read take memory, too."""

    def tokens(code: str) -> tuple[float, int]:
        some = fitting.encode(code, test[code][:TOLD_BY])
        lengths = [len(item.prompt) + sum(map(len, item.answers)) for item in some]
        whole = sum(lengths) / len(lengths) * len(test[code])
        return min(float(fitting.budget.tokens), whole), max(lengths)

    return heapq.nlargest(LANGUAGES, test, key=tokens)


def _text(model: AdaptedModel, bare: list[int], answer: list[int]) -> Text:
    prompt = model.wrap(bare)
    reads = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
    return Text([*prompt, *answer[:-1]], reads, model.active)


def laid_out(
    texts: Sequence[Text], tokens: int, model: AdaptedModel, device: torch.device
) -> Batch:
    """The largest batch.

    On a GPU, attention skips what the mask hides and no mask is written out, in rows as long as the
    batch; here it is one text a row, which needs none either."""
    on_cpu = device.type == "cpu"
    with with_numbers():
        length = model.attention_length if on_cpu else ATTENTION_LENGTH
        found = lay_out(texts, tokens, model.pad_id, CPU, length)
        batch = max(found, key=lambda each: each.input_ids.numel())
        return batch if on_cpu else replace(batch, until=None)
