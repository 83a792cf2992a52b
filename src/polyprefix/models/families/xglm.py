"""XGLM: transformers gives it eager attention only; here it gets one that calls the registry."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from polyprefix.models.attention import prefix_attention
from polyprefix.models.families.base import Family, register_family


def project(attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[P, d] -> [H, P, D]`` twice."""
    shape = (hidden.shape[0], attention.num_heads, attention.head_dim)
    key = attention.k_proj(hidden).view(shape)
    value = attention.v_proj(hidden).view(shape)
    return key.transpose(0, 1), value.transpose(0, 1)


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    past_key_values: Any = None,
    attention_mask: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """``XGLMAttention.forward`` without cross-attention, ``[B, T, d] -> [B, T, d]``."""
    shape = (*hidden_states.shape[:2], self.num_heads, self.head_dim)
    query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
    key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
    value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, self.layer_idx)
    output, _weights = prefix_attention(
        self,
        query,
        key,
        value,
        attention_mask,
        scaling=self.scaling,
        dropout=self.dropout if self.training else 0.0,
    )
    return self.out_proj(output.flatten(2)), None


def obstacle(config: Any) -> str | None:
    """What the forward above does not do, or cannot be reproduced."""
    if config.add_cross_attention:
        return "add_cross_attention: there is no encoder to attend to"
    if config.layerdrop > 0:
        return "layerdrop leaves out layers at random, prefixes included: set it to 0"
    return None


def prepare(model: nn.Module) -> None:
    """Give every self-attention the forward above."""
    for layer in model.get_submodule("model.layers").children():
        attention = layer.get_submodule("self_attn")
        attention.forward = MethodType(_forward, attention)


register_family(
    Family(
        model_type="xglm",
        layers="model.layers",
        attention="self_attn",
        attention_output="self_attn.out_proj",
        mlp_output="fc2",
        lora_targets=("q_proj", "v_proj"),
        project=project,
        prepare=prepare,
        obstacle=obstacle,
        tiny={
            "vocab_size": 128,
            "d_model": 32,
            "ffn_dim": 48,
            "num_layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 128,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
    )
)
