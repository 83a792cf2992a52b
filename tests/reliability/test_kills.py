"""SIGKILL at any moment: what continues ends with the files of what was never interrupted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.conftest import command
from tests.reliability.outcome import close, marks, outcomes, runs_in, steps_kept
from tests.reliability.zygote import Life, Zygote

POINTS = 20
"""Kills of a run, of a study, and of runs that are trained together: half at moments of their
lives, half before one of their writes."""


class Trial:
    """A command, what it leaves when nothing happens, and how long and how full its life is."""

    def __init__(self, zygote: Zygote, kind: str, values: dict[str, Any], place: Path) -> None:
        self.zygote, self.kind, self.values, self.place = zygote, kind, values, place
        whole = place / "whole"
        self.life = zygote.run(self.command(whole), watch=whole)
        assert self.life.status == 0, self.life.output
        self.expected = outcomes(whole)

    def command(self, output: Path) -> list[str]:
        return command(self.kind, self.values, self.place, output)

    def goes_on(self, output: Path, killed: Life, where: str) -> None:
        """Continue, and compare."""
        before, kept = marks(output), steps_kept(output)
        again = self.zygote.run(self.command(output))
        assert again.status == 0, (where, killed, again)
        assert "Traceback" not in again.output, (where, again.output)
        found = outcomes(output)
        assert found.keys() == self.expected.keys(), where
        for name, expected in self.expected.items():
            if self.kind == "together":
                assert close(found[name], expected), (where, name)
            else:
                assert found[name] == expected, (where, name)
        after = marks(output)
        assert {name: after[name] for name in before} == before, f"{where}: done twice"
        for path in runs_in(output):
            log = found[path.name].get("log.jsonl", [])
            assert [entry["step"] for entry in log] == list(range(1, len(log) + 1)), where
            lines = (path / "log.jsonl").read_bytes().splitlines() if log else []
            steps = kept.get(path.name, [])
            assert lines[: len(steps)] == steps, f"{where}: steps done twice"


KINDS = ["run", "study", pytest.param("together", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=KINDS)
def trial(
    request: pytest.FixtureRequest,
    zygote: Zygote,
    run_values: dict[str, Any],
    study_values: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trial:
    values = study_values if request.param == "study" else run_values
    return Trial(zygote, request.param, values, tmp_path_factory.mktemp(request.param))


def test_the_life_of_a_run_is_full_of_writes(trial: Trial) -> None:
    """Or else a kill before one of them says little."""
    assert trial.life.writes > 150
    assert len(trial.expected) == (1 if trial.kind == "run" else 3)
    for files in trial.expected.values():
        assert {"predictions/eng_Latn.jsonl", "adapter/polyprefix.safetensors"} <= files.keys()
        assert not [name for name in files if name.startswith(".") or "checkpoint" in name]


def test_a_kill_before_one_of_its_writes(trial: Trial, tmp_path: Path) -> None:
    """In the middle of training and while the last file is written; see below for more."""
    for number, kill_at in enumerate((trial.life.writes // 2, trial.life.writes - 2)):
        output = tmp_path / str(number)
        killed = trial.zygote.run(trial.command(output), watch=output, kill_at=kill_at)
        assert killed.status == -9, killed
        trial.goes_on(output, killed, f"write {kill_at}")


@pytest.mark.slow
def test_kills_before_writes_at_random(trial: Trial, tmp_path: Path) -> None:
    source = random.Random(7)
    for number in range(POINTS // 2):
        part = (number + source.random()) / (POINTS // 2)
        kill_at = int(part * trial.life.writes)
        output = tmp_path / str(number)
        killed = trial.zygote.run(trial.command(output), watch=output, kill_at=kill_at)
        assert killed.status == -9, killed
        trial.goes_on(output, killed, f"write {kill_at} of {trial.life.writes}")


@pytest.mark.slow
def test_kills_at_random_moments(trial: Trial, tmp_path: Path) -> None:
    """Loading, training, evaluation, the record. The process may be quicker than the last one."""
    source = random.Random(11)
    killed_lives = 0
    # The first life reads files that later ones find in memory.
    whole = trial.zygote.run(trial.command(tmp_path / "whole"))
    lasts = min(trial.life.seconds, whole.seconds)
    for number in range(POINTS // 2):
        seconds = (number + source.random()) / (POINTS // 2) * lasts
        output = tmp_path / str(number)
        life = trial.zygote.start(trial.command(output)).end(seconds)
        assert life.status in (-9, 0), life
        killed_lives += life.status == -9
        trial.goes_on(output, life, f"{seconds:.2f} s of {lasts:.2f}")
    assert killed_lives > POINTS // 4


@pytest.mark.slow
def test_killed_again_and_again(trial: Trial, tmp_path: Path) -> None:
    """One folder, and no life that is long enough for all of it."""
    source = random.Random(13)
    output, lives = tmp_path / "runs", 0
    # A life has to reach the first checkpoint: a study writes before, three runs thrice as much.
    at_once = {"run": 1, "study": 2, "together": 3}[trial.kind]
    while True:
        before = marks(output)
        allowed = at_once * source.randrange(25, 70)
        life = trial.zygote.run(trial.command(output), watch=output, kill_at=allowed)
        after = marks(output)
        assert {name: after[name] for name in before} == before, f"life {lives}: done twice"
        lives += 1
        if life.status == 0:
            break
        assert life.status == -9, life
        assert lives < 100
    assert lives > 4
    trial.goes_on(output, life, f"after {lives} lives")
