"""How a prefix of keys and values is parameterised.

====================  ==============================================  ===========================
name                  trainable per layer                             on Llama 3.1 8B, top 30
====================  ==============================================  ===========================
``kv``                keys and values, 2 P H_kv D                     P=20: 1,228,800
``projected``         P d hidden vectors through the layer's W_k, W_v  P=10: 1,228,800
``mlp``               ``kv`` made by a network, folded away at export
====================  ==============================================  ===========================
"""

from __future__ import annotations

import torch
from torch import nn

from polyprefix.methods.base import Setting
from polyprefix.models import Backbone

KeyValue = tuple[torch.Tensor, torch.Tensor]
"""``[H_kv, P, D]`` twice."""


class KeyValues(nn.Module):
    """Keys and values themselves (Li and Liang 2021, arXiv 2101.00190, without their network)."""

    def __init__(self, backbone: Backbone, layers: list[int], length: int, std: float, s: Setting):
        super().__init__()
        shape = (len(layers), backbone.num_key_value_heads, length, backbone.head_dim)
        self.key = nn.Parameter(s.normal(*shape, std=std))
        self.value = nn.Parameter(s.normal(*shape, std=std))

    def layer(self, place: int) -> KeyValue:
        return self.key[place], self.value[place]

    @torch.no_grad()
    def start_from(self, backbone: Backbone, layers: list[int], inputs: list[torch.Tensor]) -> None:
        """``inputs``: L x [P, d], see :func:`prefix_inputs`."""
        for place, layer in enumerate(layers):
            key, value = backbone.project(layer, inputs[layer])
            self.key[place] = key.float()
            self.value[place] = value.float()


class ProjectedHidden(nn.Module):
    """Hidden vectors that the layer's own frozen maps turn into keys and values, without rotation
    (the prompts of LLaMA-Adapter, arXiv 2303.16199)."""

    def __init__(self, backbone: Backbone, layers: list[int], length: int, std: float, s: Setting):
        super().__init__()
        self.__dict__["backbone"] = backbone
        self.layers = layers
        self.hidden = nn.Parameter(s.normal(len(layers), length, backbone.hidden_size, std=std))

    backbone: Backbone

    def layer(self, place: int) -> KeyValue:
        return self.backbone.project(self.layers[place], self.hidden[place])

    @torch.no_grad()
    def start_from(self, backbone: Backbone, layers: list[int], inputs: list[torch.Tensor]) -> None:
        """``inputs``: L x [P, d], see :func:`prefix_inputs`."""
        for place, layer in enumerate(layers):
            self.hidden[place] = inputs[layer]


class NetworkKeyValues(nn.Module):
    """Keys and values made from P embeddings by a network that all layers share up to its last map
    (Li and Liang 2021, section 4.3): Linear, tanh, Linear."""

    def __init__(self, backbone: Backbone, layers: list[int], length: int, size: int, s: Setting):
        super().__init__()
        width = backbone.hidden_size
        self.heads, self.head_dim = backbone.num_key_value_heads, backbone.head_dim
        self.embedding = nn.Parameter(s.normal(length, width, std=1.0))
        self.inner = s.linear(width, size)
        self.outer = nn.ModuleList(s.linear(size, 2 * self.heads * self.head_dim) for _ in layers)

    def layer(self, place: int) -> KeyValue:
        hidden = torch.tanh(self.inner(self.embedding))
        flat: torch.Tensor = self.outer[place](hidden)
        key, value = flat.view(len(hidden), 2, self.heads, self.head_dim).permute(1, 2, 0, 3)
        return key, value
