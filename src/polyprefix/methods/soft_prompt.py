"""Soft prompts: P trained embeddings beside those of the text (Lester et al. 2021, arXiv
2104.08691; cross-lingually *Less is More*, arXiv 2402.03782).

The vectors are rows of an embedding table beyond the vocabulary. Their tokens have ids V, V+1, ...
and stand in the text like any other, at its start (Lester et al., PEFT) or at the end of the
prompt, before the answer (*Less is More*); padding, packing, positions and generation need nothing
special.

Departures: ``uniform`` draws from a range that matches the spread of the backbone's embeddings
instead of [-0.5, 0.5], which is right for T5 only; the reparameterisation network's LayerNorm
starts with that spread as its scale, so that prompts begin as large as tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from polyprefix.methods.activations import cyclic, text_ids
from polyprefix.methods.base import Adapter, MethodConfig, NotInPeft, Setting, register_method
from polyprefix.methods.full import backbone_parameters, freeze_backbone, unfreeze_backbone
from polyprefix.models import Backbone


class SoftPromptConfig(MethodConfig):
    """Keys of ``soft_prompt``."""

    length: Annotated[int, Field(gt=0)] = 20
    """P, the number of trained embeddings."""
    position: Literal["start", "end"] = "start"
    """Where they stand: at the ``start`` of the text, or at the ``end`` of the prompt, before the
    answer."""
    initialization: Literal["vocabulary", "text", "uniform"] = "vocabulary"
    """``vocabulary``: the embeddings of random frequent tokens. ``text``: those of ``init_text``,
    or of the first training prompts. ``uniform``: random, with the spread of the embeddings."""
    init_text: str | None = None
    """A text to start from, with ``initialization: text``."""
    reparameterization: Literal["none", "mlp"] = "none"
    """``mlp``: train a network Linear-ReLU-Linear-LayerNorm that makes the prompt."""
    network_size: Annotated[int, Field(gt=0)] | None = None
    """Hidden size of that network; by default d."""
    tune_backbone: bool = False
    """Train the whole backbone with the prompt."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.initialization != "text":
            self.no_effect(("init_text",), unless="initialization is text")
        if self.reparameterization != "mlp":
            self.no_effect(("network_size",), unless="reparameterization is mlp")
        return self


FREQUENT = 5000
"""Tokens that ``vocabulary`` draws from: the first of the table, as in Lester et al., since merges
are learned in order of frequency."""


@register_method
class SoftPrompt(Adapter):
    """See the module's text."""

    method = "soft_prompt"
    title = "Soft prompt"
    paper = "Lester et al. 2021, arXiv 2104.08691"
    Config = SoftPromptConfig
    peft_type = "PROMPT_TUNING"
    conformance = (
        {"position": "end", "reparameterization": "mlp", "network_size": 8},
        {"initialization": "text", "tune_backbone": True},
    )
    config: SoftPromptConfig

    def __init__(self, backbone: Backbone, config: SoftPromptConfig, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        embedding = backbone.embedding
        spread = 1.0 if setting.restore else _spread(backbone)
        if config.initialization == "uniform" or setting.restore:
            start = setting.uniform(config.length, backbone.hidden_size, limit=3**0.5 * spread)
        else:
            if config.initialization == "text":
                ids = cyclic(text_ids(backbone, config.init_text, setting.text), config.length)
            else:
                ids = _frequent_tokens(backbone, config.length, setting)
            start = embedding(ids.to(backbone.device)).detach().float().cpu()
        self.embedding = nn.Parameter(start.clone())
        self.network: nn.Module | None = None
        if config.reparameterization == "mlp":
            self.network = _network(
                backbone.hidden_size, config.network_size or backbone.hidden_size, spread, setting
            )

    @classmethod
    def reference_learning_rate(cls, config: SoftPromptConfig) -> float:
        if config.tune_backbone:
            return 3e-4
        return 5e-3 if config.reparameterization == "mlp" else 1.5e-2

    @classmethod
    def mixes(cls, config: SoftPromptConfig) -> bool:
        return not config.tune_backbone

    @property
    def num_soft_tokens(self) -> int:
        return self.config.length

    def soft_tokens(self) -> torch.Tensor:
        return self.embedding if self.network is None else self.network(self.embedding)

    def prompt_ids(self) -> tuple[list[int], list[int]]:
        ids = list(range(self.first_soft_id, self.first_soft_id + self.config.length))
        return (ids, []) if self.config.position == "start" else ([], ids)

    def install(self) -> None:
        if self.config.tune_backbone:
            unfreeze_backbone(self.backbone)

    def remove(self) -> None:
        if self.config.tune_backbone:
            freeze_backbone(self.backbone)

    def trainable(self) -> dict[str, nn.Parameter]:
        own = super().trainable()
        return own | backbone_parameters(self.backbone) if self.config.tune_backbone else own

    # PEFT -----------------------------------------------------------------------------------------

    def to_peft(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        if self.config.position != "start":
            raise NotInPeft("PEFT's prompt stands at the start of the text: use position 'start'")
        if self.config.tune_backbone:
            raise NotInPeft("PEFT's prompt tuning does not tune the backbone")
        peft = {
            "peft_type": self.peft_type,
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": self.config.length,
            "num_layers": self.backbone.num_layers,
            "num_attention_heads": self.backbone.num_heads,
            "token_dim": self.backbone.hidden_size,
            "num_transformer_submodules": 1,
            "prompt_tuning_init": "RANDOM",
            "inference_mode": True,
        }
        return peft, {"prompt_embeddings": self.soft_tokens().detach().clone().contiguous()}

    @classmethod
    def from_peft(
        cls, backbone: Backbone, peft: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> tuple[SoftPromptConfig, dict[str, torch.Tensor]]:
        prompt = tensors["prompt_embeddings"].float()
        config = SoftPromptConfig(length=len(prompt), position="start", initialization="uniform")
        return config, {"embedding": prompt}


def _spread(backbone: Backbone) -> float:
    """Standard deviation of what the embedding module returns; 1 where there are no weights."""
    if backbone.device.type == "meta":
        return 1.0
    sample = torch.arange(min(1000, backbone.vocab_size), device=backbone.device)
    return float(backbone.embedding(sample).float().std())


def _frequent_tokens(backbone: Backbone, length: int, setting: Setting) -> torch.Tensor:
    special = set(getattr(backbone.tokenizer, "all_special_ids", None) or [])
    ids = [i for i in range(min(FREQUENT, backbone.vocab_size)) if i not in special]
    order = torch.randperm(len(ids), generator=setting.generator)
    return cyclic(torch.tensor(ids)[order], length)


def _network(width: int, size: int, scale: float, setting: Setting) -> nn.Module:
    norm = nn.LayerNorm(width)
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(setting.linear(width, size), nn.ReLU(), setting.linear(size, width), norm)
