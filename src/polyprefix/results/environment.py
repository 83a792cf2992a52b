"""What a run ran on and with, for its record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = (
    "polyprefix",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "torchao",
    "datasets",
    "safetensors",
    "numpy",
)


def package_versions() -> dict[str, str | None]:
    """Installed versions of what can change a number; ``None``: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def source_commit() -> str | None:
    """The commit of Polyprefix's source, with ``+changes`` if it was edited since; ``None`` for an
    installed package."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    )
    return done.stdout.strip()


def machine() -> dict[str, str | int | None]:
    """System and processor."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }


def forget_peak_memory() -> None:
    """Let :func:`peak_memory` begin anew at what is in use now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Largest resident size of this process since it began, or since
    :func:`forget_peak_memory`, in bytes; ``None`` where it cannot be known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says how much memory a container may have (control groups, version 2)."""


def free_memory() -> int:
    """Bytes of memory that this process can still have without swapping."""
    free = int(psutil.virtual_memory().available)
    try:
        most = (CONTROL_GROUP / "memory.max").read_text().strip()
        taken = int((CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # not in a container, or not Linux
        return free
    return free if most == "max" else max(0, min(free, int(most) - taken))
