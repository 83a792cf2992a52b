"""Runs: what they leave, how they go on after a kill, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from polyprefix.config import PolyprefixError, RunConfig, RunError
from polyprefix.methods import methods
from polyprefix.results import RunFolder, Silent, read_json
from polyprefix.study import run
from tests.conftest import ROOT


class Recorder(Silent):
    """Keeps what was said, and the units of work done."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.units = 0

    def advance(self, units: int = 1, note: str = "") -> None:
        self.units += units

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("method", sorted(methods()))
def test_a_run_of_every_method(make: Callable[..., RunConfig], method: str) -> None:
    progress = Recorder()
    record = run(make(method), progress=progress)
    folder = RunFolder(Path(record["config"]["output"]) / record["id"])
    assert folder.record()["status"] == "finished"
    assert list(record["scores"]) == ["eng_Latn", "deu_Latn", "swh_Latn"]
    for code, scores in record["scores"].items():
        rows = folder.predictions(code)
        assert rows is not None
        assert len(rows) == scores["n"] == 21
        assert sum(r["label"] == r["prediction"] for r in rows) / 21 == scores["accuracy"]
        assert all(len(row["logprobs"]) == 7 for row in rows)
    assert (folder.adapter / "polyprefix.safetensors").is_file()
    assert not (folder.path / "checkpoints").exists()
    assert any("trainable parameters" in line for line in progress.lines)
    if method != "none":
        log = (folder.path / "log.jsonl").read_text().splitlines()
        assert len(log) == record["training"]["steps"] == 6
    for key in ("versions", "identity", "machine", "started", "finished", "peak_memory_bytes"):
        assert record[key]


