"""Small runs and studies as commands, and a process that executes them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.zygote import Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Zygote:
    return Zygote(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="session")
def run_values(tiny_folder: Path, sib_folder: Path) -> dict[str, Any]:
    """A run that writes often: ten checkpoints, four dev evaluations, three languages."""
    return {
        "model": {"name": str(tiny_folder)},
        "method": {"name": "prefix_tuning", "layers": "last:1"},
        "task": {"name": "sib200", "data": str(sib_folder)},
        "train": {"steps": 20, "batch_size": 8, "evaluate_every": 5},
        "runtime": {"checkpoint_every": 2, "keep_hidden_states": "disk"},
    }


@pytest.fixture(scope="session")
def study_values(run_values: dict[str, Any]) -> dict[str, Any]:
    """Three runs, of which one trains nothing."""
    base = {name: run_values[name] for name in ("model", "task")}
    train = {"steps": 6, "batch_size": 8, "evaluate_every": 2}
    return {
        "name": "trial",
        "title": "A trial",
        "base": base | {"train": train},
        "grid": [{"method.name": ["lora"], "seed": [0, 1]}, {"method.name": ["none"]}],
    }


def command(kind: str, values: dict[str, Any], place: Path, output: Path) -> list[str]:
    """A run's, a study's or that of runs that are trained together, with its file in ``place``."""
    path = place / f"{kind}.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    if kind == "run":
        return ["run", str(path), "--output", str(output)]
    if kind == "together":
        return ["run", str(path), "--output", str(output), "--sweep", "seed=0,1,2"]
    return ["study", "run", str(path), "--output", str(output), "--no-estimates"]


Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory with some options, again with others."""
    place = tmp_path / "disk"
    place.mkdir()

    def call(options: str) -> Path:
        again = ["-o", f"remount,{options}"] if os.path.ismount(place) else ["-o", options]
        arguments = ["mount", "-t", "tmpfs", *again, "tmpfs", str(place)]
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        except OSError as error:
            pytest.skip(f"mount: {error}")
        if done.returncode:
            pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
        return place

    yield call
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=60)
