"""Softmax over a text and a prefix, from scores that are written out."""

from __future__ import annotations

import torch

from polyprefix.models.prefixes import RowPrefix


def repeat_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """``[B, H_kv, S, D] -> [B, H, S, D]`` for grouped-query attention."""
    groups = heads // states.shape[1]
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def scores(
    query: torch.Tensor,
    key: torch.Tensor,
    scaling: float,
    softcap: float | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """``[B, H, T, S]`` in fp32. ``bias``: a boolean mask or an additive bias."""
    found = (query @ key.transpose(-1, -2)).float() * scaling
    if softcap is not None:
        found = softcap * torch.tanh(found / softcap)
    if bias is None:
        return found
    if bias.dtype == torch.bool:
        return found.masked_fill(~bias, torch.finfo(found.dtype).min)
    return found + bias


def extend_bias(
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


def join_prefix(
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
        repeat_heads(states, heads).to(query.dtype) for states in (prefix.key, prefix.value)
    )
    extra = scores(query, key, scaling, softcap, bias)
    gate = None if prefix.gate is None else prefix.gate[:, :, None, None]
    return join(from_text, text_mass, extra, value, gate)


def additive_visible(additive: RowPrefix) -> torch.Tensor | None:
    """``[B, 1, 1, P]``; a row without a prefix has gate 0 and may see the zeros that fill it."""
    if additive.visible is None:
        return None
    none = ~additive.visible.any(-1, keepdim=True)
    return (additive.visible | none)[:, None, None, :]
