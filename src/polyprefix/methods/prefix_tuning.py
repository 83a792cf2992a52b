"""Prefix tuning: P extra keys and values in the attention of some layers, in one softmax with the
text (Li and Liang 2021, arXiv 2101.00190; studied cross-lingually in arXiv 2510.24619).

::

    out = softmax([q K_p^T ; q K^T] / sqrt(D)) [V_p ; V]

Departures: the prefix sits inside attention instead of in a cache, so any subset of layers can
carry one; text keeps the positions it has without a prefix (``positions: peft`` gives PEFT's, where
text starts at P; with rotary positions an adapter of either kind can be written for PEFT).
``initialization: zero`` adds a factor g >= 0 per head on the prefix's softmax mass, zero at the
start, so that training begins exactly at the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from polyprefix.config import UnsupportedModel
from polyprefix.methods.activations import prefix_inputs, text_ids
from polyprefix.methods.base import (
    MethodConfig,
    NotInPeft,
    Setting,
    register_method,
)
from polyprefix.methods.layers import Layers, parse_layers
from polyprefix.methods.prefix_parameters import KeyValues, NetworkKeyValues, ProjectedHidden
from polyprefix.methods.prefixed import PrefixedLayers
from polyprefix.models import Backbone, LayerPrefix, rotate


class PrefixTuningConfig(MethodConfig):
    """Keys of ``prefix_tuning``."""

    length: Annotated[int, Field(gt=0)] = 20
    """P, the number of keys and values in each adapted layer."""
    layers: Layers = "upper"
    """Which layers carry a prefix: ``upper`` (all but the lowest two), ``all``, ``last:30``,
    ``first:4``, ``every:2`` or a list of numbers."""
    parameterization: Literal["kv", "projected", "mlp"] = "kv"
    """``kv``: keys and values themselves. ``projected``: P vectors of size d that the layer's own
    frozen maps turn into keys and values. ``mlp``: keys and values made by a network."""
    initialization: Literal["activations", "random", "zero"] | None = None
    """``activations``: of ``init_text``, or of the first training prompts. ``random``. ``zero``: no
    effect at the start. By default activations, and random for ``mlp``."""
    init_text: str | None = None
    """A text whose activations to start from."""
    init_std: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of a random start; by default 0.02."""
    network_size: Annotated[int, Field(gt=0)] | None = None
    """Hidden size of the ``mlp`` network; by default d."""
    positions: Literal["text", "peft"] = "text"
    """``text``: the text keeps the positions it has without a prefix. ``peft``: it starts at P, for
    adapters exchanged with PEFT where positions are not rotary."""

    @property
    def start(self) -> str:
        """The initialization, default filled in."""
        default = "random" if self.parameterization == "mlp" else "activations"
        return self.initialization or default

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.parameterization != "mlp":
            self.no_effect(("network_size",), unless="parameterization is mlp")
        elif self.start == "activations":
            raise ValueError("initialization 'activations' is for kv and projected, not mlp")
        if self.start != "activations":
            self.no_effect(("init_text",), unless="initialization is activations")
        if self.start == "activations" or self.parameterization == "mlp":
            self.no_effect(
                ("init_std",), unless="initialization is random or zero, and kv or projected"
            )
        return self


