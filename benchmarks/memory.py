"""Peak memory of this process: resident size on a CPU, allocated tensors on CUDA."""

from __future__ import annotations

from pathlib import Path

import torch

from polyprefix.results import peak_memory

STATUS = Path("/proc/self/status")


def reset(device: str) -> int:
    """Forget the peak so far, where the system can; what is in use now, in bytes."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return used(device)
    return _status("VmRSS")


def used(device: str) -> int:
    """The peak, in bytes.

    Linux counts it for the program: what ``getrusage`` says includes what the process was before it
    became this program, the size of its parent.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") if STATUS.is_file() else peak_memory() or 0


def _status(name: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
