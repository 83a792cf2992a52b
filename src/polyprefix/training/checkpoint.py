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
from polyprefix.distributed import put, whole, world
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
    """Write ``folder/<step>`` and remove the others. ``training``: what it is a checkpoint of.

    It is the same however many processes there are, but for the random state of each."""
    tensors: dict[str, torch.Tensor] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        value = whole(value)
        if world().main:
            tensors[name] = value.contiguous().cpu()

    for name, value in parameters.items():
        keep(f"parameter.{name}", value.detach())
    for name, value in parameters.items():
        for key, inner in optimizer.state.get(value, {}).items():
            keep(f"optimizer.{key}.{name}", torch.as_tensor(inner))
    for rank, states in enumerate(world().gather(_random_states())):
        tensors |= {_of(name, rank): value for name, value in states.items()}
    world().first(lambda: _write(folder, training, state, tensors))


def _random_states() -> dict[str, torch.Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _of(name: str, rank: int) -> str:
    """The name of a process's random state."""
    return f"{name}.{rank}" if rank else name


def _write(folder: Path, training: str, state: State, tensors: dict[str, torch.Tensor]) -> None:
    target = folder / f"{state.step:08d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_atomically(partial / "tensors.safetensors", save(tensors))
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

    Another number of processes may have written it; masks of dropout are then others.

    Raises:
        RunError: it is damaged, or a checkpoint of another training.
    """
    tensors: dict[str, torch.Tensor] = {}
    shapes = {name: value.shape for name, value in parameters.items()}
    # Process 0 reads it; the others are handed their parts.
    read = world().first(lambda: _read(folder, training, shapes, tensors))
    if read is None:
        return State()
    state, small, names = read
    for name, value in parameters.items():
        put(value.detach(), tensors.get(f"parameter.{name}"))
        inner: dict[str, torch.Tensor] = {}
        for key in names[name]:
            stored = f"optimizer.{key}.{name}"
            if stored in small:  # AdamW counts its steps on the CPU
                inner[key] = small[stored]
            else:
                inner[key] = torch.zeros_like(value.detach())
                put(inner[key], tensors.get(stored))
        optimizer.state[value] = inner
    own = _of("random.cpu", world().rank)
    if own in small:
        torch.set_rng_state(small[own])
    else:
        torch.manual_seed(torch.initial_seed() + state.step)
    own = _of("random.cuda", world().rank)
    if torch.cuda.is_available() and own in small:
        torch.cuda.set_rng_state(small[own])
    return state


def _read(
    folder: Path,
    training: str,
    shapes: Mapping[str, torch.Size],
    tensors: dict[str, torch.Tensor],
) -> tuple[State, dict[str, torch.Tensor], dict[str, list[str]]] | None:
    """The newest checkpoint: its state, the tensors that every process needs, and the optimizer's
    keys for each parameter. Those that parameters are like are put into ``tensors``."""
    found = sorted(path for path in folder.glob("[0-9]*") if path.is_dir())
    if not found:
        return None
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
    small: dict[str, torch.Tensor] = {}
    names: dict[str, list[str]] = {name: [] for name in shapes}
    try:
        best = values.pop("best")
        state = State(**values)
        if best is not None:
            state.best = (float(best[0]), float(best[1]))
        for stored, tensor in load_file(newest / "tensors.safetensors").items():
            kind, _, rest = stored.partition(".")
            key, _, name = rest.partition(".")
            if kind == "optimizer":
                names[name].append(key)
            is_small = kind == "random" or (kind == "optimizer" and key == "step")
            (small if is_small else tensors)[stored] = tensor
        for name, shape in shapes.items():
            if tensors[f"parameter.{name}"].shape != shape:
                raise KeyError(f"parameter.{name}: not of shape {tuple(shape)}")
        torch.Generator().set_state(small["random.cpu"])
    except (OSError, SafetensorError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{damaged} ({error}); {anew}") from error
    return state, small, names
