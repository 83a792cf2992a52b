"""The decoder: a plain Llama with tied embeddings, so that any Llama loader reads it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pretraining.embeddings import FORM, Array
from pretraining.tokenizer import BOS_ID, EOS_ID, PAD_ID

SCALE = 4.0
"""Length of an embedding. The layers write into the same stream, about 1 for each of its d
elements: rows of length 1 (1/16 an element) would be drowned. The last norm takes it back."""

GAIN = 2.0
"""Of the mean that the second layer begins with: of many vectors it is short."""


def build_model(
    table: Array, layers: int, heads: int, hidden: int, context: int, seed: int
) -> LlamaForCausalLM:
    """A Llama whose (tied) embeddings are `table` [V, d]."""
    torch.manual_seed(seed)
    vocabulary, width = table.shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=width**-0.5)
            # Layers begin as small corrections: the aligned vectors pass through unharmed.
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_((2 * layers) ** -0.5 * 0.1)
        _average_tokens(model)
        model.get_input_embeddings().weight.copy_(SCALE * torch.from_numpy(table))
        model.model.norm.weight.fill_(1 / SCALE)
    return model


def _average_tokens(model: LlamaForCausalLM) -> None:
    """Let the second layer begin as what a mean of token vectors is.

    Its attention looks everywhere evenly and copies the meaning of what it sees, not its form: from
    the first step the state after a sentence holds the sentence's mean vector, which already tells
    what it is about in every language. Training then only has to improve on that.
    """
    attention = model.model.layers[1].self_attn
    meaning = torch.ones(attention.v_proj.weight.shape[0])
    meaning[-FORM:] = 0.0
    attention.q_proj.weight.mul_(0.1)
    attention.k_proj.weight.mul_(0.1)
    attention.v_proj.weight.mul_(0.1).add_(torch.diag(meaning))
    attention.o_proj.weight.add_(GAIN * torch.eye(len(meaning)))


def scored_logits(model: LlamaForCausalLM, batch_hidden: Tensor, scored: Tensor) -> Tensor:
    """Logits [S, V] at the flat positions `scored` [S] of hidden states [B, T, d] only."""
    logits: Tensor = model.lm_head(batch_hidden.flatten(0, 1)[scored])
    return logits
