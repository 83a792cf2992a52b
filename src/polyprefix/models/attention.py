"""The one place where attention is extended.

transformers calls a registered attention function with the layer's module and Q, K, V after
rotary embedding. Ours, registered as ``"polyprefix"``, looks up what the layer carries for each
row (:mod:`polyprefix.models.prefixes`) and does one of three things::

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

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import CausalBias, causal_lower_right
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, sdpa_mask

from polyprefix.models import block_sparse, context
from polyprefix.models import pieces as in_pieces
from polyprefix.models.pieces import Pieces
from polyprefix.models.prefixes import RowPrefix, prefixes_of_rows

IMPLEMENTATION = "polyprefix"


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
    # CUDA's flash kernel reads keys that heads share where they are; it takes no mask, and other
    # kernels want them repeated.
    flash = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)
    shared = flash and (bias is None or isinstance(bias, CausalBias)) and softcap is None
    if not shared:
        key, value = (_repeat_heads(states, query.shape[1]) for states in (key, value))
    if softcap is None:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=dropout,
            scale=scaling,
            is_causal=causal,
            enable_gqa=shared and query.shape[1] != key.shape[1],
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
    prefix: RowPrefix,
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


def join(
    from_text: torch.Tensor,
    text_mass: torch.Tensor,
    extra: torch.Tensor,
    prefix_value: torch.Tensor,
    gate: torch.Tensor | None,
) -> torch.Tensor:
    """One softmax over text and prefix, put together from both, ``[B, H, T, D]``.

    With Z the text's and Z_p the prefix's sum of exponentials, the prefix's share is
    ``g Z_p / (Z + g Z_p)``: nothing at g = 0, ordinary prefix tuning at g = 1, and differentiable
    in g at 0, which a bias of log g is not.

    Args:
        from_text: ``[B, H, T, D]``, attention to the text alone.
        text_mass: ``[B, H, T, 1]``, log Z.
        extra: ``[B, H, T, P]``, scores of the prefix.
        prefix_value: ``[B, H, P, D]``.
        gate: g, broadcasts to ``[B, H, T, 1]``; ``None``: 1.
    """
    odds = extra.logsumexp(-1, keepdim=True) - text_mass  # of prefix against text at g = 1, log
    if gate is None:
        share = torch.sigmoid(odds)
    else:
        mass = gate.float() * torch.sigmoid(odds)
        share = mass / (torch.sigmoid(-odds) + mass).clamp_min(torch.finfo(torch.float32).tiny)
    from_prefix = torch.softmax(extra, -1).to(prefix_value.dtype) @ prefix_value
    return from_text + share.to(from_text.dtype) * (from_prefix - from_text)


def _join_prefix(
    query: torch.Tensor,
    from_text: torch.Tensor,
    text_mass: torch.Tensor,
    prefix: RowPrefix,
    bias: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    """:func:`join` of a prefix; ``bias``: of its columns, ``[B, H or 1, T or 1, P]``."""
    heads = query.shape[1]
    key, value = (
        _repeat_heads(states, heads).to(query.dtype) for states in (prefix.key, prefix.value)
    )
    extra = _scores(query, key, scaling, softcap, bias)
    gate = None if prefix.gate is None else prefix.gate[:, :, None, None]
    return join(from_text, text_mass, extra, value, gate)


def _decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    alibi_slopes: torch.Tensor | None,
    joint: RowPrefix | None,
    additive: RowPrefix | None,
) -> torch.Tensor:
    """``[B, H, 1, D]``: attention of one new token, without a copy of the cache.

    Heads that share keys stand where queries stand otherwise, and where a prefix is in the text's
    softmax the scores are put together, not the keys and values.
    """
    batch, heads, _, dimension = query.shape
    shared = key.shape[1]
    groups = heads // shared
    folded = query.view(batch, shared, groups, dimension)

    def fold(values: torch.Tensor) -> torch.Tensor:
        """``[B or 1, H or 1, 1, S] -> [B or 1, H_kv or 1, G or 1, S]``."""
        if values.shape[1] == 1:
            return values
        return values.view(values.shape[0], shared, groups, values.shape[-1])

    def gate(prefix: RowPrefix) -> torch.Tensor:
        assert prefix.gate is not None
        return prefix.gate.view(batch, shared, groups, 1)

    if bias is not None:
        bias = bias[..., : key.shape[2]]
    text_bias = None if bias is None else fold(bias)
    if joint is None:
        weights = torch.softmax(_scores(folded, key, scaling, softcap, text_bias), dim=-1)
        output = weights.to(value.dtype) @ value
    else:
        length = joint.key.shape[2]
        base = bias
        if base is None and joint.visible is not None:
            base = torch.ones(1, 1, 1, key.shape[2], dtype=torch.bool, device=query.device)
        extended = _extend_bias(base, joint, 1, alibi_slopes)
        extra_bias = None if extended is None else fold(extended[..., :length])
        prefix_key, prefix_value = joint.key.to(query.dtype), joint.value.to(value.dtype)
        text = _scores(folded, key, scaling, softcap, text_bias)
        extra = _scores(folded, prefix_key, scaling, softcap, extra_bias)
        if joint.gate is None:
            weights = torch.softmax(torch.cat([extra, text], dim=-1), dim=-1).to(value.dtype)
            output = weights[..., :length] @ prefix_value + weights[..., length:] @ value
        else:
            from_text = torch.softmax(text, dim=-1).to(value.dtype) @ value
            mass = text.logsumexp(-1, keepdim=True)
            output = join(from_text, mass, extra, prefix_value, gate(joint))
    if additive is not None:
        visible = _additive_visible(additive)
        scores = _scores(folded, additive.key.to(query.dtype), scaling, softcap, visible)
        term = torch.softmax(scores, dim=-1).to(value.dtype) @ additive.value.to(value.dtype)
        output = output + gate(additive).to(output.dtype) * term
    return output.view(batch, heads, 1, -1)


def _additive_visible(additive: RowPrefix) -> torch.Tensor | None:
    """``[B, 1, 1, P]``; a row without a prefix has gate 0 and may see the zeros that fill it."""
    if additive.visible is None:
        return None
    none = ~additive.visible.any(-1, keepdim=True)
    return (additive.visible | none)[:, None, None, :]


def prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | BlockMask | Pieces | None,
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
        attention_mask: ``[B or 1, 1, T, S]`` boolean, as blocks or in pieces, ``None`` for plain
            causal attention; with ``alibi_slopes`` a float bias ``[B, H, T, S]`` that already holds ALiBi.
        scaling: factor on the scores, by default ``D ** -0.5``.
        dropout: probability, 0 outside training.
        softcap: Gemma 2's ``softcap * tanh(scores / softcap)``.
        alibi_slopes: ``[H]``, for families with ALiBi.

    Returns:
        ``[B, T, H, D]`` and ``None`` in place of attention weights.
    """
    if (held := context.current().held) is not None:
        key, value, attention_mask = held.exchange(key, value, attention_mask)
    batch, heads, queries, dimension = query.shape
    scaling = dimension**-0.5 if scaling is None else scaling
    joint, additive = prefixes_of_rows(module, batch, heads)

    if queries == 1 and not torch.is_grad_enabled() and dropout == 0.0:
        # a packed row has two tokens at least
        assert not isinstance(attention_mask, BlockMask | Pieces)
        output = _decode(
            query, key, value, attention_mask, scaling, softcap, alibi_slopes, joint, additive
        )
        return output.transpose(1, 2).contiguous(), None
    if isinstance(attention_mask, BlockMask | Pieces):
        if dropout == 0.0:
            if isinstance(attention_mask, Pieces):
                within = joint is not None and joint.gate is None and joint.visible is None
                if joint is not None and within:
                    key = torch.cat([joint.key.to(key.dtype), key], dim=2)
                    value = torch.cat([joint.value.to(value.dtype), value], dim=2)
                    joint = None
                output, mass = in_pieces.attend(
                    query, key, value, attention_mask, scaling, joint is not None
                )
            else:
                output, mass = block_sparse.attend(query, key, value, attention_mask, scaling)
            if joint is not None:
                columns = None if joint.visible is None else joint.visible[:, None, None, :]
                mass = mass[..., None]
                output = _join_prefix(query, output, mass, joint, columns, scaling, softcap)
            return _add(output, query, additive, scaling, softcap), None
        if isinstance(attention_mask, Pieces):
            attention_mask = attention_mask.dense()
        else:
            attention_mask = block_sparse.dense(attention_mask)
    # A mask is left out for plain causal attention, and for one new token that sees all.
    causal = attention_mask is None and queries > 1
    bias = attention_mask
    if causal and key.shape[2] > queries:  # a static cache: its unused tail is not attended to
        key, value = key[:, :, :queries], value[:, :, :queries]

    if joint is None:
        output = _attend(query, key, value, bias, scaling, softcap, dropout, causal)
    elif joint.gate is None:
        length = joint.key.shape[2]
        alike = query.dtype == key.dtype == value.dtype  # autocast makes them so, but later
        if causal and joint.visible is None and softcap is None and alike:
            # the prefix stands before the text, where every query sees it
            extended: Any = causal_lower_right(queries, length + queries)
        else:
            bias = _explicit(bias, causal, joint, queries, key.shape[2])
            extended = _extend_bias(bias, joint, queries, alibi_slopes)
        key = torch.cat([joint.key.to(key.dtype), key], dim=2)
        value = torch.cat([joint.value.to(value.dtype), value], dim=2)
        output = _attend(query, key, value, extended, scaling, softcap, dropout)
    else:
        key, value = _repeat_heads(key, heads), _repeat_heads(value, heads)
        bias = _explicit(bias, causal, joint, queries, key.shape[2])
        extended = _extend_bias(bias, joint, queries, alibi_slopes)
        columns = None if extended is None else extended[..., : joint.key.shape[2]]
        text = _scores(query, key, scaling, softcap, bias)
        from_text = torch.softmax(text, -1).to(value.dtype) @ value
        mass = text.logsumexp(-1, keepdim=True)
        output = _join_prefix(query, from_text, mass, joint, columns, scaling, softcap)
    return _add(output, query, additive, scaling, softcap), None


