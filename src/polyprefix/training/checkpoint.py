"""Checkpoints of a training in progress: safetensors for tensors, JSON for the rest.

A checkpoint is a folder that appears whole, by a rename, and is removed once a later one stands.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from polyprefix.config import RunError
from polyprefix.results import read_object, write_atomically, write_json, writing


@dataclass
class State:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        best_step: the step of the best dev evaluation so far; -1 before the first.
        best: its score, higher is better, then the tie-break.
        seconds: spent training, evaluations on the dev split included.
        scaler: fp16's loss scaling, empty without it.
    """

    step: int = 0
    best_step: int = -1
    best: tuple[float, float] = (float("-inf"), float("-inf"))
    seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    training: str,
    state: State,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write ``folder/<step>`` and remove the others. ``training``: what it is a checkpoint of."""
    target = folder / f"{state.step:08d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, inner in optimizer.state.get(value, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(inner)
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    plain = {name: value.contiguous().cpu() for name, value in tensors.items()}
    write_atomically(partial / "tensors.safetensors", save(plain))
    values = {"training": training, **asdict(state)}
    if state.best_step < 0:
        values["best"] = None  # minus infinity is not JSON
    write_json(partial / "state.json", values)
    shutil.rmtree(target, ignore_errors=True)
    with writing(target):
        os.replace(partial, target)
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(
    folder: Path,
    training: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> State:
    """Restore the newest checkpoint in place, or return the state of a beginning.

    Raises:
        RunError: it is damaged, or a checkpoint of another training.
    """
    found = sorted(path for path in folder.glob("[0-9]*") if path.is_dir())
    if not found:
        return State()
    newest = found[-1]
    damaged = f"checkpoint {str(newest)!r} cannot be read"
    anew = "remove it to start the training anew"
    try:
        values = read_object(newest / "state.json")
    except RunError as error:
        raise RunError(f"{damaged} ({error}); {anew}") from error
    if values.pop("training", None) != training:
        raise RunError(
            f"{str(newest)!r} is a checkpoint of another training (method, train.*, seed or "
            "examples differ): train into another folder, or remove it"
        )
    try:
        best = values.pop("best")
        state = State(**values)
        if best is not None:
            state.best = (float(best[0]), float(best[1]))
        tensors = load_file(newest / "tensors.safetensors")
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(tensors[f"parameter.{name}"])
        for name, value in parameters.items():
            inner = {
                key.split(".", 2)[1]: tensor
                for key, tensor in tensors.items()
                if key.startswith("optimizer.") and key.split(".", 2)[2] == name
            }
            optimizer.state[value] = {
                # AdamW counts its steps on the CPU
                key: tensor if key == "step" else tensor.to(value.device)
                for key, tensor in inner.items()
            }
        torch.set_rng_state(tensors["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
    except (OSError, SafetensorError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{damaged} ({error}); {anew}") from error
    return state
