"""The one place where attention is extended.

transformers calls a registered attention function with the layer's module and Q, K, V after
rotary embedding. Ours, registered as ``"polyprefix"``, looks up what the layer carries for each
row (an :class:`AttentionSlot`) and does one of three things::

    joint            softmax over [prefix ; text]              prefix tuning
    joint + mass     the same, prefix mass scaled by g >= 0    prefix tuning, zero-effect start
    additive         text + tanh(gate) * attention(q, prefix)  LLaMA-Adapter, arXiv 2303.16199

    Q [B,H,T,D] ──┬────────────► scores over S text keys ─────┐
                  │                 (causal, window, packing)  ├─ one softmax ─► out [B,T,H,D]
                  └─► scores over P prefix keys (all visible) ─┘

Nothing goes through ``past_key_values``: caches hold text only, so any subset of layers, every
cache, packing, sliding windows and gradient checkpointing behave. A prefix is visible to every
query, also where a sliding window hides the start of the text. Prefix keys carry no position: a
rotary query meets them as if they stood at position 0, and ALiBi gives them the bias of position 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import and_masks, causal_mask_function, sdpa_mask

from polyprefix.models import context

IMPLEMENTATION = "polyprefix"
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
class _RowPrefix:
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


def _same_for_all(prefix: LayerPrefix, batch: int) -> _RowPrefix:
    return _RowPrefix(
        key=prefix.key.expand(batch, -1, -1, -1),
        value=prefix.value.expand(batch, -1, -1, -1),
        visible=None,
        gate=None if prefix.gate is None else prefix.gate.expand(batch, -1),
        positions=_alibi_positions(prefix).expand(batch, -1),
    )


def _per_row(prefixes: Mapping[int, LayerPrefix], rows: torch.Tensor, heads: int) -> _RowPrefix:
    """Stack prefixes of different lengths and pick one for each row; rows without one see none."""
    longest = max(prefix.key.shape[1] for prefix in prefixes.values())
    index = torch.full_like(rows, len(prefixes))
    keys, values, visible, gates, positions = [], [], [], [], []
    for place, (adapter, prefix) in enumerate(prefixes.items()):
        index = torch.where(rows == adapter, place, index)
        missing = longest - prefix.key.shape[1]
        keys.append(F.pad(prefix.key, (0, 0, 0, missing)))
        values.append(F.pad(prefix.value, (0, 0, 0, missing)))
        positions.append(F.pad(_alibi_positions(prefix), (0, missing)))
        visible.append(torch.arange(longest, device=rows.device) < prefix.key.shape[1])
        gates.append(prefix.key.new_ones(heads) if prefix.gate is None else prefix.gate)
    keys.append(torch.zeros_like(keys[0]))
    values.append(torch.zeros_like(values[0]))
    positions.append(torch.zeros_like(positions[0]))
    visible.append(torch.zeros_like(visible[0]))
    gates.append(torch.zeros_like(gates[0]))
    gated = any(prefix.gate is not None for prefix in prefixes.values())
    return _RowPrefix(
        key=torch.stack(keys)[index],
        value=torch.stack(values)[index],
        visible=torch.stack(visible)[index],
        gate=torch.stack(gates)[index] if gated else None,
        positions=torch.stack(positions)[index],
    )


def _rows_of(
    slot: AttentionSlot, call: context.CallContext, batch: int, heads: int
) -> tuple[_RowPrefix | None, _RowPrefix | None]:
    """The joint and the additive prefixes of this batch."""
    if call.rows is None:
        if call.adapter is None or call.adapter not in slot.prefixes:
            return None, None
        prefix = slot.prefixes[call.adapter]()
        rows = _same_for_all(prefix, batch)
        return (None, rows) if prefix.additive else (rows, None)
    made = {index: make() for index, make in slot.prefixes.items() if index in call.present}
    joint = {index: prefix for index, prefix in made.items() if not prefix.additive}
    additive = {index: prefix for index, prefix in made.items() if prefix.additive}
    return (
        _per_row(joint, call.rows, heads) if joint else None,
        _per_row(additive, call.rows, heads) if additive else None,
    )


def _repeat_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """``[B, H_kv, S, D] -> [B, H, S, D]`` for grouped-query attention."""
    groups = heads // states.shape[1]
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def _scores(
    query: torch.Tensor,
    key: torch.Tensor,
    scaling: float,
    softcap: float | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """``[B, H, T, S]`` in fp32. ``bias``: a boolean mask or an additive bias."""
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is None:
        return scores
    if bias.dtype == torch.bool:
        return scores.masked_fill(~bias, torch.finfo(scores.dtype).min)
    return scores + bias


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    dropout: float,
    causal: bool = False,
) -> torch.Tensor:
    """Attention, by torch's fused kernels where they can do it. They know no softcap."""
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling, is_causal=causal
        )
    if causal:
        bias = _causal(query.shape[2], key.shape[2], query.device)
    weights = torch.softmax(_scores(query, key, scaling, softcap, bias), dim=-1)
    return F.dropout(weights.to(value.dtype), dropout) @ value