def _explicit(
    bias: torch.Tensor | None, causal: bool, prefix: RowPrefix, queries: int, keys: int
) -> torch.Tensor | None:
    """The text's mask, written out where the prefix's columns have to stand before it."""
    device = prefix.key.device
    if causal:
        return _causal(queries, keys, device)
    if bias is None and prefix.visible is not None:
        return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device)
    return bias


def _add(
    output: torch.Tensor,
    query: torch.Tensor,
    additive: RowPrefix | None,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    """``[B, H, T, D] -> [B, T, H, D]``, with LLaMA-Adapter's own attention added."""
    if additive is not None:
        assert additive.gate is not None
        visible = _additive_visible(additive)
        if visible is not None:
            visible = visible.expand(-1, 1, query.shape[2], -1)
        key, value = (states.to(query.dtype) for states in (additive.key, additive.value))
        term = _attend(query, key, value, visible, scaling, softcap, dropout=0.0)
        output = output + additive.gate.to(output.dtype)[:, :, None, None] * term
    return output.transpose(1, 2).contiguous()


def prefix_mask(
    *,
    mask_function: Callable[..., torch.Tensor] = causal_mask_function,
    allow_is_causal_skip: bool = True,
    **arguments: Any,
) -> torch.Tensor | BlockMask | Pieces | None:
    """Boolean mask of the text, ``[B, 1, T, S]``; of packed rows, where they are attended to in
    blocks or in pieces, these.

    In packed rows a token sees its own text only, and what the family's ``mask_function`` says of
    places in a row (causal, within a window) is asked of positions in the text instead."""
    call = context.current()
    if call.until is not None:
        of_text, until, positions = mask_function, call.until, call.key_positions
        assert positions is not None

        def packed(
            batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
        ) -> torch.Tensor:
            own = (key <= query) & (query <= until[batch, key])
            return own & of_text(batch, head, positions[batch, query], positions[batch, key])

        if call.blocks:
            batch, length = until.shape
            return block_sparse.block_mask(packed, batch, length, until.device)
        if call.cuts is not None:
            return Pieces(packed, call.cuts, (until.shape[0], until.shape[1]))
        mask_function = packed
        allow_is_causal_skip = False
    if call.unpadded:
        arguments["attention_mask"] = None
    mask: torch.Tensor | None = sdpa_mask(
        mask_function=mask_function, allow_is_causal_skip=allow_is_causal_skip, **arguments
    )
    return mask


def register() -> None:
    """Make ``attn_implementation="polyprefix"`` known to transformers."""
    AttentionInterface.register(IMPLEMENTATION, prefix_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, prefix_mask)
