"""Peak memory of a process: resident size on a CPU, allocated tensors on CUDA."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def in_process(module: str, job: dict[str, Any], side: str, folder: Path) -> float:
    """Run ``python -m module FILE side``, which prints MiB in its last line; ``FILE``, in
    ``folder``, holds the job."""
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", module, str(path), side]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def _status(name: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
