"""The order in which examples are trained on: a function of the seed, so it needs no saving."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

POOL = 32
"""Batches that are sorted by length together: long enough for batches of similar length, short
enough that an epoch stays shuffled."""


def epoch(lengths: Sequence[int], batch_size: int, seed: int, number: int) -> list[list[int]]:
    """Batches of example indices of one epoch, each example once.

    Examples are shuffled, cut into pools of ``POOL`` batches, sorted by length within a pool and
    cut into batches, which are shuffled again."""
    source = random.Random(f"{seed}-{number}")
    order = list(range(len(lengths)))
    source.shuffle(order)
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda i: lengths[i])
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    source.shuffle(batches)
    return batches


def batches_from(
    lengths: Sequence[int], batch_size: int, seed: int, step: int
) -> Iterator[list[int]]:
    """Batches without end, from the one of optimizer step ``step`` (counted from 0)."""
    per_epoch = -(-len(lengths) // batch_size)
    number, skip = divmod(step, per_epoch)
    while True:
        yield from epoch(lengths, batch_size, seed, number)[skip:]
        number, skip = number + 1, 0
