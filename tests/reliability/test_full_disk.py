"""A disk that fills up, a folder that cannot be written to: an error, and nothing that was finished
is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.conftest import command
from tests.reliability.outcome import marks, outcomes
from tests.reliability.zygote import Life, Zygote

SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 200, 256, 320)
"""Of a disk, in KB: from nothing to nearly enough."""


def stopped(life: Life) -> bool:
    """Whether a command was stopped by the disk, and said so."""
    assert "Traceback" not in life.output, life.output
    if life.status == 0:
        return False
    assert life.status == 2, life
    assert "No space left on device" in life.output, life.output
    return True


@pytest.fixture(scope="module")
def expected(
    zygote: Zygote,
    run_values: dict[str, Any],
    study_values: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """The outcomes of a run and of a study that nothing happens to."""
    found = {}
    for kind, values in (("run", run_values), ("study", study_values)):
        place = tmp_path_factory.mktemp(kind)
        assert zygote.run(command(kind, values, place, place / "runs")).status == 0
        found[kind] = outcomes(place / "runs")
    return found


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        pytest.param("run", SIZES[5:6], id="run"),
        pytest.param("study", SIZES[7:8], id="study"),
        pytest.param("run", SIZES, id="run of every size", marks=pytest.mark.slow),
        pytest.param("study", SIZES, id="study of every size", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk(
    kind: str,
    sizes: tuple[int, ...],
    zygote: Zygote,
    run_values: dict[str, Any],
    study_values: dict[str, Any],
    expected: dict[str, dict[str, Any]],
    mount: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    values = run_values if kind == "run" else study_values
    stops = 0
    for size in sizes:
        disk = mount("size=64m")
        output = disk / f"of-{size}"
        output.mkdir()
        used = sum(p.stat().st_blocks * 512 for p in disk.rglob("*") if p.is_file()) // 1024
        mount(f"size={used + size}k")
        arguments = command(kind, values, tmp_path, output)
        life = zygote.run(arguments)
        before = marks(output)
        if stopped(life):
            stops += 1
            assert stopped(zygote.run(arguments))  # and it is told again
            mount("size=64m")
            again = zygote.run(arguments)
            assert again.status == 0, (size, again.output)
        after = marks(output)
        assert {name: after[name] for name in before} == before, size
        assert outcomes(output) == expected[kind], size
    assert stops > len(sizes) // 2


@pytest.mark.parametrize("largest", [6_000, 10_000, 30_000])
def test_a_file_that_may_not_grow(
    largest: int,
    zygote: Zygote,
    run_values: dict[str, Any],
    expected: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Where nothing can be mounted: a limit on the size of files stops a write in its middle. The
    files that are too large are the record, a checkpoint and hidden states."""
    output = tmp_path / "limited"
    arguments = command("run", run_values, tmp_path, output)
    life = zygote.run(arguments, largest=largest)
    assert life.status == 2, life
    assert "Traceback" not in life.output
    assert "File too large" in life.output
    assert str(output) in life.output
    assert not list(output.rglob("*.part"))
    assert zygote.run(arguments).status == 0
    assert outcomes(output) == expected["run"]


@pytest.mark.parametrize("kind", ["run", "study"])
@pytest.mark.parametrize("why", ["it is a file", "it belongs to others"])
def test_a_folder_that_cannot_be_made(
    why: str,
    kind: str,
    zygote: Zygote,
    run_values: dict[str, Any],
    study_values: dict[str, Any],
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    if why == "it is a file":
        place.write_text("here")
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        place.mkdir(0o555)
    values = run_values if kind == "run" else study_values
    life = zygote.run(command(kind, values, tmp_path, place / "runs"))
    assert life.status == 2, life
    assert "Traceback" not in life.output
    assert str(place) in life.output
    assert re.search(r"Not a directory|Permission denied", life.output)
    assert place.is_dir() or place.read_text() == "here"


def test_a_folder_that_cannot_be_written_to(
    zygote: Zygote,
    run_values: dict[str, Any],
    study_values: dict[str, Any],
    mount: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Read-only from the start, and in the middle of a study."""
    disk = mount("size=64m")
    run, study = disk / "run", disk / "study"
    few = study_values | {"grid": [{"method.name": ["none"]}]}
    assert zygote.run(command("study", few, tmp_path, study)).status == 0
    before = marks(study)
    mount("ro")
    for kind, values, output in (("run", run_values, run), ("study", study_values, study)):
        life = zygote.run(command(kind, values, tmp_path, output))
        assert life.status == 2, life
        assert "Traceback" not in life.output
        assert "Read-only file system" in life.output
        assert str(output) in life.output
    mount("rw,size=64m")
    assert zygote.run(command("study", study_values, tmp_path, study)).status == 0
    after = marks(study)
    assert {name: after[name] for name in before} == before
    assert len(outcomes(study)) == 3
