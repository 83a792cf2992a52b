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
from polyprefix.models.joint_softmax import (
    additive_visible,
    extend_bias,
    join_prefix,
    repeat_heads,
    scores,
)
from polyprefix.models.one_token import attend_one
from polyprefix.models.pieces import Pieces
from polyprefix.models.prefixes import RowPrefix, prefixes_of_rows

IMPLEMENTATION = "polyprefix"


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
        key, value = (repeat_heads(states, query.shape[1]) for states in (key, value))
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
    weights = torch.softmax(scores(query, key, scaling, softcap, bias), dim=-1)
    return F.dropout(weights.to(value.dtype), dropout) @ value


def _causal(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """``[1, 1, T, S]``, upper-left aligned as ``is_causal`` of torch is."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()[None, None]


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
            causal attention; with ``alibi_slopes`` a float bias ``[B, H, T, S]`` that already
            holds ALiBi.
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
        output = attend_one(
            query, key, value, attention_mask, scaling, softcap, alibi_slopes, joint, additive
        )
        return output.transpose(1, 2).contiguous(), None
    if isinstance(attention_mask, BlockMask | Pieces):
        if dropout == 0.0:
            output = _packed(query, key, value, attention_mask, joint, scaling)
            return _add(output, query, additive, scaling, softcap), None
        attention_mask = _written_out(attention_mask)
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
            extended = extend_bias(bias, joint, queries, alibi_slopes)
        key = torch.cat([joint.key.to(key.dtype), key], dim=2)
        value = torch.cat([joint.value.to(value.dtype), value], dim=2)
        output = _attend(query, key, value, extended, scaling, softcap, dropout)
    else:
        key, value = repeat_heads(key, heads), repeat_heads(value, heads)
        bias = _explicit(bias, causal, joint, queries, key.shape[2])
        extended = extend_bias(bias, joint, queries, alibi_slopes)
        columns = None if extended is None else extended[..., : joint.key.shape[2]]
        text = scores(query, key, scaling, softcap, bias)
        from_text = torch.softmax(text, -1).to(value.dtype) @ value
        mass = text.logsumexp(-1, keepdim=True)
        output = join_prefix(query, from_text, mass, joint, columns, scaling, softcap)
    return _add(output, query, additive, scaling, softcap), None


def _packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: BlockMask | Pieces,
    joint: RowPrefix | None,
    scaling: float,
) -> torch.Tensor:
    """Attention of packed rows, ``[B, H, T, D]``."""
    if isinstance(mask, BlockMask):
        output, mass = block_sparse.attend(query, key, value, mask, scaling)
    else:
        if joint is not None and joint.gate is None and joint.visible is None:
            key = torch.cat([joint.key.to(key.dtype), key], dim=2)
            value = torch.cat([joint.value.to(value.dtype), value], dim=2)
            joint = None
        with_mass = joint is not None
        output, mass = in_pieces.attend(query, key, value, mask, scaling, with_mass)
    if joint is None:
        return output
    columns = None if joint.visible is None else joint.visible[:, None, None, :]
    return join_prefix(query, output, mass[..., None], joint, columns, scaling, None)


def _written_out(mask: BlockMask | Pieces) -> torch.Tensor:
    """``[B, 1, T, T]``, as attention with dropout needs it."""
    return mask.dense() if isinstance(mask, Pieces) else block_sparse.dense(mask)


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
        visible = additive_visible(additive)
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
