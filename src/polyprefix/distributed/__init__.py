"""Several processes that work on one run: what they say to each other, and a backbone in parts."""

from polyprefix.distributed.sharding import shard
from polyprefix.distributed.split import split
from polyprefix.distributed.spread import spread
from polyprefix.distributed.tensors import put, sum_gradients, total_norm, whole
from polyprefix.distributed.world import World, connected, in_plain_words, joined, leave, world

__all__ = [
    "World",
    "connected",
    "in_plain_words",
    "joined",
    "leave",
    "put",
    "shard",
    "split",
    "spread",
    "sum_gradients",
    "total_norm",
    "whole",
    "world",
]
