"""Full fine-tuning: every parameter of the backbone is trained, in fp32."""

from __future__ import annotations

import torch
from torch import nn

from polyprefix.methods.base import Adapter, MethodConfig, register_method
from polyprefix.models import Backbone


def unfreeze_backbone(backbone: Backbone) -> None:
    """Make all of the backbone trainable, in fp32."""
    backbone.tuned = True
    if any(value.dtype != torch.float32 for value in backbone.model.parameters()):
        backbone.model.to(torch.float32)
    backbone.model.requires_grad_(True)


def freeze_backbone(backbone: Backbone) -> None:
    """Nothing of the backbone is trained."""
    backbone.model.requires_grad_(False)


def backbone_parameters(backbone: Backbone) -> dict[str, nn.Parameter]:
    """By name; tied parameters once. A LoRA that was there before leaves its name in the path."""
    return {
        f"backbone.{name.replace('.base_layer', '')}": value
        for name, value in backbone.model.named_parameters()
    }


class FullConfig(MethodConfig):
    """``full`` has no keys."""


@register_method
class Full(Adapter):
    """See the module's text."""

    method = "full"
    title = "Full fine-tuning"
    paper = "baseline"
    Config = FullConfig

    @classmethod
    def reference_learning_rate(cls, config: FullConfig) -> float:
        return 3e-4

    @classmethod
    def claims_no_op(cls, config: FullConfig) -> bool:
        return True

    @classmethod
    def mixes(cls, config: FullConfig) -> bool:
        return False

    def install(self) -> None:
        unfreeze_backbone(self.backbone)

    def remove(self) -> None:
        freeze_backbone(self.backbone)

    def trainable(self) -> dict[str, nn.Parameter]:
        return backbone_parameters(self.backbone)
