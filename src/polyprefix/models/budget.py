"""Tokens of a forward pass, where a configuration leaves them to the device.

A CPU is filled by a thousand tokens. In training more of them are no faster and take memory: the
activations of all are kept. In evaluation they are not, and where answers are written a batch's
tokens are those of its cache: the more rows, the fewer times all weights are read. What a GPU is
filled by depends on the model; these are enough for a small one, and fit beside a large one.
"""

from __future__ import annotations

import torch

TRAINING, TRAINING_ON_CPU = 8192, 1024


def training_tokens(wanted: int | None, device: torch.device) -> int:
    """``runtime.micro_batch_tokens`` on a device."""
    return wanted or (TRAINING_ON_CPU if device.type == "cpu" else TRAINING)
