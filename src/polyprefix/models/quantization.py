"""Frozen weights in 8 or 4 bits, by bitsandbytes.

``int8``: LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339). Weights and, for each product, the
inputs are in 8 bits; columns of inputs in which one exceeds 6 are multiplied in 16 bits. Which
these are depends on all rows of a batch, so a text's logits vary a little with what stands beside
it. ``nf4``: 4-bit NormalFloat (QLoRA, Dettmers et al. 2023, arXiv 2305.14314). Weights alone are in
4 bits, and are made wide again for each product: rows do not depend on each other.

Linear maps of the layers are quantised. Embeddings, norms and the output head are not, nor is
anything that is trained.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from polyprefix.config import UnsupportedModel

BLOCK = 64
"""Weights of nf4 that share a factor in float32."""


def quantization_config(name: str, dtype: torch.dtype) -> Any:
    """What transformers is to be told.

    Args:
        name: ``int8`` or ``nf4``.
        dtype: that products are computed in.

    Raises:
        UnsupportedModel: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UnsupportedModel(
            f"model.quantization={name} needs bitsandbytes: pip install 'polyprefix[quantization]'"
        )
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def quantised_size(model: Any, name: str) -> tuple[int, int]:
    """Bytes of the linear maps that would be quantised, as they are and as they would be."""
    head = model.get_output_embeddings()
    wide = narrow = 0
    for module in model.modules():
        if not isinstance(module, (nn.Linear, Conv1D)) or module is head:
            continue
        weight = module.weight
        if weight.requires_grad:  # an adapter's
            continue
        count = weight.numel()
        wide += count * weight.element_size()
        outputs = weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]
        narrow += count + 4 * outputs if name == "int8" else count // 2 + 4 * (count // BLOCK)
    return wide, narrow
