"""Attention of packed rows on a CPU, in pieces that leave out most of what their mask hides.

In a row of many texts most of the ``T x T`` scores are hidden: those of other texts, and of later
tokens. A row's queries are cut where its texts branch, and where a stretch is long; a piece attends
to the keys that its first query sees, which are gathered, and to its own::

    row      trunk ──────────┬─ branch ─┬─ branch ─┬─ other text
    piece     1    |    2    |     3    |     4    |     5
    keys      1    |   1 2   |   1 2 3  |   1 2 4  |     5

Where to cut is what :func:`cuts` finds to take the least time, few scores against few pieces. On
CUDA flex attention does the same (:mod:`polyprefix.models.block_sparse`); on a CPU it has no
backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.autograd.function import once_differentiable

Sees = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""``(batch, head, query, key) -> bool``, on indices that broadcast."""

DEVICES = frozenset({"cpu"})
"""Kinds of devices on which it is used."""

CALLS = 8192
"""Scores that take about as long as the calls that a piece needs, whatever its size."""

SHORTEST, LONGEST = 16, 256
"""Queries of a piece."""

STRETCH = 64
"""Queries of a stretch that does not branch after which it may be cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Queries that attend together.

    Attributes:
        row: of the batch.
        start: the first query.
        end: the first that is not one of them.
        keys: places in the row of what any of them sees.
    """

    row: int
    start: int
    end: int
    keys: npt.NDArray[np.int64]


def cuts(until: npt.NDArray[np.int64]) -> list[Cut]:
    """Pieces of packed rows. ``until``: ``[B, T]``, see :mod:`polyprefix.models.batching`."""
    found = []
    for row, ends in enumerate(until):
        for start, end in _cuts(ends):
            keys = np.concatenate([_before(ends, start), np.arange(start, end)])
            found.append(Cut(row, start, end, keys))
    return found


def _before(until: npt.NDArray[np.int64], place: int) -> npt.NDArray[np.int64]:
    """Which tokens the one at ``place`` sees before itself."""
    return np.flatnonzero(until[:place] >= place)


