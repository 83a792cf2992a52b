"""Tensors that every process has, or has a part of: sums, norms, and their way to and from files.

A part is a ``DTensor``, one of a sharded backbone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from polyprefix.distributed.world import world

LARGE = 1 << 20
"""Elements from which on a tensor is sent by itself; smaller ones go together."""


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor from its parts. All processes call it."""
    if isinstance(value, DTensor):
        full: torch.Tensor = value.full_tensor()
        return full
    return value


@torch.no_grad()
def put(value: torch.Tensor, source: torch.Tensor | None) -> None:
    """Set a tensor, or this process's part of it, to what process 0 gives as ``source``."""
    if not isinstance(value, DTensor):
        if source is not None:
            value.copy_(source)
        world().hand_out_(value)
        return
    local = value.to_local()
    given = torch.empty(value.shape, dtype=value.dtype, device=local.device)
    if source is not None:
        given.copy_(source)
    parts = distribute_tensor(given, value.device_mesh, value.placements)
    local.copy_(parts.to_local())


def sum_gradients(parameters: Sequence[nn.Parameter], losses: torch.Tensor) -> None:
    """Add up the gradients of all processes, and their losses, in place.

    Gradients of a sharded backbone are added up already. A parameter that has a gradient in no
    process has none afterwards either, and the optimizer leaves it alone.

    Args:
        parameters: in the same order in every process.
        losses: any shape, fp32, on the parameters' device.
    """
    own = [value for value in parameters if not isinstance(value, DTensor)]
    there = losses.new_tensor([float(value.grad is not None) for value in own])
    for value in own:
        if value.grad is None:
            value.grad = torch.zeros_like(value)
    gradients = [value.grad for value in own if value.grad is not None]
    small = [gradient for gradient in gradients if gradient.numel() < LARGE]
    _sum_together([losses, there, *small])
    for gradient in gradients:
        if gradient.numel() >= LARGE:
            world().sum_(gradient)
    for value, count in zip(own, there.tolist(), strict=True):
        if count == 0:
            value.grad = None


def _sum_together(tensors: Sequence[torch.Tensor]) -> None:
    """Add up many small tensors as one."""
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    world().sum_(flat)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


@torch.no_grad()
def total_norm(parameters: Iterable[nn.Parameter], most: float) -> torch.Tensor:
    """The norm of all gradients as one vector, which are scaled down to ``most`` if it is larger;
    as ``torch.nn.utils.clip_grad_norm_``, where some are in parts, one at least, and some are
    not."""
    whole_ones: list[torch.Tensor] = []
    parts: list[torch.Tensor] = []
    for value in parameters:
        if isinstance(value.grad, DTensor):
            parts.append(value.grad.to_local())
        elif value.grad is not None:
            whole_ones.append(value.grad)
    of_parts = _square(parts)
    world().sum_(of_parts)
    norm = (of_parts + _square(whole_ones).to(of_parts.device)).sqrt()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    for gradient in (*parts, *whole_ones):
        gradient.mul_(scale)
    return norm


def _square(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).square().sum()
