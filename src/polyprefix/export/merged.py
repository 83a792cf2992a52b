"""``--to merged``: a model with what was trained in its weights, as transformers loads any other.

LoRA's updates are added by PEFT, in float32, and rounded to the dtype of the folder once. Full
fine-tuning is in the weights as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyprefix.config import ConfigError
from polyprefix.export.base import Source, Target, register_target
from polyprefix.methods import save_for_peft


def save_model(model: Any, tokenizer: Any, dtype: torch.dtype, folder: Path) -> str:
    """Write a model as safetensors, and its tokenizer; says in which dtype."""
    model.to(dtype).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return f"weights in {str(dtype).removeprefix('torch.')}, safetensors"


def loaded_model(folder: Path) -> tuple[Any, Any]:
    """What anybody loads from a folder: the model in the dtype that it is written in, and the
    tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@register_target
class Merged(Target):
    """See the module's text."""

    name = "merged"
    options = ("dtype",)

    def refuse(self, source: Source) -> None:
        method = source.adapter.method
        if method == "none":
            raise ConfigError("nothing was trained (method 'none'): the model is as it was")
        if method == "soft_prompt":
            raise ConfigError(
                "a soft prompt is vectors before the text, which are in no weight of the layers: "
                "--to vocabulary makes them tokens of the model"
            )
        if method not in {"lora", "full"}:
            raise ConfigError(
                f"what method {method!r} adds depends on the text, and no weight of the model can "
                "hold it: only runs of 'lora' and 'full' can be merged"
            )

    def write(self, source: Source, folder: Path) -> list[str]:
        model, tokenizer = source.with_trained_backbone()
        if source.adapter.method == "lora":
            with tempfile.TemporaryDirectory() as temporary:
                save_for_peft(source.adapter, temporary)
                adapted = PeftModel.from_pretrained(model, temporary)
            model = adapted.merge_and_unload(safe_merge=True)
        return [save_model(model, tokenizer, source.dtype, folder)]

    def logits(self, source: Source, folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
        model, tokenizer = loaded_model(folder)
        with torch.no_grad():
            return [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
