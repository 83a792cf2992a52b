"""What a run asks a cluster for: from its configuration, the engine's keys, and a probe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ByteSize, NonNegativeFloat, NonNegativeInt, PositiveFloat

from polyprefix.config import ConfigError, Spec, StudyRun
from polyprefix.results import StudyFolder
from polyprefix.study.probe import find_probe, probe_key

SPARE = 1.25
"""Of the memory that a probe has measured: a run meets longer texts than the first ones."""


class NeedsConfig(Spec):
    """Keys of every engine that hands runs to other machines.

    ``cpus``, ``gpus``: of a run. Without ``gpus``, what ``runtime.device`` says: one for ``cuda``.
    ``memory``: of a run, with its unit (``12GiB``). Without it, on a CPU what a probe measured and
    a quarter more, where there is a probe; else none is asked for.
    ``retries``: of a run whose worker died.
    ``patience``: seconds to wait for a run that another process holds, after all others, and for
    files that another machine has written.
    """

    cpus: PositiveFloat = 1
    gpus: NonNegativeFloat | None = None
    memory: ByteSize | None = None
    retries: NonNegativeInt = 2
    patience: NonNegativeFloat = 120


@dataclass(frozen=True)
class Needs:
    """What a run asks for.

    Attributes:
        cpus, gpus: how many.
        memory: bytes; ``None``: nothing is known.
        seconds: that it will take, by a probe on this machine.
    """

    cpus: float
    gpus: float
    memory: int | None
    seconds: float | None

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU", f"{self.gpus:g} GPU"]
        if self.memory is not None:
            parts.append(f"{self.memory / 2**30:.2f} GiB")
        return ", ".join(parts)


def needs_of(
    run: StudyRun, folder: StudyFolder, config: NeedsConfig, *, auto_gpus: bool = False
) -> Needs:
    """What a run asks for.

    Args:
        run: the run.
        folder: the study's, with the probes there are.
        config: what the user has said.
        auto_gpus: whether ``runtime.device: auto`` will find a GPU.

    Raises:
        ConfigError: device and GPUs do not go together.
    """
    device = run.config.runtime.device
    kind, _, index = device.partition(":")
    if index not in ("", "0"):
        raise ConfigError(
            f"key 'runtime.device': {device!r} is a GPU of one machine; on a cluster each run is "
            "given its own: --set runtime.device=cuda"
        )
    gpus = config.gpus
    if gpus is None:
        gpus = 1.0 if kind == "cuda" or (kind == "auto" and auto_gpus) else 0.0
    if kind == "cuda" and not gpus:
        raise ConfigError("--engine-set gpus=0: key 'runtime.device' is 'cuda', which needs one")
    if gpus and kind not in ("cuda", "auto"):
        raise ConfigError(
            f"--engine-set gpus={gpus:g} has no effect: key 'runtime.device' is {device!r}"
        )
    probe = find_probe(folder, probe_key(run.config, "cuda" if gpus else "cpu"))
    memory = None if config.memory is None else int(config.memory)
    if memory is None and probe is not None and probe.memory is not None and not gpus:
        memory = math.ceil(probe.memory * SPARE)  # of a GPU's run a probe measures the GPU's memory
    seconds = None if probe is None else probe.seconds(run.config)
    return Needs(config.cpus, gpus, memory, seconds)
