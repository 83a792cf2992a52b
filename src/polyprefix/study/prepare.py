"""From a configuration to what a run works with: data, method, backbone, identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polyprefix.config import ConfigError, DecodingConfig, RunConfig, digest
from polyprefix.distributed import world
from polyprefix.methods import Adapter, MethodConfig, check_frozen, method_config, method_of
from polyprefix.models import Backbone
from polyprefix.results import Progress
from polyprefix.study.common_folder import CommonFolder
from polyprefix.study.kept import Kept
from polyprefix.tasks import AnswerTask, TaskData
from polyprefix.training import peak_learning_rate

IDENTITY_VERSION = 2
"""Raised when the same configuration begins to give other results."""


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first computation.

    ``device``: where the run computes. A backbone that several processes will divide is elsewhere
    until then."""

    config: RunConfig
    method: MethodConfig
    learning_rate: float
    data: TaskData
    backbone: Backbone
    device: torch.device
    identity: dict[str, Any]
    folder: CommonFolder

    @property
    def adapter_type(self) -> type[Adapter]:
        return method_of(self.method)


def choose_device(name: str) -> torch.device:
    """``auto``: a CUDA device, Apple's, or the CPU, in that order.

    Raises:
        ConfigError: there is no such device.
    """
    here = world()
    if here.size > 1:
        if name not in ("auto", "cpu", here.device.type):
            raise ConfigError(
                f"key 'runtime.device': {name!r} is not for a run of several processes, each of "
                "which has a device of its own: give auto, cuda or cpu"
            )
        return torch.device("cpu") if name == "cpu" else here.device
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"key 'runtime.device': {name!r} cannot be used: {error}") from None
    return device


def prepare(config: RunConfig, progress: Progress, kept: Kept | None = None) -> Prepared:
    """Check the configuration, read the data, load the backbone and work out the identity.

    What is cheap to check comes first: a wrong key must not cost the loading of a model.

    Args:
        config: of the run.
        progress: told what there is.
        kept: what an earlier run has loaded, to be used again.

    Raises:
        PolyprefixError: whatever is wrong with configuration, data or model.
    """
    kept = kept or Kept()
    method = method_config(config.method)
    adapter_type = method_of(method)
    check_frozen(adapter_type, method, config.model)
    device = choose_device(config.runtime.device)
    check_offload(config, device, trains=adapter_type.trains)
    data = kept.data(config.task, config.seed, with_training=adapter_type.trains)
    sizes = sum(map(len, data.test.values()))
    progress.say(
        f"{data.task.title}: {len(data.train)} training and {len(data.dev)} dev examples in "
        f"{data.source_language}, {sizes} test examples in {len(data.test)} languages"
    )
    for note in data.notes:
        progress.say(f"note: {note}")
    if not isinstance(data.task, AnswerTask) and config.decoding != DecodingConfig():
        raise ConfigError(
            f"section 'decoding' has no effect: task {data.task.name!r} chooses among answers"
        )
    # What is divided must not have to fit on one device.
    backbone = kept.backbone(config.model, torch.device("cpu") if world().shards else device)
    rate = peak_learning_rate(config.train, method, backbone.hidden_size)
    identity = _identity(config, method, rate, data, backbone)
    short = digest(identity)[:12]
    folder = CommonFolder(Path(config.output) / f"{data.task.name}-{adapter_type.method}-{short}")
    device = device if backbone.device.type != device.type else backbone.device
    return Prepared(config, method, rate, data, backbone, device, identity, folder)


def check_offload(config: RunConfig, device: torch.device, *, trains: bool) -> None:
    """Refuse ``model.offload`` where it would save nothing.

    Raises:
        ConfigError: with the reason.
    """
    if config.model.offload == "none":
        return
    if device.type == "cpu":
        raise ConfigError(
            "key 'model.offload' has no effect on a CPU: all weights are in main memory"
        )
    if trains and not config.runtime.gradient_checkpointing:
        raise ConfigError(
            "key 'model.offload': a training keeps the weights of all adapted layers on the device "
            "until the backward pass, unless layers are computed again: set "
            "runtime.gradient_checkpointing to true"
        )


def _identity(
    config: RunConfig, method: MethodConfig, rate: float, data: TaskData, backbone: Backbone
) -> dict[str, Any]:
    """What affects the output: names of files and folders do not, their contents do."""
    task = config.task.model_dump(mode="json", exclude={"data", "train_data", "revision", "prompt"})
    written = isinstance(data.task, AnswerTask)
    train = config.train.model_dump(mode="json") | {"learning_rate": rate}
    plain = {"name", "revision", "trust_remote_code", "offload"}
    if config.model.quantization is None:  # as in runs that were made before there was any
        plain.add("quantization")
    model = config.model.model_dump(mode="json", exclude=plain)
    return {
        "version": IDENTITY_VERSION,
        "model": model | {"revision": backbone.revision or config.model.name},
        "method": {"name": method_of(method).method, **method.identity()},
        "task": task
        | {
            "name": data.task.name,  # not the path of the file that defines a task
            "languages": data.languages,
            "revision": data.revision,
            "prompts": {code: prompt.version for code, prompt in data.prompts.items()},
        },
        "decoding": config.decoding.model_dump(mode="json") if written else None,
        "train": train if method_of(method).trains else None,
        "seed": config.seed,
    }
