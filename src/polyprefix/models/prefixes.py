"""What a layer carries: the prefixes of its adapters, and which of them the rows of a batch get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from polyprefix.models import context

_SLOT = "_polyprefix_slot"


@dataclass(frozen=True, slots=True)
class LayerPrefix:
    """What one adapter adds to the attention of one layer.

    Attributes:
        key: ``[H_kv, P, D]`` without rotary embedding.
        value: ``[H_kv, P, D]``.
        gate: ``[H]`` or ``None``. Additive: the factor on the prefix's own attention. Joint: the
            factor ``g >= 0`` on the prefix's softmax mass.
        additive: a term of its own beside the text's attention (LLaMA-Adapter) instead of keys
            and values within the text's softmax (prefix tuning).
        alibi_offset: positions by which the prefix precedes the text under ALiBi. 0: every prefix
            key has the bias of position 0. P: key j has that of position j - P (PEFT's convention,
            where a prefix is the start of the text).
    """

    key: torch.Tensor
    value: torch.Tensor
    gate: torch.Tensor | None = None
    additive: bool = False
    alibi_offset: int = 0


PrefixProducer = Callable[[], LayerPrefix]
"""Computes a layer's prefix from its parameters, anew in each forward: nothing is kept between
calls, so an evaluation before or between training steps cannot leave stale values behind."""


@dataclass(slots=True)
class AttentionSlot:
    """The prefixes an attention module carries, by adapter index."""

    prefixes: dict[int, PrefixProducer] = field(default_factory=dict)


def slot_of(module: torch.nn.Module) -> AttentionSlot:
    """The slot of an attention module, made on first use. A plain attribute, not a submodule: the
    backbone's state dict stays what it was."""
    slot: AttentionSlot | None = module.__dict__.get(_SLOT)
    if slot is None:
        slot = AttentionSlot()
        module.__dict__[_SLOT] = slot
    return slot


@dataclass(frozen=True, slots=True)
class RowPrefix:
    """Prefixes of a batch: keys and values ``[B, H_kv, P, D]``, ``visible`` ``[B, P]`` or ``None``
    where all are, gate ``[B, H]`` or ``None``, ALiBi positions ``[B, P]``."""

    key: torch.Tensor
    value: torch.Tensor
    visible: torch.Tensor | None
    gate: torch.Tensor | None
    positions: torch.Tensor


def _alibi_positions(prefix: LayerPrefix) -> torch.Tensor:
    """``[P]``: see :attr:`LayerPrefix.alibi_offset`."""
    length = prefix.key.shape[1]
    if prefix.alibi_offset == 0:
        return torch.zeros(length, dtype=torch.long, device=prefix.key.device)
    return torch.arange(length, device=prefix.key.device) - prefix.alibi_offset


def _same_for_all(prefix: LayerPrefix, batch: int) -> RowPrefix:
    return RowPrefix(
        key=prefix.key.expand(batch, -1, -1, -1),
        value=prefix.value.expand(batch, -1, -1, -1),
        visible=None,
        gate=None if prefix.gate is None else prefix.gate.expand(batch, -1),
        positions=_alibi_positions(prefix).expand(batch, -1),
    )


def _per_row(
    prefixes: Mapping[int, LayerPrefix], call: context.CallContext, heads: int
) -> RowPrefix:
    """Stack prefixes of different lengths and pick one for each row; rows without one see none."""
    lengths = [prefix.key.shape[1] for prefix in prefixes.values()]
    longest = max(lengths)
    index = call.places(tuple(prefixes))
    keys, values, gates, positions = [], [], [], []
    for prefix, length in zip(prefixes.values(), lengths, strict=True):
        missing = longest - length
        keys.append(F.pad(prefix.key, (0, 0, 0, missing)) if missing else prefix.key)
        values.append(F.pad(prefix.value, (0, 0, 0, missing)) if missing else prefix.value)
        positions.append(F.pad(_alibi_positions(prefix), (0, missing)))
        gates.append(prefix.key.new_ones(heads) if prefix.gate is None else prefix.gate)
    if any(adapter not in prefixes for adapter in call.carried):
        lengths.append(0)
        for found in (keys, values, gates, positions):
            found.append(torch.zeros_like(found[0]))

    def of_rows(found: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(found).index_select(0, index)

    visible = None
    if min(lengths) < longest:  # else attention needs no mask for the prefix
        places = torch.arange(longest, device=index.device)
        visible = of_rows([places < length for length in lengths])
    gated = any(prefix.gate is not None for prefix in prefixes.values())
    return RowPrefix(
        key=of_rows(keys),
        value=of_rows(values),
        visible=visible,
        gate=of_rows(gates) if gated else None,
        positions=of_rows(positions),
    )


def prefixes_of_rows(
    module: torch.nn.Module, batch: int, heads: int
) -> tuple[RowPrefix | None, RowPrefix | None]:
    """The joint and the additive prefixes of an attention module's batch, under the context of the
    forward pass that is running."""
    slot: AttentionSlot | None = module.__dict__.get(_SLOT)
    if slot is None or not slot.prefixes:
        return None, None
    call = context.current()
    if call.rows is None:
        if call.adapter is None or call.adapter not in slot.prefixes:
            return None, None
        prefix = slot.prefixes[call.adapter]()
        rows = _same_for_all(prefix, batch)
        return (None, rows) if prefix.additive else (rows, None)
    made = {index: make() for index, make in slot.prefixes.items() if index in call.members}
    joint = {index: prefix for index, prefix in made.items() if not prefix.additive}
    additive = {index: prefix for index, prefix in made.items() if prefix.additive}
    return (
        _per_row(joint, call, heads) if joint else None,
        _per_row(additive, call, heads) if additive else None,
    )
