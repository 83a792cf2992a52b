"""A method that lives outside Polyprefix: a trained vector added to each block's output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from polyprefix.methods import Adapter, MethodConfig
from polyprefix.models import current


class ValueShiftConfig(MethodConfig):
    scale: float = 1.0


class ValueShift(Adapter):
    method = "value_shift"
    title = "Value shift"
    paper = "a toy"
    Config = ValueShiftConfig

    def __init__(self, backbone: Any, config: Any, setting: Any) -> None:
        super().__init__(backbone, config, setting)
        self.shift = nn.Parameter(torch.zeros(backbone.num_layers, backbone.hidden_size))
        self.hooks: list[Any] = []

    @classmethod
    def reference_learning_rate(cls, config: Any) -> float:
        return 1e-2

    @classmethod
    def claims_no_op(cls, config: Any) -> bool:
        return True

    def install(self) -> None:
        for number, layer in enumerate(self.backbone.layers):
            module = layer.get_submodule(self.backbone.family.mlp_output)

            def hook(_: Any, __: Any, output: torch.Tensor, number: int = number) -> torch.Tensor:
                call = current()
                shift = (self.shift[number] * self.config.scale).to(output.dtype)
                if call.rows is None:
                    return output + shift if call.adapter == self.index else output
                carries = (call.rows == self.index).view(-1, *[1] * (output.dim() - 1))
                return torch.where(carries, output + shift, output)

            self.hooks.append(module.register_forward_hook(hook))

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()
