"""GPT-2: learned positions, one fused map for query, key and value (transformers' ``Conv1D``)."""

from __future__ import annotations

from typing import Any

import torch

from polyprefix.models.families.base import Family, register_family


def project(attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[P, d] -> [H, P, D]`` twice."""
    _, key, value = attention.c_attn(hidden).split(attention.split_size, dim=-1)
    shape = (hidden.shape[0], attention.num_heads, attention.head_dim)
    return key.view(shape).transpose(0, 1), value.view(shape).transpose(0, 1)


def obstacle(config: Any) -> str | None:
    """GPT-2's own attention is called instead of the registry's, or beside it."""
    if config.reorder_and_upcast_attn:
        return "reorder_and_upcast_attn bypasses transformers' attention registry: set it to false"
    if config.add_cross_attention:
        return "add_cross_attention: there is no encoder to attend to"
    return None


register_family(
    Family(
        model_type="gpt2",
        layers="transformer.h",
        attention="attn",
        attention_output="attn.c_proj",
        mlp_output="mlp.c_proj",
        lora_targets=("c_attn",),
        project=project,
        obstacle=obstacle,
        tiny={
            "vocab_size": 128,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )
)
