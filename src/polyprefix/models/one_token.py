"""Attention of one new token, without a copy of the cache."""

from __future__ import annotations

import torch

from polyprefix.models.joint_softmax import additive_visible, extend_bias, join, scores
from polyprefix.models.prefixes import RowPrefix


def attend_one(
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
        weights = torch.softmax(scores(folded, key, scaling, softcap, text_bias), dim=-1)
        output = weights.to(value.dtype) @ value
    else:
        length = joint.key.shape[2]
        base = bias
        if base is None and joint.visible is not None:
            base = torch.ones(1, 1, 1, key.shape[2], dtype=torch.bool, device=query.device)
        extended = extend_bias(base, joint, 1, alibi_slopes)
        extra_bias = None if extended is None else fold(extended[..., :length])
        prefix_key, prefix_value = joint.key.to(query.dtype), joint.value.to(value.dtype)
        text = scores(folded, key, scaling, softcap, text_bias)
        extra = scores(folded, prefix_key, scaling, softcap, extra_bias)
        if joint.gate is None:
            weights = torch.softmax(torch.cat([extra, text], dim=-1), dim=-1).to(value.dtype)
            output = weights[..., :length] @ prefix_value + weights[..., length:] @ value
        else:
            from_text = torch.softmax(text, dim=-1).to(value.dtype) @ value
            mass = text.logsumexp(-1, keepdim=True)
            output = join(from_text, mass, extra, prefix_value, gate(joint))
    if additive is not None:
        visible = additive_visible(additive)
        found = scores(folded, additive.key.to(query.dtype), scaling, softcap, visible)
        term = torch.softmax(found, dim=-1).to(value.dtype) @ additive.value.to(value.dtype)
        output = output + gate(additive).to(output.dtype) * term
    return output.view(batch, heads, 1, -1)
