"""What an adaptation method is, and the registry of methods.

A method is a class derived from :class:`Adapter`, in a file of its own beside this one or in a
package of yours, announced by the entry point group ``polyprefix.methods``. It says in class
attributes what it is, builds its parameters from a strict config, and hooks them into a backbone
through the extension points of ``models`` (attention slots) or torch's forward hooks. The
conformance suite covers it once it is registered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn.utils import skip_init

from polyprefix.config import (
    ConfigError,
    ModelConfig,
    PolyprefixError,
    Registry,
    Spec,
    UnsupportedModel,
)
from polyprefix.models import Backbone

if TYPE_CHECKING:
    from polyprefix.methods.adapted import AdaptedModel

REFERENCE_WIDTH = 256
"""Hidden size d at which reference learning rates hold."""


class NotInPeft(PolyprefixError):
    """PEFT cannot express this adapter without changing what it computes; the text says why."""


class MethodConfig(Spec):
    """Configuration of a method; subclasses add its keys."""

    def identity(self) -> dict[str, Any]:
        """What of it affects the output, for the identity of a run."""
        return self.model_dump(mode="json")

    def no_effect(self, keys: tuple[str, ...], unless: str) -> None:
        """Refuse keys that were given although they would change nothing."""
        for key in keys:
            if getattr(self, key) is not None:
                raise ValueError(f"{key!r} has no effect unless {unless}")


@dataclass(frozen=True)
class Setting:
    """What an adapter may use to initialise itself.

    Attributes:
        generator: the source of every random number.
        text: ``[T]`` token ids of a text to initialise from (``initialization: text`` without
            ``init_text``, or ``activations``); the run gives its first training prompts.
        restore: the tensors will be overwritten by saved ones; what is costly or needs a text
            may be skipped.
    """

    generator: torch.Generator
    text: torch.Tensor | None = None
    restore: bool = False

    def normal(self, *shape: int, std: float) -> torch.Tensor:
        """fp32 on the CPU: the same numbers on every device."""
        return torch.randn(*shape, generator=self.generator) * std

    def uniform(self, *shape: int, limit: float) -> torch.Tensor:
        """Uniform in ``[-limit, limit]``, fp32 on the CPU."""
        return (torch.rand(*shape, generator=self.generator) * 2 - 1) * limit

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear map with torch's default scale and no bias yet. torch's own initialisation is
        skipped: it would draw from the global generator, on which the order of data may depend."""
        linear = skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
        assert isinstance(linear, nn.Linear)
        with torch.no_grad():
            linear.weight.copy_(self.uniform(outputs, inputs, limit=inputs**-0.5))
            linear.bias.zero_()
        return linear


