"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, written atomically."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW


def save(folder: Path, model: nn.Module, optimizer: AdamW, step: int, identity: str) -> None:
    """Replace the checkpoint in `folder`; a crash while writing leaves the former one."""
    partial = folder.with_name(folder.name + ".partial")
    former = folder.with_name(folder.name + ".former")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    names = [name for name, _ in model.named_parameters()]
    save_file(dict(model.named_parameters()), partial / "model.safetensors")
    state: dict[str, Tensor] = {}
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            state[f"{index}.{key}"] = torch.as_tensor(value).contiguous()
    save_file(state, partial / "optimizer.safetensors")
    note = {"step": step, "identity": identity, "parameters": names}
    (partial / "state.json").write_text(json.dumps(note, indent=1), encoding="utf-8")
    shutil.rmtree(former, ignore_errors=True)
    if folder.exists():
        os.rename(folder, former)
    os.rename(partial, folder)
    shutil.rmtree(former, ignore_errors=True)


def load(folder: Path, model: nn.Module, optimizer: AdamW, identity: str) -> int:
    """Restore model and optimizer; return the number of steps done, 0 without a checkpoint.

    Raises:
        ValueError: the checkpoint is of a run with other settings.
    """
    former = folder.with_name(folder.name + ".former")
    if not folder.exists() and former.exists():  # killed between the two renames
        os.rename(former, folder)
    if not folder.exists():
        return 0
    note = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if note["identity"] != identity:
        raise ValueError(
            f"{folder} belongs to a run with other settings ({note['identity']}, not "
            f"{identity}): remove it or choose another --work"
        )
    weights = load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        parameter.data.copy_(weights[name])
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = value
    whole = optimizer.state_dict()
    whole["state"] = entries
    optimizer.load_state_dict(whole)
    return int(note["step"])
