"""LoRA, PEFT's own (Hu et al. 2021, arXiv 2106.09685).

PEFT computes it; this file lets it take part in calls where each row says what it carries.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from pydantic import Field
from torch import nn

from polyprefix.config import ConfigError
from polyprefix.methods.base import Adapter, MethodConfig, NotInPeft, Setting, register_method
from polyprefix.methods.layers import Layers, parse_layers
from polyprefix.models import Backbone, current
from polyprefix.models.offload import weights_in_place

_NAMES = "_polyprefix_lora"
_READ = {
    # what from_peft reads, or what the names of the tensors and the backbone's own type also say
    *("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform"),
    *("layers_pattern", "exclude_modules", "fan_in_fan_out"),
    # what does not affect the output
    *("task_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version"),
    "auto_mapping",
}
"""Keys of PEFT's configuration that may differ from its defaults; with any other the adapter may
compute something else than :class:`Lora` does."""
_STARTS = ("gaussian", "orthogonal", "eva")
"""Values of ``init_lora_weights`` that leave the backbone's own weights alone."""


class LoraConfig(MethodConfig):
    """Keys of ``lora``."""

    rank: Annotated[int, Field(gt=0)] = 4
    """r, of the update of each adapted map."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the update's inputs that are zeroed in training."""
    targets: tuple[str, ...] | None = None
    """Names of the linear maps to adapt; by default query and value."""
    layers: Layers = "upper"
    """Which layers are adapted: ``upper`` (all but the lowest two), ``all``, ``last:30``,
    ``first:4``, ``every:2`` or a list of numbers."""


@register_method
class Lora(Adapter):
    """See the module's text."""

    method = "lora"
    title = "LoRA"
    paper = "Hu et al. 2021, arXiv 2106.09685"
    Config = LoraConfig
    peft_type = "LORA"
    config: LoraConfig

    def __init__(self, backbone: Backbone, config: LoraConfig, setting: Setting) -> None:
        super().__init__(backbone, config, setting)
        self.layers = parse_layers(config.layers, backbone.num_layers)
        self.targets = list(config.targets or backbone.family.lora_targets)
        self.seed = int(torch.randint(1 << 31, (1,), generator=setting.generator))

    @classmethod
    def reference_learning_rate(cls, config: LoraConfig) -> float:
        return 5e-3

    @classmethod
    def claims_no_op(cls, config: LoraConfig) -> bool:
        return True

    @property
    def lowest_layer(self) -> int:
        return min(self.layers)

    @property
    def _name(self) -> str:
        """PEFT's name of this adapter among those on the backbone."""
        return f"polyprefix{self.index}"

    def _modules_of(self) -> list[tuple[str, Any]]:
        return [
            (name, module)
            for name, module in self.backbone.model.named_modules()
            if isinstance(module, LoraLayer) and self._name in module.lora_A
        ]

    def install(self) -> None:
        config = PeftLoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=self.targets,
            layers_to_transform=self.layers,
            layers_pattern=self.backbone.family.layers.rsplit(".", 1)[-1],
            fan_in_fan_out=self.backbone.family.model_type == "gpt2",
        )
        device = self.backbone.device
        with (
            weights_in_place(self.backbone.model),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            torch.manual_seed(self.seed)
            try:
                # several adapters on one backbone are what this is for
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                # merging in place, which is not done here
                warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated without")
                inject_adapter_in_model(config, self.backbone.model, adapter_name=self._name)
            except ValueError as error:
                raise ConfigError(f"method lora: {error}") from None
        self.backbone.model.requires_grad_(False)
        for _, module in self._modules_of():
            if _NAMES not in module.__dict__:
                module.__dict__[_NAMES] = {}
                module.register_forward_pre_hook(_choose, with_kwargs=True)
            module.__dict__[_NAMES][self.index] = self._name
        self._check_targets()
        for value in self.trainable().values():
            value.data = value.data.to(device, torch.float32)
            value.requires_grad_(True)

    def _check_targets(self) -> None:
        """PEFT is content if one of the targets is there."""
        names = ["." + name for name, _ in self._modules_of()]
        for target in self.targets:
            if not any(name.endswith("." + target) for name in names):
                self.remove()
                raise ConfigError(
                    f"method lora: target {target!r} is nowhere in the adapted layers"
                )

    def remove(self) -> None:
        for _, module in self._modules_of():
            module.delete_adapter(self._name)
            module.__dict__[_NAMES].pop(self.index)

    def activate(self) -> None:
        for _, module in self._modules_of():
            module.set_adapter(self._name)

    def trainable(self) -> dict[str, nn.Parameter]:
        found = {}
        for name, module in self._modules_of():
            clean = name.replace(".base_layer", "")
            found[f"{clean}.lora_A.weight"] = module.lora_A[self._name].weight
            found[f"{clean}.lora_B.weight"] = module.lora_B[self._name].weight
        return found

    # PEFT -----------------------------------------------------------------------------------------

    def to_peft(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        peft = {
            "peft_type": self.peft_type,
            "task_type": "CAUSAL_LM",
            "r": self.config.rank,
            "lora_alpha": self.config.alpha,
            "lora_dropout": self.config.dropout,
            "target_modules": self.targets,
            "layers_to_transform": self.layers,
            "layers_pattern": self.backbone.family.layers.rsplit(".", 1)[-1],
            "fan_in_fan_out": self.backbone.family.model_type == "gpt2",
            "bias": "none",
            "inference_mode": True,
        }
        tensors = {f"base_model.model.{k}": v.clone() for k, v in self.state().items()}
        return peft, tensors

    @classmethod
    def from_peft(
        cls, backbone: Backbone, peft: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
        plain = PeftLoraConfig().to_dict()
        for key, value in peft.items():
            harmless = key in _READ or (key == "init_lora_weights" and value in _STARTS)
            if not harmless and value and value != plain.get(key):
                raise NotInPeft(f"a LoRA of PEFT with {key}={value!r} is not read by Polyprefix")
        layers = peft.get("layers_to_transform")
        targets = peft["target_modules"]
        config = LoraConfig(
            rank=int(peft["r"]),
            alpha=float(peft["lora_alpha"]),
            dropout=float(peft.get("lora_dropout") or 0.0),
            targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
            layers="all"
            if layers is None
            else tuple([layers] if isinstance(layers, int) else layers),
        )
        state = {k.removeprefix("base_model.model."): v.float() for k, v in tensors.items()}
        return config, state


def _choose(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Tell a LoRA layer, before each call, which adapter each row carries."""
    call = current()
    names: dict[int, str] = module.__dict__[_NAMES]
    rows = len(args[0])
    if call.rows is None:
        name = "__base__" if call.adapter is None else names.get(call.adapter, "__base__")
        if module.active_adapters == [name]:  # see Lora.activate
            return None
        chosen = [name] * rows
    else:
        chosen = [names.get(row, "__base__") for row in call.carried]
    return args, kwargs | {"adapter_names": chosen}
