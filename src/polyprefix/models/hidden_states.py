"""Hidden states that enter a layer: read where the layers below are computed, kept, and put in
where they are not.

Below the lowest adapted layer nothing changes while an adapter is trained, and attention is causal:
what enters that layer at a token depends on the text up to that token and on nothing else. So it is
computed once, kept as one vector for each distinct beginning of the texts, and put together for
whatever batch a text stands in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from polyprefix.models.batching import Batch, Text
from polyprefix.models.context import Entering, current
from polyprefix.models.last_layer import read_only

_NUMBER, _FORWARD = "_polyprefix_number", "_polyprefix_forward"


def make_enterable(layer: nn.Module, number: int) -> None:
    """Let a pass begin in a decoder layer, or above it, where the call's context says so."""
    layer.__dict__[_NUMBER], layer.__dict__[_FORWARD] = number, layer.forward
    layer.forward = MethodType(_forward, layer)


def _forward(self: Any, hidden: torch.Tensor, *arguments: Any, **options: Any) -> Any:
    """A decoder layer's forward, ``[B, T, d] -> [B, T, d]``.

    What a layer that is left out returns is not looked at, whether its family returns a tensor or a
    tuple: the layer that is entered takes its states from the context."""
    call = current()
    entering = call.entering
    if entering is not None and self.__dict__[_NUMBER] <= entering.layer:
        hidden = entering.states
        if self.__dict__[_NUMBER] < entering.layer:
            return hidden
    if call.read is not None and self.__dict__[_NUMBER] == call.read.layer:
        return read_only(self.__dict__[_FORWARD], call.read, hidden, *arguments, **options)
    return self.__dict__[_FORWARD](hidden, *arguments, **options)


class _ReachedError(Exception):
    """Ends a forward pass whose upper layers are not wanted."""


def states_entering(layer: nn.Module, call: Callable[[], object]) -> torch.Tensor:
    """``[B, T, d]``, what enters a decoder layer in a forward pass. Nothing above is computed.

    Args:
        layer: the layer.
        call: makes the forward pass.
    """
    found: list[torch.Tensor] = []

    def stop(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _ReachedError

    hook = layer.register_forward_pre_hook(stop)
    try:
        call()
    except _ReachedError:
        pass
    finally:
        hook.remove()
    return found[0]


class HiddenStates:
    """What enters a layer at every token of some texts.

    Args:
        layer: index of the layer.
        numbers: by a text's token ids, the number of each of its beginnings ``[T]``, see
            :func:`polyprefix.models.batching.beginnings`.
        shape: ``(N, d)``, N distinct beginnings.
        dtype: of the states.
        file: is made, to hold them; ``None``: memory does.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        layer: int,
        numbers: dict[tuple[int, ...], npt.NDArray[np.int64]],
        shape: tuple[int, int],
        dtype: torch.dtype,
        file: Path | None = None,
    ) -> None:
        self.layer, self.file = layer, file
        self._numbers = numbers
        if file is None:
            self._table = torch.empty(shape, dtype=dtype)
        else:
            count = shape[0] * shape[1]
            _reserve(file, count * dtype.itemsize)
            self._table = torch.from_file(str(file), shared=True, size=count, dtype=dtype)
            self._table = self._table.view(shape)

    def put(self, texts: Sequence[Text], batch: Batch, states: torch.Tensor) -> None:
        """Keep the states ``[B, T, d]`` of a batch of these texts."""
        numbers = self._of(texts, batch)
        flat = torch.from_numpy(np.flatnonzero(numbers >= 0)).to(states.device)
        chosen = states.flatten(0, 1)[flat].to(self._table.device)
        self._table[torch.from_numpy(numbers[numbers >= 0])] = chosen

    def entering(self, texts: Sequence[Text], batch: Batch) -> Entering:
        """The states of a batch of these texts, zeros at its padding."""
        numbers = torch.from_numpy(self._of(texts, batch))
        states = self._table[numbers.clamp_min(0)]
        states[numbers < 0] = 0
        states = states.view(*batch.input_ids.shape, -1).to(batch.input_ids.device)
        return Entering(self.layer, states)

    def close(self) -> None:
        """Give up the memory, or remove the file."""
        self._table = torch.empty(0)
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def _of(self, texts: Sequence[Text], batch: Batch) -> npt.NDArray[np.int64]:
        """``[B * T]``: the number of the beginning at every position of a batch, -1 at padding."""
        numbers = np.full(batch.input_ids.numel(), -1, dtype=np.int64)
        for stretch in batch.stretches:
            of_text = self._numbers[tuple(texts[stretch.text].ids)]
            numbers[stretch.flat : stretch.flat + stretch.length] = of_text[
                stretch.place : stretch.place + stretch.length
            ]
        return numbers


def _reserve(path: Path, size: int) -> None:
    """Make a file of that many bytes which the disk has: in one that grew as it is written to, a
    full disk would end the process."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
