"""What Polyprefix must know of a model family, and the registry of families.

A family is one ``model_type`` of transformers. To add one, write a file beside this one (or in a
package of your own, announced by the entry point group ``polyprefix.families``) that builds a
:class:`Family` and registers it; the conformance suite then covers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from polyprefix.config import Registry, UnsupportedModel

Projection = Callable[[nn.Module, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""``(attention module, hidden [P, d]) -> key, value [H_kv, P, D]``, without rotary embedding: the
layer's own frozen W_k and W_v."""


@dataclass(frozen=True)
class Family:
    """Where things are in a family's modules, and how its attention reaches the registry.

    Attributes:
        model_type: ``config.model_type`` of transformers.
        layers: path of the list of decoder layers in the causal language model.
        attention: path of the attention module in a layer.
        attention_output: path in a layer of the linear map that ends attention; bottleneck
            adapters stand behind it.
        mlp_output: the same for the feed-forward block.
        lora_targets: names of the linear maps that LoRA adapts by default (query and value).
        project: keys and values of hidden vectors.
        tiny: configuration values of a two-layer model for the conformance suite.
        alibi: positions enter as a bias on the scores instead of through embeddings.
        rotary: path in the causal language model of the rotary embedding that all layers share,
            ``None`` where there is none.
        obstacle: why a model of this family with that configuration cannot work, ``None`` if it
            can.
        prepare: brings the family's attention onto transformers' registry, where it is not.
    """

    model_type: str
    layers: str
    attention: str
    attention_output: str
    mlp_output: str
    lora_targets: tuple[str, ...]
    project: Projection
    tiny: dict[str, Any]
    alibi: bool = False
    rotary: str | None = None
    obstacle: Callable[[Any], str | None] | None = None
    prepare: Callable[[nn.Module], None] | None = None


def register_family(family: Family) -> Family:
    """Add a family. ``ValueError`` if its model type is taken."""
    return _FAMILIES.add(family.model_type, family)


_FAMILIES: Registry[Family] = Registry(
    "model family", "polyprefix.families", register_family, UnsupportedModel
)


def families() -> dict[str, Family]:
    """All families by model type, those of other packages included."""
    return _FAMILIES.all()


def get_family(model_type: str) -> Family:
    """The family of a model type.

    Raises:
        UnsupportedModel: it is not registered.
    """
    return _FAMILIES.get(
        model_type, hint=" To add one, see src/polyprefix/models/families/base.py."
    )


def supported_family(config: Any) -> Family:
    """The family of a model with that configuration of transformers.

    Raises:
        UnsupportedModel: it is not registered, or cannot work with that configuration.
    """
    family = get_family(config.model_type)
    reason = None if family.obstacle is None else family.obstacle(config)
    if reason is not None:
        raise UnsupportedModel(f"model family {family.model_type!r}: {reason}")
    return family
