"""The last layer where it is read, and nowhere else.

Above the last layer's attention a position matters only if logits are wanted there: of the others
the layer's keys and values are needed, and neither their attention nor their feed-forward block.
In training and scoring on short answers that saves nearly a whole layer, forward and backward.

No family is asked how it makes keys and values. The layer's own forward is called twice: for all
positions, up to the moment at which it attends, and then for those that are read, whose attention
is given the keys and values of the first call.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention.flex_attention import BlockMask

from polyprefix.models import block_sparse, context
from polyprefix.models.pieces import Pieces

SHARE = 1 / 2
"""Of the positions of a batch that are read at most, for the second call to pay."""

_SLICED = frozenset({"hidden_states", "position_ids", "position_embeddings"})
_LEFT_OUT = frozenset({"attention_mask", "past_key_values", "layer_past", "use_cache"})
"""The second call has its mask from the first, whose keys and values are in the cache already."""


@dataclass(frozen=True, slots=True)
class Read:
    """Which positions of a batch are read.

    Attributes:
        layer: index of the last layer.
        places: ``[B, t]``, in each row, filled up with 0.
        chosen: ``[N]``, of the ``B * t``, those that fill nothing up.
        flat: ``[N]``, the same of the ``B * T``.
    """

    layer: int
    places: torch.Tensor
    chosen: torch.Tensor
    flat: torch.Tensor

    @classmethod
    def of(
        cls,
        layer: int,
        keep: npt.NDArray[np.int64],
        batch: int,
        length: int,
        device: torch.device,
    ) -> Read | None:
        """Of flat positions ``[N]``; ``None`` where it does not pay."""
        flat = np.unique(keep)
        rows, places = flat // length, flat % length
        counts = np.bincount(rows, minlength=batch)
        most = max(1, int(counts.max()))
        if most > SHARE * length:
            return None
        within = np.arange(len(flat)) - (counts.cumsum() - counts)[rows]
        filled = np.zeros((batch, most), dtype=np.int64)
        filled[rows, within] = places
        indices = (filled, rows * most + within, flat)
        return cls(layer, *(torch.from_numpy(index).to(device) for index in indices))

    def choose(self, states: torch.Tensor) -> torch.Tensor:
        """``[B or 1, T, ...] -> [B, t, ...]``."""
        states = states.expand(len(self.places), *states.shape[1:])
        rows = torch.arange(len(self.places), device=states.device)[:, None]
        return states[rows, self.places]

    def put_back(self, states: torch.Tensor, length: int) -> torch.Tensor:
        """``[B, t, d] -> [B, T, d]``, zeros where nothing is read."""
        batch, _, width = states.shape
        whole = states.new_zeros(batch * length, width)
        return whole.index_copy(0, self.flat, states.flatten(0, 1)[self.chosen]).view(
            batch, length, width
        )


class _AttendedError(Exception):
    """Ends the first call."""


class Held:
    """What attention is given in the first call, for the second."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._first: tuple[Any, ...] | None = None

    def exchange(self, key: torch.Tensor, value: torch.Tensor, mask: Any) -> tuple[Any, ...]:
        """Keys, values and mask of the first call, the mask of the positions that are read.

        Args:
            key: ``[B, H_kv, S, D]``.
            value: the same.
            mask: as :func:`polyprefix.models.attention.prefix_attention` takes it.
        """
        if self._first is None:
            self._first = (key, value, mask)
            raise _AttendedError
        key, value, mask = self._first
        return key, value, _rows(mask, self._read, key.shape[2])


def _rows(mask: Any, read: Read, keys: int) -> torch.Tensor:
    """``[B, 1 or H, t, S]``, the rows of a mask."""
    places = read.places
    if isinstance(mask, Pieces):
        return mask.rows(places)
    if isinstance(mask, BlockMask):
        return block_sparse.rows(mask, places)
    if mask is None:
        return (torch.arange(keys, device=places.device) <= places[..., None])[:, None]
    return read.choose(mask.transpose(1, 2)).transpose(1, 2)


def read_only(
    forward: Callable[..., Any], read: Read, hidden: torch.Tensor, *arguments: Any, **options: Any
) -> Any:
    """What a decoder layer returns, ``[B, T, d]`` or a tuple that begins with it: zeros where it is
    not read.

    Args:
        forward: the layer's.
        read: the positions.
        hidden: ``[B, T, d]``, what enters it, and what else it is called with.
    """
    call, held = context.current(), Held(read)
    with context.calling(replace(call, held=held)):
        with contextlib.suppress(_AttendedError):
            forward(hidden, *arguments, **options)
        output = forward(**_narrowed(forward, read, hidden, *arguments, **options))
    first = output[0] if isinstance(output, tuple) else output
    whole = read.put_back(first, hidden.shape[1])
    return (whole, *output[1:]) if isinstance(output, tuple) else whole


def _narrowed(
    forward: Callable[..., Any], read: Read, *arguments: Any, **options: Any
) -> dict[str, Any]:
    """By name, what a layer is called with, of the positions that are read."""
    signature = inspect.signature(forward)
    named = dict(signature.bind(*arguments, **options).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    for name in _LEFT_OUT & named.keys():
        named[name] = None
    for name in _SLICED & named.keys():
        value = named[name]
        if isinstance(value, tuple):  # of cosines and sines
            named[name] = tuple(read.choose(states) for states in value)
        elif value is not None:
            named[name] = read.choose(value)
    return named
