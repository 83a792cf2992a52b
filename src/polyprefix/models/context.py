"""What one forward call says to the layers: which rows carry which adapter, which tokens see
which, at which positions the keys stand, and what enters a layer in place of what those below make.

transformers hands none of this down to its attention functions, so it travels in a context
variable that :class:`polyprefix.methods.AdaptedModel` sets around each forward. Gradient
checkpointing runs layers a second time during the backward pass, when that ``with`` block is long
over: :func:`checkpoint_context` is the ``context_fn`` that carries the call's context along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from polyprefix.models.last_layer import Held, Read
    from polyprefix.models.pieces import Cut


@dataclass(frozen=True, slots=True)
class Entering:
    """Hidden states that enter a layer; those below it are not computed.

    Attributes:
        layer: index of the layer.
        states: ``[B, T, d]``.
    """

    layer: int
    states: torch.Tensor


@dataclass(frozen=True, slots=True)
class CallContext:
    """The context of one forward pass.

    Attributes:
        adapter: index of the adapter that every row carries; ``None``: no adapter, or see ``rows``.
        rows: ``[B]`` adapter index of each row, -1 for none; ``None`` when all rows carry
            ``adapter``. An adapter leaves other rows as they are: adding 0 times its own is not
            that, since where one training diverges it is NaN, for all.
        carried: ``rows`` as numbers, known without asking the device.
        members: the indices that occur in ``rows``, and the places ``[N]`` of the rows that carry
            each.
        until: ``[B, T]`` packed rows: the query at place i of a row sees the key at place j if
            ``j <= i <= until[j]`` (:mod:`polyprefix.models.batching`). ``None`` when rows are not
            packed.
        key_positions: ``[B, S]`` position of every key in its text, where ALiBi or the windows of
            packed rows need it (rotary and learned positions are already in the keys).
        blocks: packed rows are attended to in blocks (:mod:`polyprefix.models.block_sparse`).
        cuts: packed rows are attended to in these pieces (:mod:`polyprefix.models.pieces`).
        unpadded: rows hold one text each and no padding, as is known without asking the device.
        entering: where the pass begins, ``None`` at the embeddings.
        read: the positions that the last layer computes (:mod:`polyprefix.models.last_layer`),
            ``None``: all.
        held: within that layer, what its attention is given.
    """

    adapter: int | None = None
    rows: torch.Tensor | None = None
    carried: tuple[int, ...] = ()
    members: Mapping[int, torch.Tensor] = field(default_factory=dict)
    until: torch.Tensor | None = None
    key_positions: torch.Tensor | None = None
    blocks: bool = False
    unpadded: bool = False
    cuts: Sequence[Cut] | None = None
    entering: Entering | None = None
    read: Read | None = None
    held: Held | None = None
    _places: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, carried: Sequence[int], device: torch.device, **more: Any) -> CallContext:
        """Every row carries the adapter of its index, -1 for none; ``more``: further fields."""
        places: dict[int, list[int]] = {}
        for place, index in enumerate(carried):
            places.setdefault(index, []).append(place)
        return cls(
            rows=torch.tensor(carried, device=device),
            carried=tuple(carried),
            members={k: torch.tensor(v, device=device) for k, v in places.items() if k >= 0},
            **more,
        )

    def places(self, adapters: tuple[int, ...]) -> torch.Tensor:
        """``[B]``: for each row the place of its adapter in ``adapters``, their number if it is not
        there. Made once a call: layers mostly ask for the same."""
        if adapters not in self._places:
            assert self.rows is not None
            place = {index: number for number, index in enumerate(adapters)}
            found = [place.get(index, len(adapters)) for index in self.carried]
            self._places[adapters] = torch.tensor(found, device=self.rows.device)
        return self._places[adapters]


NO_ADAPTER = CallContext()

_current: ContextVar[CallContext] = ContextVar("polyprefix_call", default=NO_ADAPTER)


def current() -> CallContext:
    """The context of the forward pass that is running; without one, a call without adapters."""
    return _current.get()


@contextlib.contextmanager
def calling(context: CallContext) -> Iterator[None]:
    """Run a forward pass under ``context``."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def checkpoint_context() -> tuple[
    contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]
]:
    """``context_fn`` for ``torch.utils.checkpoint``: recompute under the context of the forward."""
    return contextlib.nullcontext(), calling(current())
