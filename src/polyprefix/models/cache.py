"""A cache for decoding: buffers of fixed size, written in place.

transformers' dynamic cache copies every key and value it holds for each new token. Here a batch's
buffers are made once, a step writes one column, and rows that are finished are taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def take(self, parts: Sequence[tuple[TextLayer, int]]) -> None:
        """See :meth:`TextCache.joined`."""
        widths = [layer.filled - skip for layer, skip in parts]
        self.filled = max(widths)
        for name in ("keys", "values"):
            held = [getattr(layer, name) for layer, _ in parts]
            for layer, _ in parts:
                setattr(layer, name, None)  # the parts are needed no more: one layer is held twice
            shown = [
                values[:, :, skip : skip + width]
                for values, (_, skip), width in zip(held, parts, widths, strict=True)
            ]
            setattr(self, name, self._together(shown))
        self.is_initialized = True

    def _together(self, held: Sequence[torch.Tensor]) -> torch.Tensor:
        """``[B_i, H_kv, S_i, D]`` each -> ``[B, H_kv, capacity, D]``; they end together."""
        shape = (sum(map(len, held)), held[0].shape[1], self.capacity, held[0].shape[3])
        states = held[0].new_empty(shape)
        row = 0
        for values in held:
            rows, start = slice(row, row + len(values)), self.filled - values.shape[2]
            states[rows, :, :start] = 0  # masked, but 0 times what is not finite would show
            states[rows, :, start : self.filled] = values
            row = rows.stop
        return states


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

    @classmethod
    def joined(cls, parts: Sequence[tuple[TextCache, int]], capacity: int) -> TextCache:
        """The rows of several caches. All texts end in the same column, so the columns of each stay
        next to each other, which sliding windows count on.

        Args:
            parts: each with the number of its leading columns to leave out, in which nothing is.
                They are empty afterwards.
            capacity: tokens that a row will have, padding included.
        """
        cache = cls(len(parts[0][0].layers), capacity)
        for number, layer in enumerate(cache.layers):
            layer.take([(part.layers[number], skip) for part, skip in parts])
        return cache
