"""LLaMA-Adapter: P prompt vectors in the upper layers, attended to apart from the text and added
through a gate that starts at zero (Zhang et al. 2023, arXiv 2303.16199, equations 3 to 7).

::

    out = softmax(q K^T / sqrt(D)) V + tanh(gate_h) softmax(q K_p^T / sqrt(D)) V_p

K_p and V_p are the prompt vectors through the layer's own frozen W_k and W_v, without rotation; q
is the text's own (rotated) query, so there is no second projection. The paper has one softmax over
text and one over the prompt with a gate per head, as here; PEFT has one gate per layer without
tanh, which ``gate: layer`` can be written to and read from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from polyprefix.methods.activations import prefix_inputs, text_ids
from polyprefix.methods.base import (
    MethodConfig,
    NotInPeft,
    Setting,
    register_method,
)
from polyprefix.methods.layers import Layers, parse_layers
from polyprefix.methods.prefix_parameters import ProjectedHidden
from polyprefix.methods.prefixed import PrefixedLayers
from polyprefix.models import Backbone, LayerPrefix


class LlamaAdapterConfig(MethodConfig):
    """Keys of ``llama_adapter``."""

    length: Annotated[int, Field(gt=0)] = 10
    """P, the number of prompt vectors in each adapted layer."""
    layers: Layers = "all"
    """Which layers carry prompts: ``all``, ``upper`` (all but the lowest two), ``last:30``,
    ``first:4``, ``every:2`` or a list of numbers."""
    gate: Literal["head", "layer"] = "head"
    """One gate a ``head`` (the paper) or one a ``layer`` (PEFT); zero at the start either way."""
    initialization: Literal["random", "activations"] = "random"
    """Of the prompts: ``random``, or the ``activations`` of ``init_text`` or of the first training
    prompts."""
    init_text: str | None = None
    """A text whose activations to start from."""
    init_std: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of a random start; by default 0.02."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.initialization != "activations":
            self.no_effect(("init_text",), unless="initialization is activations")
        else:
            self.no_effect(("init_std",), unless="initialization is random")
        return self


def _check_peft(backbone: Backbone) -> None:
    """``NotInPeft`` where PEFT's adaption prompt computes something else or nothing. Its version
    for GPT-2 leaves out the output projection of the prompt's part."""
    family = backbone.family.model_type
    if family not in {"llama", "mistral"}:
        raise NotInPeft(f"PEFT has no adaption prompt for {family} that computes the same")
    if backbone.head_dim * backbone.num_heads != backbone.hidden_size:
        raise NotInPeft("PEFT's adaption prompt needs head_dim = d / heads")
    output = backbone.layers[0].get_submodule(backbone.family.attention_output)
    if getattr(output, "bias", None) is not None:
        raise NotInPeft("PEFT's adaption prompt adds the bias of the output projection twice")


@register_method
class LlamaAdapter(PrefixedLayers):
    """See the module's text."""

    method = "llama_adapter"
    title = "LLaMA-Adapter"
    paper = "Zhang et al. 2023, arXiv 2303.16199"
    Config = LlamaAdapterConfig
    peft_type = "ADAPTION_PROMPT"
    conformance = ({"gate": "layer", "layers": "last:1", "initialization": "activations"},)
    config: LlamaAdapterConfig

    def __init__(self, backbone: Backbone, config: LlamaAdapterConfig, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.layers = parse_layers(config.layers, backbone.num_layers)
        std = config.init_std or 0.02
        self.prompt = ProjectedHidden(backbone, self.layers, config.length, std, setting)
        if config.initialization == "activations" and not setting.restore:
            ids = text_ids(backbone, config.init_text, setting.text)
            self.prompt.start_from(
                backbone, self.layers, prefix_inputs(backbone, ids, config.length)
            )
        gates = backbone.num_heads if config.gate == "head" else 1
        self.gate = nn.Parameter(torch.zeros(len(self.layers), gates))

    @classmethod
    def reference_learning_rate(cls, config: LlamaAdapterConfig) -> float:
        return 1.5e-2

    @classmethod
    def claims_no_op(cls, config: LlamaAdapterConfig) -> bool:
        return True

    def prefix(self, place: int) -> LayerPrefix:
        key, value = self.prompt.layer(place)
        gate = torch.tanh(self.gate[place]).expand(self.backbone.num_heads)
        return LayerPrefix(key, value, gate=gate, additive=True)

    # PEFT -----------------------------------------------------------------------------------------

    def to_peft(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        backbone = self.backbone
        _check_peft(backbone)
        if self.config.gate != "layer":
            raise NotInPeft("PEFT has one gate a layer: train with gate 'layer'")
        count = len(self.layers)
        if self.layers != list(range(backbone.num_layers - count, backbone.num_layers)):
            raise NotInPeft("PEFT's adaption prompt is in the last layers only")
        peft = {
            "peft_type": self.peft_type,
            "task_type": "CAUSAL_LM",
            "adapter_len": self.config.length,
            "adapter_layers": count,
            "target_modules": backbone.family.attention,
            "inference_mode": True,
        }
        tensors = {}
        for place, layer in enumerate(self.layers):
            name = f"base_model.model.{backbone.family.layers}.{layer}.{backbone.family.attention}"
            tensors[f"{name}.adaption_prompt"] = self.prompt.hidden[place].detach()[None].clone()
            tensors[f"{name}.adaption_gate"] = torch.tanh(self.gate[place].detach())
        return peft, tensors

    @classmethod
    def from_peft(
        cls, backbone: Backbone, peft: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> tuple[LlamaAdapterConfig, dict[str, torch.Tensor]]:
        _check_peft(backbone)
        prompts: dict[int, torch.Tensor] = {}
        gates: dict[int, torch.Tensor] = {}
        for name, value in tensors.items():
            found = re.search(r"layers\.(\d+)\.", name)
            if found is None:
                raise NotInPeft(f"no layer number in tensor name {name!r}")
            layer = int(found.group(1))
            (prompts if name.endswith("adaption_prompt") else gates)[layer] = value.float()
        gate = torch.stack([gates[layer].view(1) for layer in sorted(gates)])
        if (gate.abs() >= 1).any():
            raise NotInPeft("a gate of PEFT's adaption prompt is outside (-1, 1), tanh's range")
        config = LlamaAdapterConfig(
            length=int(peft["adapter_len"]),
            layers=f"last:{int(peft['adapter_layers'])}",
            gate="layer",
            initialization="random",
        )
        hidden = torch.stack([prompts[layer][0] for layer in sorted(prompts)])
        return config, {"prompt.hidden": hidden, "gate": torch.atanh(gate)}
