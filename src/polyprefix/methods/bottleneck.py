"""Bottleneck adapters: a small network behind a block's output, added to it (Houlsby et al. 2019,
arXiv 1902.00751; Pfeiffer et al. 2021, arXiv 2005.00247).

::

    h = h + W_up relu(W_down h)        W_up = 0 at the start

``houlsby``: behind attention and behind the feed-forward block. ``pfeiffer``: behind the
feed-forward block only. Both stand before the residual connection is added, as in Houlsby et al.;
decoders normalise before a block instead of after it, so neither paper's layer norms apply.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.utils.hooks import RemovableHandle

from polyprefix.methods.base import Adapter, MethodConfig, Setting, register_method
from polyprefix.methods.layers import Layers, parse_layers
from polyprefix.models import Backbone, current


class BottleneckConfig(MethodConfig):
    """Keys of ``bottleneck``."""

    size: Annotated[int, Field(gt=0)] = 16
    """s, the hidden size of each network."""
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """``houlsby``: behind attention and behind the feed-forward block. ``pfeiffer``: behind the
    feed-forward block only."""
    layers: Layers = "upper"
    """Which layers are adapted: ``upper`` (all but the lowest two), ``all``, ``last:30``,
    ``first:4``, ``every:2`` or a list of numbers."""


class _Bottleneck(nn.Module):
    def __init__(self, width: int, size: int, setting: Setting) -> None:
        super().__init__()
        self.down = nn.Parameter(setting.normal(size, width, std=width**-0.5))
        self.down_bias = nn.Parameter(torch.zeros(size))
        self.up = nn.Parameter(torch.zeros(width, size))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[..., d] -> [..., d]``, computed in fp32."""
        inner = torch.relu(nn.functional.linear(hidden.float(), self.down, self.down_bias))
        return nn.functional.linear(inner, self.up, self.up_bias).to(hidden.dtype)


@register_method
class Bottleneck(Adapter):
    """See the module's text."""

    method = "bottleneck"
    title = "Bottleneck adapter"
    paper = "Houlsby et al. 2019, arXiv 1902.00751"
    Config = BottleneckConfig
    conformance = ({"placement": "pfeiffer", "layers": "last:1"},)
    config: BottleneckConfig

    def __init__(self, backbone: Backbone, config: BottleneckConfig, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        family = backbone.family
        places = [family.mlp_output]
        if config.placement == "houlsby":
            places.insert(0, family.attention_output)
        self.places = [
            (layer, place)
            for layer in parse_layers(config.layers, backbone.num_layers)
            for place in places
        ]
        self.bottlenecks = nn.ModuleList(
            _Bottleneck(backbone.hidden_size, config.size, setting) for _ in self.places
        )
        self._hooks: list[RemovableHandle] = []

    @classmethod
    def reference_learning_rate(cls, config: BottleneckConfig) -> float:
        return 5e-3

    @classmethod
    def claims_no_op(cls, config: BottleneckConfig) -> bool:
        return True

    @property
    def lowest_layer(self) -> int:
        return min(layer for layer, _ in self.places)

    def _hook(self, bottleneck: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            call = current()
            if call.rows is None:
                return output + bottleneck(output) if call.adapter == self.index else None
            if self.index not in call.members:
                return None
            rows = call.members[self.index]
            # In place: each adapter of a batch would copy the whole of it. It is the output of a
            # linear map, which needs none of it for its gradient.
            return output.index_add_(0, rows, bottleneck(output.index_select(0, rows)))

        return hook

    def install(self) -> None:
        for (layer, place), bottleneck in zip(self.places, self.bottlenecks, strict=True):
            module = self.backbone.layers[layer].get_submodule(place)
            self._hooks.append(module.register_forward_hook(self._hook(bottleneck)))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
