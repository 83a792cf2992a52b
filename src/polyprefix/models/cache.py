"""A cache for decoding: buffers of fixed size, written in place.

transformers' dynamic cache copies every key and value it holds for each new token. Here a batch's
buffers are made once, a step writes one column, and rows that are finished are taken out.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class TextLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``[B, H_kv, capacity, D]``, of which the first columns are
    filled."""

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.filled = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, heads, _, dimension = key_states.shape
        shape = (batch, heads, self.capacity, dimension)
        self.keys = key_states.new_empty(shape)
        self.values = value_states.new_empty((*shape[:3], value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns; return views of all that are filled."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.filled + key_states.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache has room for {self.capacity} tokens, {end} are needed")
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return self.capacity

    def choose(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder rows of the batch."""
        if self.keys is not None and self.values is not None:
            self.keys = self.keys[rows]
            self.values = self.values[rows]

    def join(self, other: TextLayer, skip: int, other_skip: int, capacity: int) -> None:
        """See :meth:`TextCache.join`."""
        parts = ((self, skip), (other, other_skip))
        filled = max(layer.filled - left_out for layer, left_out in parts)

        def joined(held: list[torch.Tensor]) -> torch.Tensor:
            shape = (sum(map(len, held)), held[0].shape[1], capacity, held[0].shape[3])
            states = held[0].new_empty(shape)
            row = 0
            for values, (layer, left_out) in zip(held, parts, strict=True):
                rows = slice(row, row + len(values))
                start = filled - (layer.filled - left_out)
                states[rows, :, :start] = 0  # masked, but 0 times what is not finite would show
                states[rows, :, start:filled] = values[:, :, left_out : layer.filled]
                row = rows.stop
            return states

        assert self.keys is not None
        assert self.values is not None
        assert other.keys is not None
        assert other.values is not None
        self.keys = joined([self.keys, other.keys])
        self.values = joined([self.values, other.values])
        self.filled, self.capacity = filled, capacity


class TextCache(Cache):  # type: ignore[misc]
    """Keys and values of a batch's texts. Prefixes are not in it: attention puts them in.

    Args:
        layers: L.
        capacity: tokens that a row will have at most, padding included.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        super().__init__(layers=[TextLayer(capacity) for _ in range(layers)])

    def choose(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder rows: ``rows`` ``[B']`` are indices into the batch."""
        for layer in self.layers:
            layer.choose(rows)

    def join(self, other: TextCache, skip: int, other_skip: int, capacity: int) -> None:
        """Put the rows of another cache behind the own ones. All texts end in the same column, so
        the columns of each stay next to each other, which sliding windows count on.

        Args:
            other: of the same model.
            skip: leading columns of the own rows to leave out, in which nothing is.
            other_skip: the same of the other rows.
            capacity: tokens that a row will have from now on, padding included.
        """
        for layer, others in zip(self.layers, other.layers, strict=True):
            layer.join(others, skip, other_skip, capacity)
