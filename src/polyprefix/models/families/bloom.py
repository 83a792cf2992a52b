"""BLOOM: ALiBi (arXiv 2108.12409) and, in transformers, eager attention only.

Here its attention calls ours with ALiBi as a bias on the scores. transformers adds ``slope * j``
for key position j, the same as ``-slope * (i - j)`` up to a constant per query, which the softmax
does not see. The positions come from the call's context where there is one, so that packed
examples start at 0 each.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes, dropout_add

from polyprefix.models import context
from polyprefix.models.attention import prefix_attention
from polyprefix.models.families.base import Family, register_family


def project(attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[P, d] -> [H, P, D]`` twice."""
    fused = attention.query_key_value(hidden).view(
        hidden.shape[0], attention.num_heads, 3, attention.head_dim
    )
    return fused[:, :, 1].transpose(0, 1), fused[:, :, 2].transpose(0, 1)


def _bias(
    alibi: torch.Tensor, mask: torch.Tensor | None, query: torch.Tensor, keys: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes ``[H]`` and the float bias ``[B, H, T, S]`` of ALiBi and mask."""
    batch, heads, queries, _ = query.shape
    slopes = _get_alibi_slopes(heads, query.device).to(torch.float32)
    positions = context.current().key_positions
    if positions is None:
        distance = alibi.view(batch, heads, 1, -1).float()
    else:
        positions = F.pad(positions, (0, keys - positions.shape[1]))
        distance = slopes[None, :, None, None] * positions[:, None, None, :]
    if mask is None:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
        mask = mask.tril(diagonal=0 if queries > 1 else keys)[None, None]
    floor = torch.finfo(query.dtype).min
    return slopes, torch.where(mask, distance, floor).to(query.dtype)


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    residual: torch.Tensor,
    alibi: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layer_past: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """``BloomAttention.forward``, ``[B, T, d] -> [B, T, d]``."""
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    if layer_past is not None:
        key, value = layer_past.update(key, value, self.layer_idx)
    slopes, bias = _bias(alibi, attention_mask, query, key.shape[2])
    output, _weights = prefix_attention(
        self,
        query,
        key,
        value,
        bias,
        scaling=self.inv_norm_factor,
        dropout=self.attention_dropout.p if self.training else 0.0,
        alibi_slopes=slopes,
    )
    output = self.dense(output.flatten(2))
    return dropout_add(output, residual, self.hidden_dropout, self.training), None


def obstacle(config: Any) -> str | None:
    """What the forward above does not do."""
    if config.pretraining_tp > 1 and config.slow_but_exact:
        return "slow_but_exact with pretraining_tp > 1 is not computed: set slow_but_exact to false"
    return None


def prepare(model: nn.Module) -> None:
    """Give every attention the forward above."""
    for block in model.get_submodule("transformer.h").children():
        attention = block.get_submodule("self_attention")
        attention.forward = MethodType(_forward, attention)


register_family(
    Family(
        model_type="bloom",
        layers="transformer.h",
        attention="self_attention",
        attention_output="self_attention.dense",
        mlp_output="mlp.dense_4h_to_h",
        lora_targets=("query_key_value",),
        project=project,
        alibi=True,
        prepare=prepare,
        obstacle=obstacle,
        tiny={
            "vocab_size": 128,
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )
)
