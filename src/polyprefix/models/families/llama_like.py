"""Families built like Llama: separate query, key and value maps, rotary positions.

Mistral and Gemma may have sliding windows, Qwen 3 and Gemma 3 normalise keys, Gemma 2 caps its
scores; the attention function is given all of that and needs nothing here.
"""

from __future__ import annotations

from typing import Any

import torch

from polyprefix.models.families.base import Family, register_family

_TINY: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def project(attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[P, d] -> [H_kv, P, D]`` twice: W_k with the key norm where there is one, and W_v."""
    width = attention.head_dim
    key = attention.k_proj(hidden).view(hidden.shape[0], -1, width)
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    value = attention.v_proj(hidden).view(hidden.shape[0], -1, width)
    return key.transpose(0, 1), value.transpose(0, 1)


def _llama_like(model_type: str, rotary: str | None = "model.rotary_emb", **tiny: Any) -> Family:
    return register_family(
        Family(
            model_type=model_type,
            layers="model.layers",
            attention="self_attn",
            attention_output="self_attn.o_proj",
            mlp_output="mlp.down_proj",
            lora_targets=("q_proj", "v_proj"),
            project=project,
            rotary=rotary,
            tiny=_TINY | tiny,
        )
    )


_llama_like("llama")
_llama_like("mistral", sliding_window=None)
_llama_like("qwen2", tie_word_embeddings=True)
_llama_like("qwen3", head_dim=16)
_llama_like(
    "gemma2", head_dim=16, sliding_window=6, query_pre_attn_scalar=16, attn_logit_softcapping=50.0
)
_llama_like(
    "gemma3_text",
    rotary=None,  # one for each kind of layer
    head_dim=16,
    sliding_window=6,
    query_pre_attn_scalar=16,
    layer_types=["sliding_attention", "full_attention"],
)
