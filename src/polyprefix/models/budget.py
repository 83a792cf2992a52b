"""Tokens of a forward pass, where a configuration leaves them to the device.

A CPU is filled by a thousand tokens. More of them are no faster and take memory: training keeps
the activations of all of them. What a GPU is filled by depends on the model; these are enough for
a small one, and fit beside a large one.
"""

from __future__ import annotations

import torch

TRAINING = {"cpu": 1024}
EVALUATION = {"cpu": 2048}
OTHERS_TRAINING, OTHERS_EVALUATION = 8192, 16384


def training_tokens(wanted: int | None, device: torch.device) -> int:
    """``runtime.micro_batch_tokens`` on a device."""
    return wanted or TRAINING.get(device.type, OTHERS_TRAINING)


def evaluation_tokens(wanted: int | None, device: torch.device) -> int:
    """``runtime.evaluation_batch_tokens`` on a device."""
    return wanted or EVALUATION.get(device.type, OTHERS_EVALUATION)