def _causal(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """``[1, 1, T, S]``, upper-left aligned as ``is_causal`` of torch is."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()[None, None]


def _extend_bias(
    bias: torch.Tensor | None,
    prefix: _RowPrefix,
    queries: int,
    alibi_slopes: torch.Tensor | None,
) -> torch.Tensor | None:
    """Put the prefix's columns in front of the text's mask or bias."""
    length = prefix.key.shape[2]
    if bias is None and prefix.visible is None:
        return None
    batch = prefix.key.shape[0]
    device = prefix.key.device
    if prefix.visible is None:
        columns = torch.ones(1, 1, 1, length, dtype=torch.bool, device=device)
    else:
        columns = prefix.visible[:, None, None, :]
    assert bias is not None
    if bias.dtype != torch.bool:
        columns = torch.where(columns, 0.0, torch.finfo(bias.dtype).min).to(bias.dtype)
        if alibi_slopes is not None:
            columns = columns + (
                alibi_slopes[None, :, None, None] * prefix.positions[:, None, None, :]
            ).to(bias.dtype)
    columns = columns.expand(batch, columns.shape[1], queries, length)
    bias = bias.expand(batch, columns.shape[1], queries, bias.shape[-1])
    return torch.cat([columns, bias], dim=-1)


def _merge_by_mass(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prefix: _RowPrefix,
    bias: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    prefix_bias: torch.Tensor | None,
) -> torch.Tensor:
    """One softmax in which the prefix's mass is multiplied by ``g`` (``gate``, ``[B, H]``).

    With Z the text's and Z_p the prefix's sum of exponentials, the prefix's share is
    ``g Z_p / (Z + g Z_p)``: nothing at g = 0, ordinary prefix tuning at g = 1, and differentiable
    in g at 0, which a bias of log g is not.
    """
    assert prefix.gate is not None
    heads = query.shape[1]
    prefix_key = _repeat_heads(prefix.key, heads).to(query.dtype)
    prefix_value = _repeat_heads(prefix.value, heads).to(query.dtype)
    text = _scores(query, key, scaling, softcap, bias)
    extra = _scores(query, prefix_key, scaling, softcap, prefix_bias)
    # log of the odds of prefix against text at g = 1, [B, H, T, 1]
    odds = extra.logsumexp(-1, keepdim=True) - text.logsumexp(-1, keepdim=True)
    mass = prefix.gate.float()[:, :, None, None] * torch.sigmoid(odds)
    share = mass / (torch.sigmoid(-odds) + mass).clamp_min(torch.finfo(torch.float32).tiny)
    from_text = torch.softmax(text, -1).to(value.dtype) @ value
    from_prefix = torch.softmax(extra, -1).to(value.dtype) @ prefix_value
    return from_text + share.to(value.dtype) * (from_prefix - from_text)


def prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer with whatever prefixes its rows carry.

    Args:
        module: the layer's attention module.
        query: ``[B, H, T, D]`` after rotary embedding.
        key: ``[B, H_kv, S, D]``, cache included.
        value: ``[B, H_kv, S, D]``.
        attention_mask: ``[B or 1, 1, T, S]`` boolean, ``None`` for plain causal attention; with
            ``alibi_slopes`` a float bias ``[B, H, T, S]`` that already holds ALiBi.
        scaling: factor on the scores, by default ``D ** -0.5``.
        dropout: probability, 0 outside training.
        softcap: Gemma 2's ``softcap * tanh(scores / softcap)``.
        alibi_slopes: ``[H]``, for families with ALiBi.

    Returns:
        ``[B, T, H, D]`` and ``None`` in place of attention weights.
    """
    batch, heads, queries, dimension = query.shape
    scaling = dimension**-0.5 if scaling is None else scaling
    call = context.current()
    slot: AttentionSlot | None = module.__dict__.get(_SLOT)
    joint = additive = None
    if slot is not None and slot.prefixes:
        joint, additive = _rows_of(slot, call, batch, heads)

    key = _repeat_heads(key, heads)
    value = _repeat_heads(value, heads)
    # A mask is left out for plain causal attention, and for one new token that sees all.
    causal = attention_mask is None and queries > 1
    bias = attention_mask
    if causal and key.shape[2] > queries:  # a static cache: its unused tail is not attended to
        key, value = key[:, :, :queries], value[:, :, :queries]

    if joint is None:
        output = _attend(query, key, value, bias, scaling, softcap, dropout, causal)
    else:
        if causal:
            bias = _causal(queries, key.shape[2], query.device)
        elif bias is None and joint.visible is not None:
            bias = torch.ones(1, 1, queries, key.shape[2], dtype=torch.bool, device=query.device)
        extended = _extend_bias(bias, joint, queries, alibi_slopes)
        if joint.gate is not None:
            length = joint.key.shape[2]
            prefix_bias = None if extended is None else extended[..., :length]
            output = _merge_by_mass(query, key, value, joint, bias, scaling, softcap, prefix_bias)
        else:
            prefix_key = _repeat_heads(joint.key, heads).to(key.dtype)
            prefix_value = _repeat_heads(joint.value, heads).to(value.dtype)
            key = torch.cat([prefix_key, key], dim=2)
            value = torch.cat([prefix_value, value], dim=2)
            output = _attend(query, key, value, extended, scaling, softcap, dropout)
    if additive is not None:
        assert additive.gate is not None
        # [B,1,1,P]; a row without a prefix has gate 0 and may see the zeros it is padded with
        visible = None
        if additive.visible is not None:
            none = ~additive.visible.any(-1, keepdim=True)
            visible = (additive.visible | none)[:, None, None, :].expand(-1, 1, queries, -1)
        term = _attend(
            query,
            _repeat_heads(additive.key, heads).to(query.dtype),
            _repeat_heads(additive.value, heads).to(query.dtype),
            visible,
            scaling,
            softcap,
            dropout=0.0,
        )
        output = output + additive.gate.to(output.dtype)[:, :, None, None] * term
    return output.transpose(1, 2).contiguous(), None


def prefix_mask(
    *,
    mask_function: Callable[..., torch.Tensor] = causal_mask_function,
    allow_is_causal_skip: bool = True,
    **arguments: Any,
) -> torch.Tensor | None:
    """Boolean mask of the text, ``[B, 1, T, S]``; packed examples see only themselves."""
    segments = context.current().segment_ids
    if segments is not None:

        def same_segment(
            batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
        ) -> torch.Tensor:
            return segments[batch, query] == segments[batch, key]

        mask_function = and_masks(mask_function, same_segment)
        allow_is_causal_skip = False
    mask: torch.Tensor | None = sdpa_mask(
        mask_function=mask_function, allow_is_causal_skip=allow_is_causal_skip, **arguments
    )
    return mask


def register() -> None:
    """Make ``attn_implementation="polyprefix"`` known to transformers."""
    AttentionInterface.register(IMPLEMENTATION, prefix_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, prefix_mask)