class Adapter(nn.Module, ABC):
    """What is trained, attached to one backbone.

    Class attributes:
        method: name in configurations.
        title: name for people.
        paper: where the method comes from.
        Config: its configuration class.
        trains: there is something to train.
        listed: it is a method by itself, with a default configuration.
        peft_type: PEFT's name of the corresponding method, if it has one.
        conformance: the configurations, beside the default one, that the conformance suite covers.

    Attributes:
        index: the adapter's number on its backbone; calls name adapters by it.
        first_soft_id: the id of its first soft token; both are given when it is attached.
    """

    method: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    trains: ClassVar[bool] = True
    listed: ClassVar[bool] = True
    peft_type: ClassVar[str | None] = None
    conformance: ClassVar[tuple[dict[str, Any], ...]] = ()

    def __init__(self, backbone: Backbone, config: Any, setting: Setting) -> None:
        super().__init__()
        # Kept out of the module tree: an adapter's parameters are its own, not the backbone's.
        self.__dict__["backbone"] = backbone
        self.config = config
        self.index = -1
        self.first_soft_id = -1

    backbone: Backbone

    # What a method may override ------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def reference_learning_rate(cls, config: Any) -> float:
        """AdamW's peak learning rate, when the run gives none, at ``REFERENCE_WIDTH``."""

    @classmethod
    def claims_no_op(cls, config: Any) -> bool:
        """Whether logits at initialisation are exactly the backbone's."""
        return False

    @classmethod
    def mixes(cls, config: Any) -> bool:
        """Whether rows of one batch may carry different adapters of this kind, which share the
        backbone: not where the backbone itself is tuned."""
        return True

    @classmethod
    def loaded(cls, model: AdaptedModel, config: Any, name: str) -> Adapter | None:
        """The adapter, attached to ``model``, where it is read instead of made."""
        return None

    def install(self) -> None:
        """Hook into the backbone under ``self.index``."""

    def remove(self) -> None:
        """Undo :meth:`install`."""

    def activate(self) -> None:
        """Called when calls without named rows start to use this adapter."""

    def prompt_ids(self) -> tuple[list[int], list[int]]:
        """Ids of soft tokens before and after the prompt text."""
        return [], []

    @property
    def num_soft_tokens(self) -> int:
        """Rows that the adapter adds to the embedding table, beyond the vocabulary."""
        return 0

    def soft_tokens(self) -> torch.Tensor:
        """Those rows, ``[num_soft_tokens, d]``, as the embedding module would return them."""
        return torch.empty(0, self.backbone.hidden_size)

    @property
    def position_offset(self) -> int:
        """By how much the positions of the text are moved (PEFT's prefix convention)."""
        return 0

    @property
    def lowest_layer(self) -> int:
        """The first layer that computes anything else than it does in the backbone. What enters it
        depends on the text alone, and can be kept while the adapter is trained. 0, where soft
        tokens or trained embeddings are, or where it is not known."""
        return 0

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name; all fp32."""
        return dict(self.named_parameters())

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to restore the adapter, by name."""
        return {name: value.detach() for name, value in self.trainable().items()}

    def to_peft(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT writes them.

        Raises:
            NotInPeft: PEFT cannot express it.
        """
        raise NotInPeft(f"PEFT has no method like Polyprefix's {self.method!r}")

    @classmethod
    def from_peft(
        cls, backbone: Backbone, peft: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
        """Configuration and :meth:`state` of an adapter that PEFT wrote."""
        raise NotInPeft(f"Polyprefix does not read PEFT's {cls.peft_type}")

    @classmethod
    def default_learning_rate(cls, config: Any, hidden_size: int) -> float:
        """The reference rate, scaled to the backbone: ``rate * REFERENCE_WIDTH / d``.

        AdamW moves every element by about the rate, and what d moved elements add up to grows with
        d (Yang et al. 2022, arXiv 2203.03466). The reference rates were chosen on
        the first ``polyprefix/nano``, d = 256; at d = 4096 they come to what arXiv 2510.24619 uses
        for 7B to 8B models: about 3e-3 for prefixes, 3e-4 for LoRA."""
        return cls.reference_learning_rate(config) * REFERENCE_WIDTH / hidden_size

    # What is the same for all ---------------------------------------------------------------------

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Set every tensor of :meth:`state`.

        Raises:
            ConfigError: see :meth:`check_state`.
        """
        self.check_state(tensors)
        for name, value in self.state().items():
            value.copy_(tensors[name])

    def check_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See that tensors are those of :meth:`state`, before any of them is set: one may be of the
        backbone.

        Raises:
            ConfigError: a tensor is missing, is not expected, or has another shape.
        """
        own = self.state()
        if missing := sorted(own.keys() - tensors.keys()):
            raise ConfigError(
                f"{self.method} adapter: tensors missing: {', '.join(missing[:5])}: was it trained "
                "on another backbone?"
            )
        if extra := sorted(tensors.keys() - own.keys()):
            raise ConfigError(
                f"{self.method} adapter: tensors not expected: {', '.join(extra[:5])}: was it "
                "trained on another backbone?"
            )
        for name, value in own.items():
            if value.shape != tensors[name].shape:
                raise ConfigError(
                    f"{self.method} adapter: tensor {name!r} has shape "
                    f"{tuple(tensors[name].shape)}, expected {tuple(value.shape)}: was it trained "
                    "on another backbone?"
                )

    def num_trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(value.numel() for value in self.trainable().values())


def check_frozen(
    adapter: type[Adapter], config: MethodConfig, model: ModelConfig | Backbone
) -> None:
    """Refuse to train weights of the model that can only be read.

    Args:
        adapter: the method.
        config: of it.
        model: which, or how it was loaded.

    Raises:
        UnsupportedModel: the method trains them.
    """
    if not adapter.trains or adapter.mixes(config):
        return
    if model.quantization is not None:
        key = f"model.quantization: {model.quantization}"
        reason = "are rounded to few bits, which the small steps of training do not change"
    elif model.offload != "none":
        key = f"model.offload: {model.offload}"
        reason = "are put on the device as copies, and what is done to a copy is lost"
    else:
        return
    raise UnsupportedModel(
        f"{adapter.title} with this configuration trains the model's own weights, and with "
        f"'{key}' these {reason}. Leave that key out, or take a method that leaves the model "
        "frozen: a prefix, lora, bottleneck."
    )


def register_method(adapter: type[Adapter]) -> type[Adapter]:
    """Class decorator: make a method known by its name. ``ValueError`` if the name is taken."""
    return _METHODS.add(adapter.method, adapter)


_METHODS: Registry[type[Adapter]] = Registry(
    "method", "polyprefix.methods", register_method, ConfigError, key="key 'method.name': "
)


def methods() -> dict[str, type[Adapter]]:
    """All methods by name, those of other packages included; not those that only read what another
    has made."""
    return {name: method for name, method in _METHODS.all().items() if method.listed}


def get_method(name: str) -> type[Adapter]:
    """The method of that name.

    Raises:
        ConfigError: there is none.
    """
    return _METHODS.get(name)


def method_config(values: Mapping[str, Any]) -> MethodConfig:
    """The strict configuration for ``{"name": ..., ...}``, defaults filled in.

    Raises:
        ConfigError: unknown method, unknown key, value out of range, key without effect.
    """
    adapter = get_method(str(values.get("name")))
    options = {key: value for key, value in values.items() if key != "name"}
    return adapter.Config.read(options, where=f"method {adapter.method}")


def method_of(config: MethodConfig) -> type[Adapter]:
    """The method a configuration belongs to."""
    for adapter in _METHODS.all().values():
        if type(config) is adapter.Config:
            return adapter
    raise ConfigError(f"{type(config).__name__} belongs to no registered method")