def test_a_run_that_keeps_hidden_states_has_the_same_scores(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """And the same identity; a file in its folder is there while it trains."""

    def options(where: str) -> dict[str, Any]:
        return {
            "options": {"layers": "last:1"},
            "runtime": {"keep_hidden_states": where},
            "train": {"steps": 7},  # of 8 examples: two epochs
            "output": str(tmp_path / where),
        }

    plain = run(make(**options("never")))
    for where in ("memory", "disk", "auto"):
        progress = Recorder()
        record = run(make(**options(where)), progress=progress)
        assert record["id"] == plain["id"]
        [said] = [line for line in progress.lines if line.startswith("hidden states")]
        assert said.startswith("hidden states below layer 1 of 28 texts: 0.0")
        assert said.endswith(f"{record['id']}/hidden_states.bin" if where == "disk" else "memory")
        folder = RunFolder(tmp_path / where / record["id"])
        assert not (folder.path / "hidden_states.bin").exists()
        for code, scores in record["scores"].items():
            assert scores == pytest.approx(plain["scores"][code], abs=1e-4)


def test_a_finished_run_is_not_repeated(make: Callable[..., RunConfig]) -> None:
    first = run(make())
    progress = Recorder()
    assert run(make(), progress=progress) == first
    assert progress.units == 0
    again = run(make(), again=True)
    for volatile in ("started", "finished", "training", "evaluation", "peak_memory_bytes"):
        first.pop(volatile), again.pop(volatile)
    assert again == first


def test_identity_is_what_affects_the_output(
    make: Callable[..., RunConfig], tmp_path: Path, sib_folder: Path
) -> None:
    import shutil

    from polyprefix.study import prepare

    def identity(config: RunConfig) -> str:
        return prepare(config, Silent()).folder.id

    base = identity(make())
    assert identity(make(runtime={"micro_batch_tokens": 64, "device": "cpu"})) == base
    assert identity(make(runtime={"keep_hidden_states": "disk"})) == base
    moved = tmp_path / "elsewhere"
    shutil.copytree(sib_folder, moved)
    assert identity(make(task={"data": str(moved)})) == base
    assert identity(make(output=str(tmp_path / "other"))) == base
    test_file = moved / "data" / "annotated" / "swh_Latn" / "test.tsv"
    test_file.write_text(test_file.read_text().replace("leo", "sasa"))
    different = [
        make(seed=1),
        make(train={"steps": 7}),
        make(options={"length": 5}),
        make(task={"test_samples": 5}),
        make(task={"languages": "de"}),
        make(task={"data": str(moved)}),
        make("lora"),
    ]
    found = [identity(config) for config in different]
    assert len({base, *found}) == len(different) + 1


# Kills -------------------------------------------------------------------------------------------


def command(config: RunConfig, folder: Path) -> list[str]:
    path = folder / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json")))  # JSON is YAML
    return [sys.executable, "-m", "polyprefix", "run", str(path), "--quiet"]


def killed(arguments: list[str], ready: Callable[[], bool]) -> None:
    """Start a run and SIGKILL it once ``ready``."""
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("place", ["training", "evaluation"])
def test_a_killed_run_goes_on(make: Callable[..., RunConfig], tmp_path: Path, place: str) -> None:
    values: dict[str, Any] = {"train": {"steps": 300, "evaluate_every": 30}}
    if place == "evaluation":  # slow enough to be caught in the middle
        values = {"train": {"steps": 6}, "runtime": {"evaluation_batch_tokens": 1}}
    whole = make(**values, output=str(tmp_path / "whole"))
    parts = make(**values, output=str(tmp_path / "parts"))
    expected = RunFolder(tmp_path / "whole" / run(whole)["id"])
    folder = RunFolder(tmp_path / "parts" / expected.id)

    def training() -> bool:
        return len(list((folder.path / "checkpoints").glob("[0-9]*"))) > 0

    def evaluation() -> bool:
        return folder.predictions_path("eng_Latn").exists()

    killed(command(parts, tmp_path), training if place == "training" else evaluation)
    assert folder.record()["status"] == "running"
    kept = folder.predictions_path("eng_Latn")
    before = kept.stat().st_mtime_ns if kept.exists() else None
    assert not folder.predictions_path("swh_Latn").exists()

    run(parts)
    assert folder.record()["scores"] == expected.record()["scores"]
    if before is not None:
        assert kept.stat().st_mtime_ns == before  # not done twice
    for code in ("eng_Latn", "deu_Latn", "swh_Latn"):
        assert folder.predictions(code) == expected.predictions(code)
    ours = load_file(folder.adapter / "polyprefix.safetensors")
    theirs = load_file(expected.adapter / "polyprefix.safetensors")
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_two_processes_on_one_run(make: Callable[..., RunConfig]) -> None:
    from polyprefix.study import prepare

    folder = prepare(make(), Silent()).folder
    folder.path.parent.mkdir(parents=True)
    with FileLock(folder.lock), pytest.raises(RunError, match="another process"):
        run(make())


def test_a_failed_run_says_why_and_can_go_on(make: Callable[..., RunConfig]) -> None:
    config = make(train={"steps": 4, "learning_rate": 1e25})
    with pytest.raises(RunError, match=r"train\.learning_rate"):
        run(config)
    [path] = [p for p in Path(config.output).iterdir() if p.is_dir()]
    record = RunFolder(path).record()
    assert record["status"] == "failed"
    assert "learning_rate" in record["error"]


def test_few_shot(make: Callable[..., RunConfig]) -> None:
    record = run(make(task={"train_per_class": 2, "test_samples": 9, "languages": "sw"}))
    sizes = record["task"]["sizes"]
    assert sizes["train"] == 14
    assert sizes["test"] == {"eng_Latn": 9, "swh_Latn": 9}


def test_bad_rows_stop_a_run_or_are_counted(
    make: Callable[..., RunConfig], sib_folder: Path, tmp_path: Path
) -> None:
    import shutil

    data = tmp_path / "broken"
    shutil.copytree(sib_folder, data)
    path = data / "data" / "annotated" / "deu_Latn" / "test.tsv"
    path.write_text(path.read_text() + "99\tcooking\tSuppe\n")
    with pytest.raises(PolyprefixError, match=r"test\.tsv.*23.*cooking"):
        run(make(task={"data": str(data)}))
    record = run(make(task={"data": str(data), "bad_rows": "skip"}))
    assert len(record["task"]["bad_rows"]) == 1


def test_config_json_repeats_the_run(make: Callable[..., RunConfig]) -> None:
    record = run(make())
    path = Path(record["config"]["output"]) / record["id"] / "config.json"
    config = RunConfig.read(read_json(path))
    progress = Recorder()
    assert run(config, progress=progress)["id"] == record["id"]
    assert progress.units == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("record.json", "{", "damaged"),
        ("record.json", '{"format": 99}', "format 99"),
        ("predictions/deu_Latn.jsonl", '{"id": 1\n', "line 1 is damaged"),
    ],
)
def test_damaged_files_are_named(
    make: Callable[..., RunConfig], name: str, content: str, message: str
) -> None:
    record = run(make())
    folder = Path(record["config"]["output"]) / record["id"]
    (folder / name).write_text(content)
    if name.startswith("predictions"):
        values = read_json(folder / "record.json")
        (folder / "record.json").write_text(json.dumps(values | {"status": "running"}))
    with pytest.raises(RunError, match=message) as caught:
        run(make())
    assert name in str(caught.value)
