"""Weights that wait in main memory: accelerate brings each to the device for its product and takes
it away again.

Decoder layers are offloaded. Embeddings, the last norm and the output head stay on the device, and
so does all that is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from accelerate.hooks import attach_align_device_hook
from accelerate.utils import align_module_device, has_offloaded_params
from torch import nn


def offload_layers(model: nn.Module, layers: list[nn.Module], device: torch.device) -> None:
    """Keep the layers of a model in main memory, and put the rest on the device.

    Args:
        model: on the CPU.
        layers: of it.
        device: where all of it computes.
    """
    inner = {id(module) for layer in layers for module in layer.modules()}
    for module in model.modules():
        if id(module) not in inner:  # its own tensors; tied ones stay tied
            module._apply(  # type: ignore[no-untyped-call]
                lambda tensor: tensor.to(device), recurse=False
            )
    for layer in layers:
        # What cpu_offload does, but for its hook on the layer as a whole, which would send whatever
        # the layer is called with to a device, masks of other classes than tensors too.
        attach_align_device_hook(
            layer, execution_device=device, offload=True, weights_map=dict(layer.state_dict())
        )


@contextmanager
def weights_in_place(model: nn.Module) -> Iterator[None]:
    """Offloaded weights are seen where they wait. Else their modules hold empty ones, and what is
    made to be like these would be empty too."""
    with ExitStack() as stack:
        for module in list(model.modules()):
            if has_offloaded_params(module):
                stack.enter_context(align_module_device(module, torch.device("cpu")))
        yield