@register_method
class PrefixTuning(PrefixedLayers):
    """See the module's text."""

    method = "prefix_tuning"
    title = "Prefix tuning"
    paper = "Li and Liang 2021, arXiv 2101.00190"
    Config = PrefixTuningConfig
    peft_type = "PREFIX_TUNING"
    conformance = (
        {"initialization": "zero", "layers": "last:1"},
        {"initialization": "random", "init_std": 1.0, "positions": "peft"},
        {"parameterization": "projected", "layers": "first:1"},
        {"parameterization": "mlp", "network_size": 8},
    )
    config: PrefixTuningConfig

    def __init__(self, backbone: Backbone, config: PrefixTuningConfig, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.layers = parse_layers(config.layers, backbone.num_layers)
        if config.positions == "peft" and backbone.sliding_window is not None:
            raise UnsupportedModel(
                "positions 'peft' is not defined for a model with sliding windows: PEFT's prefix "
                "slides out of sight there. Use positions 'text'."
            )
        std = config.init_std or 0.02
        arguments = (backbone, self.layers, config.length)
        self.parameters_: KeyValues | ProjectedHidden | NetworkKeyValues
        if config.parameterization == "mlp":
            size = config.network_size or backbone.hidden_size
            self.parameters_ = NetworkKeyValues(*arguments, size, setting)
        else:
            kind = KeyValues if config.parameterization == "kv" else ProjectedHidden
            self.parameters_ = kind(*arguments, std, setting)
            if config.start == "activations" and not setting.restore:
                ids = text_ids(backbone, config.init_text, setting.text)
                inputs = prefix_inputs(backbone, ids, config.length)
                self.parameters_.start_from(backbone, self.layers, inputs)
        self.mass: nn.Parameter | None = None
        if config.start == "zero":
            self.mass = nn.Parameter(torch.zeros(len(self.layers), backbone.num_heads))

    @classmethod
    def reference_learning_rate(cls, config: PrefixTuningConfig) -> float:
        return 5e-3 if config.parameterization == "mlp" else 5e-2

    @classmethod
    def claims_no_op(cls, config: PrefixTuningConfig) -> bool:
        return config.start == "zero"

    @property
    def position_offset(self) -> int:
        return self.config.length if self.config.positions == "peft" else 0

    def prefix(self, place: int) -> LayerPrefix:
        key, value = self.parameters_.layer(place)
        gate = None
        if self.mass is not None:
            # relu whose gradient passes straight through: mass cannot be negative, and a head that
            # touched zero can come back.
            raw = self.mass[place]
            gate = raw + (raw.clamp_min(0) - raw).detach()
        return LayerPrefix(key, value, gate=gate, alibi_offset=self.position_offset)

    # PEFT -----------------------------------------------------------------------------------------
    # One tensor [P, L * 2 * H_kv * D]: for each token the keys and values of layer 0, 1, ...

    def _peft_layer(self, place: int) -> torch.Tensor:
        """``[2, H_kv, P, D]``: keys and values of a layer whose text starts at position P.

        A rotary score depends on the distance alone: keys that follow the text by P positions
        score there what they score here."""
        key, value = (states.float() for states in self.parameters_.layer(place))
        if self.config.positions == "text":
            key = rotate(self._rotary(), key, self.config.length)
        return torch.stack([key, value])

    def _rotary(self) -> nn.Module:
        if self.backbone.sliding_window is not None:
            raise NotInPeft("PEFT's prefix slides out of sight of a model with sliding windows")
        if self.backbone.rotary is None:
            raise NotInPeft(
                "PEFT moves the text by P positions, which this model's position embedding does "
                "not make up for: train with positions 'peft'"
            )
        return self.backbone.rotary

    def to_peft(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        backbone, config = self.backbone, self.config
        if len(self.layers) != backbone.num_layers:
            raise NotInPeft(
                f"PEFT's prefix is in all {backbone.num_layers} layers, this one in "
                f"{len(self.layers)}; a padded layer's keys would take softmax mass from the text "
                "whatever they are: train with layers 'all'"
            )
        if self.mass is not None:
            raise NotInPeft("PEFT's prefix has no factor on its mass (initialization 'zero')")
        with torch.no_grad():
            pairs = [self._peft_layer(place) for place in range(len(self.layers))]
            flat = torch.stack(pairs).permute(3, 0, 1, 2, 4).reshape(config.length, -1)
        peft = {
            "peft_type": self.peft_type,
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": config.length,
            "num_layers": backbone.num_layers,
            "num_attention_heads": backbone.num_key_value_heads,
            "token_dim": backbone.num_key_value_heads * backbone.head_dim,
            "num_transformer_submodules": 1,
            "encoder_hidden_size": backbone.hidden_size,
            "prefix_projection": False,
            "inference_mode": True,
        }
        return peft, {"prompt_embeddings": flat.contiguous()}

    @classmethod
    def from_peft(
        cls, backbone: Backbone, peft: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> tuple[PrefixTuningConfig, dict[str, torch.Tensor]]:
        flat = tensors["prompt_embeddings"].float()
        length = flat.shape[0]
        shape = (length, backbone.num_layers, 2, backbone.num_key_value_heads, backbone.head_dim)
        if flat.numel() != torch.Size(shape).numel():
            raise NotInPeft(
                f"prompt_embeddings of shape {tuple(flat.shape)} do not fit this backbone, which "
                f"needs {torch.Size(shape[1:]).numel()} values a token"
            )
        key, value = flat.view(shape).permute(2, 1, 3, 0, 4)
        config = PrefixTuningConfig(
            length=length, layers="all", initialization="random", positions="peft"
        )
        return config, {
            "parameters_.key": key.contiguous(),
            "parameters_.value": value.contiguous(),
        }
