"""GPT-NeoX (Pythia): rotary positions on part of each head, query, key and value fused per head."""

from __future__ import annotations

from typing import Any

import torch

from polyprefix.models.families.base import Family, register_family


def project(attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[P, d] -> [H, P, D]`` twice."""
    fused = attention.query_key_value(hidden).view(hidden.shape[0], -1, 3 * attention.head_size)
    _, key, value = fused.transpose(0, 1).chunk(3, dim=-1)
    return key, value


register_family(
    Family(
        model_type="gpt_neox",
        layers="gpt_neox.layers",
        attention="attention",
        attention_output="attention.dense",
        mlp_output="mlp.dense_4h_to_h",
        lora_targets=("query_key_value",),
        project=project,
        rotary="gpt_neox.rotary_emb",
        tiny={
            "vocab_size": 128,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )
)
