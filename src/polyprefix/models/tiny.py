"""Two-layer models of every family, built from configurations: what the tests and the conformance
suite of a new family run on."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polyprefix.models.backbone import Backbone
from polyprefix.models.families import get_family

VARIANTS: dict[str, dict[str, Any]] = {
    "mistral-sliding": {"model_type": "mistral", "sliding_window": 6},
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-multihead": {"model_type": "llama", "num_key_value_heads": 4},
    "gpt_neox-sequential": {"model_type": "gpt_neox", "use_parallel_residual": False},
}
"""Beside each family's own tiny model: what else its conformance must cover."""


def tiny_model(kind: str, seed: int = 0) -> Any:
    """A random model of a family, or of a variant above, in evaluation mode.

    Weights are drawn wide, and what starts at zero or one is moved from there: with the usual
    standard deviation of 0.02 the logits of two layers hardly differ, and a wrong one would pass
    for a right one."""
    values = dict(VARIANTS.get(kind, {"model_type": kind}))
    model_type = values.pop("model_type")
    config = AutoConfig.for_model(model_type, **get_family(model_type).tiny | values)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.dim() > 1 else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval()


def tiny_backbone(kind: str, seed: int = 0) -> Backbone:
    """:func:`tiny_model` as a backbone without a tokenizer."""
    return Backbone(tiny_model(kind, seed), name=f"tiny/{kind}")
