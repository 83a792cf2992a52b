"""The order in which examples are trained on: a function of the seed, so it needs no saving.

Examples that share a long beginning, the questions about a passage, are cheaper in one optimizer
step than apart (:mod:`polyprefix.models.batching`), so what is shuffled is groups of them.

How shuffled that is: every example comes once an epoch. A group of up to ``most`` examples, half a
batch unless the caller says otherwise, always stands in one batch (or, where nothing else fills it,
in two), so a batch holds examples of two groups at least. Which groups meet, and in what order, is
drawn anew in every epoch, as it is for single examples; larger groups are cut anew at random. Where
no two examples share a beginning, or all share the same one, this is the shuffling of single
examples.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

POOL = 32
"""Batches that are sorted by length together: long enough for batches of similar length, short
enough that an epoch stays shuffled."""


def epoch(
    lengths: Sequence[int],
    groups: Sequence[Sequence[int]],
    batch_size: int,
    seed: int,
    number: int,
) -> list[list[int]]:
    """Batches of example indices of one epoch, each example once.

    Groups are shuffled, cut into pools of about ``POOL`` batches, sorted by length within a pool
    and put into batches, which are shuffled again.

    Args:
        lengths: tokens of each example.
        groups: every example once, with those that share a beginning.
        batch_size: examples of a batch; the last one may have fewer.
        seed: of the run.
        number: of the epoch.
    """
    source = random.Random(f"{seed}-{number}")
    most = most_of(batch_size)
    pieces = []
    for group in groups:
        members = list(group)
        if len(members) > most:
            source.shuffle(members)
        pieces += [members[i : i + most] for i in range(0, len(members), most)]
    source.shuffle(pieces)
    batches: list[list[int]] = []
    pool: list[list[int]] = []
    waiting = 0
    for place, piece in enumerate(pieces, start=1):
        pool.append(piece)
        waiting += len(piece)
        last = place == len(pieces)
        if waiting >= POOL * batch_size or last:
            pool.sort(key=lambda piece: max(lengths[i] for i in piece))
            while waiting >= batch_size or (last and waiting):
                batches.append(_fill(pool, batch_size))
                waiting -= len(batches[-1])
    source.shuffle(batches)
    return batches


def most_of(batch_size: int) -> int:
    """Examples of a group that stand together: half a batch."""
    return max(1, batch_size // 2)


def _fill(pool: list[list[int]], size: int) -> list[int]:
    """Take one batch from the left; a piece that does not fit waits for the next, and is cut only
    where no other fits."""
    batch: list[int] = []
    while pool and len(batch) < size:
        room = size - len(batch)
        place = next((i for i, piece in enumerate(pool) if len(piece) <= room), 0)
        piece = pool.pop(place)
        batch += piece[:room]
        if rest := piece[room:]:
            pool.insert(0, rest)
    return batch


def batches_from(
    lengths: Sequence[int],
    groups: Sequence[Sequence[int]],
    batch_size: int,
    seed: int,
    step: int,
) -> Iterator[list[int]]:
    """Batches without end, from the one of optimizer step ``step`` (counted from 0)."""
    per_epoch = -(-len(lengths) // batch_size)
    number, skip = divmod(step, per_epoch)
    while True:
        yield from epoch(lengths, groups, batch_size, seed, number)[skip:]
        number, skip = number + 1, 0