def _cuts(until: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """The cheapest way to cut one row, where a piece of n queries whose first sees k keys before it
    costs ``CALLS + n (k + n)``."""
    length = len(until)
    # A stretch begins where a token has another fate than the one before it.
    stretches = np.flatnonzero(np.diff(until, prepend=-1) != 0).tolist()
    places = [0]
    for start, end in zip(stretches, [*stretches[1:], length], strict=True):
        if start - places[-1] >= SHORTEST:
            places.append(start)
        places += range(places[-1] + STRETCH, end - SHORTEST, STRETCH)
    places.append(length)
    keys = [len(_before(until, place)) for place in places[:-1]]
    costs, previous = [0.0], [0]
    for last in range(1, len(places)):
        best, chosen = float("inf"), last - 1
        for first in range(last - 1, -1, -1):
            queries = places[last] - places[first]
            if queries > LONGEST and first < last - 1:
                break
            cost = costs[first] + CALLS + queries * (keys[first] + queries)
            if cost < best:
                best, chosen = cost, first
        costs.append(best)
        previous.append(chosen)
    found: list[tuple[int, int]] = []
    last = len(places) - 1
    while last:
        found.append((places[previous[last]], places[last]))
        last = previous[last]
    return found[::-1]


@dataclass(frozen=True, slots=True)
class _Laid:
    """A cut, for rows that stand one after another, P prefix keys before the tokens of each.

    Attributes:
        queries: ``G n`` of them.
        keys: ``P + k`` of them.
        bias: ``[1, G n, P + k]``.
    """

    queries: slice
    keys: torch.Tensor | slice
    bias: torch.Tensor


class Pieces:
    """The mask of packed rows, in pieces; stands where transformers passes a mask on.

    Args:
        sees: which query sees which key of a row.
        cuts: of :func:`cuts`.
        shape: B and T.
    """

    def __init__(self, sees: Sees, cuts: Sequence[Cut], shape: tuple[int, int]) -> None:
        self.sees, self.shape = sees, shape
        self._cuts = cuts
        self._laid: dict[tuple[int, int, torch.dtype], list[_Laid]] = {}

    def rows(self, queries: torch.Tensor) -> torch.Tensor:
        """``[B, 1, t, T]``, the mask of the queries at places ``[B, t]``."""
        return rows_of(self.sees, queries, self.shape[1])

    def dense(self) -> torch.Tensor:
        """``[B, 1, T, T]``, as attention with dropout needs it."""
        batch, length = self.shape
        return self.rows(torch.arange(length).expand(batch, length))

    def laid(self, prefix: int, groups: int, dtype: torch.dtype) -> list[_Laid]:
        """The pieces for attention with ``prefix`` keys before the text's and ``groups`` query
        heads to a key head. Made once: layers ask for the same."""
        key = (prefix, groups, dtype)
        if key not in self._laid:
            self._laid[key] = [self._lay(cut, *key) for cut in self._cuts]
        return self._laid[key]

    def _lay(self, cut: Cut, prefix: int, groups: int, dtype: torch.dtype) -> _Laid:
        length = self.shape[1]
        places = torch.from_numpy(cut.keys)
        row = torch.tensor(cut.row)
        queries = torch.arange(cut.start, cut.end)[:, None]
        seen = self.sees(row, torch.zeros_like(row), queries, places[None])
        bias = torch.zeros(cut.end - cut.start, prefix + len(places), dtype=dtype)
        bias[:, prefix:].masked_fill_(~seen, float("-inf"))
        before = cut.row * (prefix + length)
        keys: torch.Tensor | slice
        keys = torch.cat([torch.arange(prefix), places + prefix]) + before
        first = cut.end - len(places)
        if cut.keys[0] == first and (first == 0 or prefix == 0):
            keys = slice(before + first, before + prefix + cut.end)
        start, end = (groups * (cut.row * length + place) for place in (cut.start, cut.end))
        return _Laid(slice(start, end), keys, bias.repeat_interleave(groups, 0)[None])


def rows_of(sees: Sees, queries: torch.Tensor, keys: int) -> torch.Tensor:
    """The boolean mask ``[B, 1, t, S]`` of the queries at places ``[B, t]`` of packed rows."""
    device = queries.device
    batch = torch.arange(len(queries), device=device)[:, None, None]
    places = torch.arange(keys, device=device)
    seen = sees(batch, torch.zeros_like(batch), queries[:, :, None], places)
    return seen.expand(len(queries), queries.shape[1], keys)[:, None]


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pieces: Pieces,
    scaling: float,
    with_mass: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention ``[B, H, T, D]`` and the logarithm of its sums of exponentials ``[B, H, T]``, which
    are 0 where they are not wanted.

    Args:
        query: ``[B, H, T, D]``.
        key: ``[B, H_kv, P + T, D]``; P keys that all queries see stand before the row's.
        value: the same.
        pieces: of the rows.
        scaling: factor on the scores.
        with_mass: the sums are wanted.
    """
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    apply: Any = _Attention.apply
    with torch.autocast(kind, enabled=False):
        states = (states.to(dtype) for states in (query, key, value))
        output, mass = apply(*states, pieces, scaling, with_mass)
    return output, mass


_softmax_backward = torch.ops.aten._softmax_backward_data.default


class _Attention(torch.autograd.Function):
    """Softmax attention, piece by piece. The backward pass makes the weights again.

    For the heads that share a key head, queries stand as ``[H_kv, B T G, D]``, the G heads of a
    token one after another: those of a piece are a slice, which no product copies."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        pieces: Pieces,
        scaling: float,
        with_mass: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.shape = query.shape
        shared, length = key.shape[1], query.shape[2]
        ctx.laid = pieces.laid(key.shape[2] - length, query.shape[1] // shared, _wide(query))
        ctx.scaling, ctx.with_mass = scaling, with_mass
        query, key, value = _folded(query, shared), _rowless(key), _rowless(value)
        output = torch.empty_like(query)
        mass = query.new_zeros(*query.shape[:2], 1, dtype=_wide(query))
        for piece in ctx.laid:
            keys, values = _chosen(key, piece), _chosen(value, piece)
            scores = _scores(query[:, piece.queries], keys, piece.bias, scaling)
            weights = torch.softmax(scores, -1)
            output[:, piece.queries] = torch.bmm(weights.to(values.dtype), values)
            if with_mass:  # the largest weight is exp(the largest score - log Z)
                largest = weights.amax(-1, keepdim=True)
                mass[:, piece.queries] = scores.amax(-1, keepdim=True) - largest.log()
        ctx.save_for_backward(query, key, value)
        return _unfolded(output, ctx.shape), _unfolded(mass, (*ctx.shape[:3], 1))[..., 0]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_output: torch.Tensor, of_mass: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        shared, batch = key.shape[0], ctx.shape[0]
        wanted, mass_wanted = _folded(of_output, shared), None
        if ctx.with_mass:
            mass_wanted = _folded(of_mass[..., None], shared)
        of_query = torch.empty_like(query)
        of_key, of_value = torch.zeros_like(key), torch.zeros_like(value)
        for piece in ctx.laid:
            asked, asking = query[:, piece.queries], wanted[:, piece.queries]
            keys, values = _chosen(key, piece), _chosen(value, piece)
            weights = torch.softmax(_scores(asked, keys, piece.bias, ctx.scaling), -1)
            _add(of_value, piece, weights.to(asking.dtype), asking)
            of_weights = torch.bmm(asking, values.transpose(1, 2)).to(weights.dtype)
            of_scores = _softmax_backward(of_weights, weights, -1, weights.dtype)
            if mass_wanted is not None:  # d log Z / d score is the weight
                of_scores.addcmul_(weights, mass_wanted[:, piece.queries])
            of_scores = of_scores.to(keys.dtype)
            of_query[:, piece.queries] = torch.bmm(of_scores, keys)
            _add(of_key, piece, of_scores, asked)
        of_query *= ctx.scaling
        of_key *= ctx.scaling
        grads = (_unfolded(of_query, ctx.shape), _rows(of_key, batch), _rows(of_value, batch))
        return (*grads, None, None, None)


def _folded(states: torch.Tensor, shared: int) -> torch.Tensor:
    """``[B, H, T, X] -> [H_kv, B T G, X]``."""
    batch, heads, length, width = states.shape
    split = states.reshape(batch, shared, heads // shared, length, width)
    return split.permute(1, 0, 3, 2, 4).reshape(shared, -1, width)


def _unfolded(states: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """``[H_kv, B T G, X] -> [B, H, T, X]``, whose tokens' heads lie one after another."""
    batch, heads, length, width = shape
    split = states.view(states.shape[0], batch, length, heads // states.shape[0], width)
    return split.permute(1, 2, 0, 3, 4).reshape(batch, length, heads, width).transpose(1, 2)


def _rowless(states: torch.Tensor) -> torch.Tensor:
    """``[B, H_kv, S, D] -> [H_kv, B S, D]``."""
    return states.transpose(0, 1).flatten(1, 2)


def _rows(states: torch.Tensor, batch: int) -> torch.Tensor:
    """The reverse of :func:`_rowless`."""
    shared, _, width = states.shape
    return states.view(shared, batch, -1, width).transpose(0, 1)


def _wide(states: torch.Tensor) -> torch.dtype:
    """The type of scores: at least float32."""
    return torch.promote_types(states.dtype, torch.float32)


def _scores(
    asked: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor, scaling: float
) -> torch.Tensor:
    """``[H_kv, G n, P + k]``."""
    if bias.dtype == asked.dtype:
        return torch.baddbmm(bias, asked, keys.transpose(1, 2), alpha=scaling)
    return torch.bmm(asked, keys.transpose(1, 2)).to(bias.dtype) * scaling + bias


def _chosen(states: torch.Tensor, piece: _Laid) -> torch.Tensor:
    """``[H_kv, P + k, D]``, of a piece."""
    if isinstance(piece.keys, slice):
        return states[:, piece.keys]
    return states.index_select(1, piece.keys)


def _add(whole: torch.Tensor, piece: _Laid, scores: torch.Tensor, queries: torch.Tensor) -> None:
    """Add the product of ``[H_kv, G n, P + k]`` and ``[H_kv, G n, D]`` at a piece's keys."""
    part = torch.bmm(scores.transpose(1, 2), queries)
    if isinstance(piece.keys, slice):
        whole[:, piece.keys] += part
    else:
        whole.index_add_(1, piece.keys, part)
