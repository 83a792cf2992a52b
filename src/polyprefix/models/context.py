"""What one forward call says to the layers: which rows carry which adapter, which tokens see
which, at which positions the keys stand, and what enters a layer in place of what those below make.

transformers hands none of this down to its attention functions, so it travels in a context
variable that :class:`polyprefix.methods.AdaptedModel` sets around each forward. Gradient
checkpointing runs layers a second time during the backward pass, when that ``with`` block is long
over: :func:`checkpoint_context` is the ``context_fn`` that carries the call's context along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch


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
            ``adapter``.
        present: the indices that occur in ``rows``, known without asking the device.
        until: ``[B, T]`` packed rows: the query at place i of a row sees the key at place j if
            ``j <= i <= until[j]`` (:mod:`polyprefix.models.batching`). ``None`` when rows are not
            packed.
        key_positions: ``[B, S]`` position of every key in its text, where ALiBi or the windows of
            packed rows need it (rotary and learned positions are already in the keys).
        entering: where the pass begins, ``None`` at the embeddings.
    """

    adapter: int | None = None
    rows: torch.Tensor | None = None
    present: frozenset[int] = frozenset()
    until: torch.Tensor | None = None
    key_positions: torch.Tensor | None = None
    entering: Entering | None = None


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
