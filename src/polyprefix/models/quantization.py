"""Frozen linear maps in 8 or 4 bits: torchao's weights, loaded by transformers.

``int8``: whole numbers with a factor for each output. ``nf4``: 4-bit NormalFloat in blocks of 64
weights with a factor each, which is in 8 bits itself (QLoRA, Dettmers et al. 2023, arXiv
2305.14314). Weights alone are narrow; products are computed in the model's own dtype. So what a
text gets does not depend on what stands beside it in a batch, and gradients are those of a model
whose weights are the same numbers in full.

Linear maps of the decoder are quantised. Embeddings, norms, biases and the output head are not, nor
is anything that is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoModelForCausalLM, TorchAoConfig

from polyprefix.config import UnsupportedModel

BLOCK, FACTORS = 64, 16
"""Weights of ``nf4`` that share a factor, and factors that share one of their own. QLoRA has 256
of the latter, which narrow models cannot be divided into; 16 cost 0.03 bits a weight."""


def _torchao_config(kind: str) -> Any:
    if find_spec("torchao") is None:
        raise UnsupportedModel(
            f"key 'model.quantization': {kind!r} needs torchao: pip install "
            "'polyprefix[quantization]'"
        )
    if kind == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return Int8WeightOnlyConfig(set_inductor_config=False)  # it would set torch's options
    try:
        from torchao.prototype._nf4tensor_api import NF4WeightOnlyConfig
    except ImportError as error:
        raise UnsupportedModel(
            f"key 'model.quantization': this version of torchao has no nf4 ({error}): pip install "
            "'polyprefix[quantization]', or take int8"
        ) from None
    config = NF4WeightOnlyConfig()
    config.block_size, config.scaler_block_size = BLOCK, FACTORS
    return config


def quantization_config(kind: str, config: Any, **options: Any) -> Any:
    """What transformers is to be told, once it is known that the model can be quantised.

    Args:
        kind: ``int8`` or ``nf4``.
        config: transformers' configuration of the model.
        options: of ``from_config``.

    Raises:
        UnsupportedModel: torchao is not installed, or the model has no linear maps that it knows.
    """
    found = TorchAoConfig(_torchao_config(kind))
    with torch.device("meta"):
        _check(kind, AutoModelForCausalLM.from_config(config, **options))
    return found


def _check(kind: str, model: Any) -> None:
    maps = _linear_maps(model)
    if not maps:
        raise UnsupportedModel(
            f"key 'model.quantization': family {model.config.model_type!r} has no linear maps that "
            "torchao knows: leave it out"
        )
    for name, module in maps.items():
        if kind == "nf4" and module.weight.numel() % (BLOCK * FACTORS):
            raise UnsupportedModel(
                f"key 'model.quantization': nf4 takes {BLOCK * FACTORS} weights together, and "
                f"{name} has {' times '.join(map(str, module.weight.shape))}: take int8"
            )


def _linear_maps(model: Any) -> dict[str, nn.Linear]:
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def quantise(model: Any, kind: str) -> None:
    """Quantise a model that was made from its configuration, as loading quantises one.

    Raises:
        UnsupportedModel: see :func:`quantization_config`.
    """
    config = _torchao_config(kind)
    _check(kind, model)
    from torchao.quantization import quantize_

    maps = _linear_maps(model)
    quantize_(model, config, filter_fn=lambda _, name: name in maps)


def is_quantised(tensor: torch.Tensor) -> bool:
    """Whether a weight is one of torchao's."""
    return bool(is_traceable_wrapper_subclass(tensor))


def quantised_maps(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps of a model whose weights are, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_quantised(module.weight)
    }


def dequantised(weight: Any) -> torch.Tensor:
    """``[outputs, inputs]``: the numbers that a quantised weight stands for, in its dtype."""
    nf4 = hasattr(weight, "get_original_weight")  # its ``dequantize`` is another function
    wide: torch.Tensor = weight.get_original_weight() if nf4 else weight.dequantize()
    return wide


def stored(tensor: Any) -> list[torch.Tensor]:
    """The tensors that hold a tensor's numbers: itself, or what a quantised one is made of."""
    if not is_quantised(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [inner for name in names for inner in stored(getattr(tensor, name))]


def stored_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that tensors take."""
    return sum(
        inner.numel() * inner.element_size() for tensor in tensors for inner in stored(tensor)
    )


# Training -----------------------------------------------------------------------------------------


class _FrozenLinear(torch.autograd.Function):
    """A linear map that makes its weight wide again in the backward pass.

    torchao's product for ``int8`` is plain operations, of which autograd would keep the wide weight
    from the forward pass on: all adapted layers at once, more than the model takes unquantised."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        kind = inputs.device.type
        ctx.weight = weight
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        return F.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = gradients
        with torch.autocast(**ctx.autocast):
            found = gradient @ dequantised(ctx.weight).to(gradient.dtype)
        return found.to(gradient.dtype), None, None


def _forward(self: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = _FrozenLinear.apply(  # type: ignore[no-untyped-call]
        inputs, self.weight, self.bias
    )
    return found


def keep_weights_narrow(model: nn.Module) -> None:
    """Let no quantised map keep a wide weight for the backward pass. That of ``nf4`` does not by
    itself."""
    for module in quantised_maps(model).values():
        if not hasattr(module.weight, "get_original_weight"):
            module.__dict__["forward"] = MethodType(_forward, module)
