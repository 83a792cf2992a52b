"""The most memory that a run takes: on a CUDA device what is allocated there, elsewhere the
process's resident size."""

from __future__ import annotations

import torch

from polyprefix.results import forget_peak_memory, peak_memory


def forget_memory(device: torch.device) -> None:
    """Begin to measure: what other runs of this process have taken does not count."""
    forget_peak_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_used(device: torch.device) -> int | None:
    """The most bytes in use at once since :func:`forget_memory`; ``None`` where it cannot be
    known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
