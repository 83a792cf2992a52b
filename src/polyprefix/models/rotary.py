"""Moving keys along the text with a family's own rotary embedding."""

from __future__ import annotations

from typing import Any

import torch

_FIXED = {"default", "linear", "llama3", "yarn"}
"""Kinds whose frequencies are the same at every length of text (not so dynamic, longrope)."""


def is_fixed(rotary: Any) -> bool:
    """Whether a rotary embedding turns by the same angle at the same position, always."""
    return rotary.rope_type in _FIXED


def rotate(rotary: Any, key: torch.Tensor, by: int) -> torch.Tensor:
    """``[..., D]`` turned by ``by`` positions, back if negative.

    Only the first dimensions turn where the embedding covers part of a head (GPT-NeoX). A rotation
    alone: the factor that some kinds (yarn) put on queries and keys is left out.
    """
    cos, sin = rotary(key, torch.tensor([[by]], device=key.device))
    cos, sin = cos[0, 0] / rotary.attention_scaling, sin[0, 0] / rotary.attention_scaling
    turned, rest = key[..., : len(cos)], key[..., len(cos) :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned, rest], dim=-1)
