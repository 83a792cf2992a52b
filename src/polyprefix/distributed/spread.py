"""Scoring that processes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from polyprefix.distributed.sharding import in_step
from polyprefix.distributed.split import split
from polyprefix.distributed.world import world
from polyprefix.methods import AdaptedModel

T = TypeVar("T")


def spread(
    model: AdaptedModel, texts: Sequence[list[int]], work: Callable[[list[int]], list[T]]
) -> list[T]:
    """The result of every text, in their order, in every process; each computes a part of them.

    Args:
        model: that ``work`` computes with, in evaluation mode.
        texts: token ids, by which the work is divided.
        work: results of the texts of these indices, in their order.

    Raises:
        PolyprefixError: of any process.
    """
    here = world()
    if here.size == 1:
        return work(list(range(len(texts))))
    mine = split(texts, here.size)[here.rank]

    def own() -> list[T]:
        with in_step(model):
            return work(mine) if mine else []

    found: dict[int, T] = {}
    for part in here.gather(list(zip(mine, here.each(own), strict=True))):
        found |= dict(part)
    return [found[i] for i in range(len(texts))]
