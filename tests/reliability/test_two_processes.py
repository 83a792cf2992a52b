"""Several processes on one folder: each run once, and the results of one process."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from polyprefix.config import RunConfig, RunLocked
from polyprefix.results import Silent
from polyprefix.study import prepare, run
from tests.reliability.conftest import command
from tests.reliability.outcome import outcomes
from tests.reliability.zygote import Zygote


def begun(output: str) -> Counter[str]:
    """How often each run was begun or continued, as a process told it."""
    joined = re.sub(r"\s*\n\s*", " ", output)
    return Counter(re.findall(r"(?:starting|continuing) \S*?(sib200-\w+-[0-9a-f]{12})", joined))


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_study_of_several_processes(
    zygote: Zygote, study_values: dict[str, Any], tmp_path: Path, processes: int
) -> None:
    values = study_values | {"grid": {"method.name": ["lora", "none"], "seed": [0, 1]}}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert zygote.run(command("study", values, tmp_path, alone)).status == 0
    argv = command("study", values, tmp_path, shared)
    started = [zygote.start(argv) for _ in range(processes)]
    lives = [process.end() for process in started]
    assert [life.status for life in lives] == [0] * processes, lives
    assert outcomes(shared) == outcomes(alone)
    assert len(outcomes(shared)) == 4
    total = sum((begun(life.output) for life in lives), Counter())
    assert total == dict.fromkeys(outcomes(alone), 1)


def test_two_processes_on_one_run(
    zygote: Zygote, run_values: dict[str, Any], tmp_path: Path
) -> None:
    """One does it; the other says that somebody does, or finds it done."""
    output = tmp_path / "runs"
    argv = command("run", run_values, tmp_path, output)
    lives = [process.end() for process in [zygote.start(argv) for _ in range(2)]]
    assert sorted(life.status for life in lives) in ([0, 0], [0, 2])
    for life in lives:
        assert "Traceback" not in life.output
        if life.status:
            assert "another process is working on" in life.output
    assert sum((begun(life.output) for life in lives), Counter()).total() == 1


def test_who_looks_at_a_run_does_not_stop_it(make: Callable[..., RunConfig]) -> None:
    """``study status`` asks for the lock for an instant; who really works has it for longer."""
    config = make("none", task={"languages": "en"})
    lock = prepare(config, Silent()).folder.lock
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = threading.Event()

    def look() -> None:
        with FileLock(lock):
            held.set()
            time.sleep(0.2)

    looker = threading.Thread(target=look)
    looker.start()
    held.wait()
    assert run(config)["status"] == "finished"
    looker.join()
    with FileLock(lock), pytest.raises(RunLocked):
        run(config, again=True)
