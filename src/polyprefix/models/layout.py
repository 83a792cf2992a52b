"""How weights lie in memory.

A linear layer computes ``x W^T``. On a CPU and for few rows of x, as when answers are written, the
product of float32 matrices is slower where the inputs of an output stand next to each other, which
is how weights are stored, than where the outputs of an input do. ``python -m benchmarks.layout``,
d = 512, two cores with AVX-512: 1.9 times for 16 rows, 1.3 for 24, 1.2 for 8, 32 and 48, the same
for hundreds. Values, shapes and files do not change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def outputs_together(model: Any) -> None:
    """Let the outputs of an input stand next to each other, in the linear layers of a model that
    are in float32 on a CPU. An embedding that is the head too stays as it is: its rows are read one
    by one."""
    embedding = model.get_input_embeddings().weight
    for module in model.modules():
        # What the weight of another kind of layer is, a quantised one for instance, is not known.
        if type(module) is nn.Linear and module.weight is not embedding:
            weight = module.weight
            if weight.device.type == "cpu" and weight.dtype == torch.float32:
                weight.data = weight.data.t().contiguous().t()
