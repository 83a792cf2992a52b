"""Studies: what is run, what survives, what the plan and the report say."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from rich.console import Console
from safetensors.torch import load_file

from polyprefix.analysis import LabelledRun, settings
from polyprefix.cli.study_tables import show_plan
from polyprefix.config import ConfigError, Unwritable
from polyprefix.methods import methods
from polyprefix.models import load_backbone
from polyprefix.results import RunFolder, Silent
from polyprefix.study import Kept, plan_study, prepare, run, run_study
from tests.conftest import ROOT, Cli
from tests.trial_study import Make, Recorder, maker, scores, trial_values


@pytest.fixture
def values(tiny_folder: Path, sib_folder: Path) -> dict[str, Any]:
    return trial_values(tiny_folder, sib_folder)


@pytest.fixture
def make(values: dict[str, Any], tmp_path: Path) -> Make:
    return maker(values, tmp_path)


# Execution ---------------------------------------------------------------------------------------


def test_all_runs_then_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def counted(*arguments: Any) -> Any:
        loaded.append(1)
        return load_backbone(*arguments)

    monkeypatch.setattr("polyprefix.study.kept.load_backbone", counted)
    study, folder = make({"method.name": ["lora", "prefix_tuning"], "seed": [0, 1]})
    progress = Recorder()
    assert run_study(study, folder, progress=progress) == {"finished": 4}
    assert progress.began() == 4
    assert len(loaded) == 1  # the backbone, for all of them
    again = Recorder()
    assert run_study(study, folder, progress=again) == {"finished": 4}
    assert again.began() == 0
    anew = Recorder()
    run_study(study, folder, again=True, progress=anew)
    assert anew.began() == 4


def test_a_shared_backbone_changes_nothing(make: Make, tmp_path: Path) -> None:
    """Every method after every other on one backbone gives what it gives on its own."""
    names = sorted(methods())
    study, folder = make({"method.name": [*names, names[0]], "seed": [0, 1]})
    run_study(study, folder)
    for item in study.runs:
        alone = run(item.config.model_copy(update={"output": str(tmp_path / "alone")}))
        record = folder.record(item.key)
        assert record is not None
        assert record["scores"] == alone["scores"]
        assert record["id"] == alone["id"]
        places = (folder.path, tmp_path / "alone")
        files = [place / record["id"] / "adapter" / "polyprefix.safetensors" for place in places]
        ours, theirs = map(load_file, files)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_the_same_run_is_run_once(make: Make) -> None:
    """Configurations that differ in words only: the learning rate's default, said or not."""
    study, folder = make()
    rate = prepare(study.runs[0].config, Silent()).learning_rate
    both, folder = make({"method.name": ["lora"], "train.learning_rate": [None, rate]})
    assert len(both.runs) == 2
    assert run_study(both, folder) == {"finished": 2}
    assert len(list(folder.path.glob("sib200-*"))) == 1


def test_a_failing_run_is_recorded_and_the_rest_goes_on(make: Make) -> None:
    grid = {"method.name": ["lora"], "train.learning_rate": [1e25, 1e-3]}
    study, folder = make(grid)
    assert run_study(study, folder) == {"failed": 1, "finished": 1}
    assert "train.learning_rate" in (folder.error(study.runs[0].key) or "")
    progress = Recorder()
    assert run_study(study, folder, progress=progress)["failed"] == 1
    assert progress.began() == 0  # not without being asked
    run_study(study, folder, retry_failed=True, progress=progress)
    assert progress.began() == 1


def test_a_run_that_cannot_begin_is_recorded_too(make: Make, tmp_path: Path) -> None:
    models = [str(tmp_path / "nowhere"), make()[0].runs[0].config.model.name]
    study, folder = make({"model.name": models, "seed": [0, 1], "method.name": ["none"]})
    assert run_study(study, folder) == {"failed": 2, "finished": 2}
    assert all("does not exist" in (folder.error(item.key) or "") for item in study.runs[:2])


def test_a_bug_keeps_its_traceback(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a bug")

    study, folder = make({"method.name": ["none"]})
    with monkeypatch.context() as patch:
        patch.setattr("polyprefix.study.fit.predict", bug)
        assert run_study(study, folder) == {"failed": 1}
    (path,) = (folder.path / "study" / "runs").iterdir()
    entry = json.loads(path.read_text())
    assert "ZeroDivisionError" in entry["error"]
    assert "in bug" in entry["traceback"]
    assert run_study(study, folder, retry_failed=True) == {"finished": 1}
    assert folder.error(study.runs[0].key) is None


def test_a_full_disk_stops_the_study_and_fails_no_run(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = make({"method.name": ["lora", "none"]})
    whole = os.fsync
    written = 0

    def full(handle: int) -> None:
        nonlocal written
        written += 1
        if written > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(handle)

    with monkeypatch.context() as patch:
        patch.setattr("polyprefix.results.files.os.fsync", full)
        with pytest.raises(Unwritable, match=r"No space left.*the same command continues"):
            run_study(study, folder)
    assert {folder.state(item.key) for item in study.runs} == {"stopped", "missing"}
    assert run_study(study, folder) == {"finished": 2}


def test_a_wrong_method_is_told_before_the_first_run(make: Make) -> None:
    study, folder = make({"method": [{"name": "lora"}, {"name": "lora", "rnak": 2}]})
    with pytest.raises(ConfigError, match=r"trial\.yaml: run method\.rnak=2.*rank"):
        run_study(study, folder)
    assert not folder.path.exists()


# Several processes, kills ------------------------------------------------------------------------


def test_a_run_that_another_process_has_is_left_to_it(make: Make) -> None:
    study, folder = make({"method.name": ["lora", "none"]})
    prepared = prepare(study.runs[0].config, Silent())
    prepared.folder.path.parent.mkdir(parents=True)
    progress = Recorder()
    with FileLock(prepared.folder.lock):
        found = run_study(study, folder, progress=progress)
        assert found == {"running": 1, "finished": 1}
        assert run_study(study, folder) == found
    assert any("left for the end" in line for line in progress.lines)
    assert folder.state(study.runs[0].key) == "stopped"
    assert run_study(study, folder) == {"finished": 2}


def command(values: dict[str, Any], folder: Path, *options: str) -> subprocess.Popen[bytes]:
    path = folder / "trial.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    arguments = ["run", str(path), "--output", str(folder / "study"), "--no-estimates", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "polyprefix", "study", *arguments, *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_two_processes_share_a_study(make: Make, values: dict[str, Any], tmp_path: Path) -> None:
    values["grid"] = {"method.name": ["lora", "none"], "seed": [0, 1, 2]}
    processes = [command(values, tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    study, folder = make(values["grid"])
    alone, place = make(values["grid"], output="alone")
    run_study(alone, place)
    assert scores(study, folder) == scores(alone, place)
    assert None not in scores(study, folder)


@pytest.mark.parametrize("place", ["training", "between"])
def test_a_killed_study_goes_on(
    make: Make, values: dict[str, Any], tmp_path: Path, place: str
) -> None:
    values["base"]["train"] = {"steps": 60, "batch_size": 8, "evaluate_every": 6}
    study, folder = make()
    whole, beside = make(output="whole")
    run_study(whole, beside)
    process = command(values, tmp_path)
    deadline = time.monotonic() + 240
    runs = folder.path

    def ready() -> bool:
        if place == "training":
            return any(runs.glob("*/checkpoints/[0-9]*"))
        return any(
            json.loads(p.read_text())["status"] == "finished" for p in runs.glob("*/record.json")
        )

    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    states = [folder.state(item.key) for item in study.runs]
    assert states != ["finished", "finished"]
    assert states[0] == ("stopped" if place == "training" else "finished")
    assert run_study(study, folder) == {"finished": 2}
    assert scores(study, folder) == scores(whole, beside)


# Plan --------------------------------------------------------------------------------------------


def test_the_plan_says_what_runs_will_take(make: Make) -> None:
    grid = [
        {"method": [{"name": "prefix_tuning", "length": 4}, {"name": "full"}], "seed": [0, 1]},
        {"method.name": ["none"]},
        {"method.name": ["lora"], "method.layers": ["last:7"]},  # the model has two
    ]
    study, folder = make(grid)
    progress = Recorder()
    planned = plan_study(study, folder, progress=progress)
    assert sum(line.startswith("probing") for line in progress.lines) == 4  # not one a seed
    assert not list(folder.path.glob("sib200-*"))  # nothing was run
    assert planned[5].probe is None
    assert "2 layers" in (planned[5].error or "")
    run_study(study, folder)
    for item in planned[:5]:
        record = folder.record(item.run.key)
        assert record is not None
        assert item.probe is not None
        assert item.probe.parameters == record["trainable_parameters"]
        assert item.seconds is not None
        assert item.seconds > 0
        assert (item.probe.step > 0) == (record["method"]["name"] != "none")
        assert item.probe.train_examples == record["task"]["sizes"]["train"]
    console = Console(width=200, record=True)
    show_plan(study, planned, console)
    text = console.export_text()
    for word in ("parameters", "memory", "GiB", "6 runs, 6 to do: about", "2 layers"):
        assert word in text
    second = Recorder()
    assert [i.probe for i in plan_study(study, folder, progress=second)][:5] == [
        item.probe for item in planned[:5]
    ]
    assert not second.lines  # finished and failed runs need no probe


def test_an_estimate_counts_steps_and_evaluations(make: Make) -> None:
    """The estimate is linear in the measured parts, as the training loop goes through them."""
    from polyprefix.study.probe import Probe

    probe = Probe(1, train_examples=100, step=2.0, dev=3.0, test=5.0, memory=None)
    grid = {"cases": [{"train": {"steps": 30, "evaluate_every": 7}}]}
    (item,) = make(grid | {"method.name": ["lora"]})[0].runs
    assert probe.seconds(item.config) == 30 * 2 + 5 * 3 + 5  # at 7, 14, 21, 28 and 30
    log = RunFolder(Path(item.config.output)) and run(item.config)
    lines = Path(item.config.output, log["id"], "log.jsonl").read_text().splitlines()
    assert sum("dev_score" in line for line in lines) == 5


def test_what_cannot_be_loaded_is_tried_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyprefix.config import DataError

    tried = []

    def unreachable(*_: Any, **__: Any) -> Any:
        tried.append(1)
        raise DataError("the hub does not answer")

    monkeypatch.setattr("polyprefix.study.kept.load_task_data", unreachable)
    study, folder = make()
    kept = Kept()
    plan_study(study, folder, kept=kept)
    assert run_study(study, folder, kept=kept) == {"failed": 2}
    assert len(tried) == 1


# Selection and report ----------------------------------------------------------------------------


def record(dev: float, english: float, german: float, tie: float = 0.0) -> dict[str, Any]:
    def score(value: float) -> dict[str, Any]:
        return {"n": 10, "accuracy": value, "accuracy_stderr": 0.1}

    return {
        "task": {"name": "t", "title": "T", "source_language": "eng_Latn", "headline": "accuracy"},
        "model": {"name": "m", "revision": "r", "parameters": 9},
        "method": {"name": "lora"},
        "training": {"best_dev_score": dev, "best_dev_tie_break": tie},
        "scores": {"eng_Latn": score(english), "deu_Latn": score(german)},
    }


def test_selection_is_by_source_dev_averaged_over_seeds() -> None:
    """The rate with the best mean dev wins, though a seed of the other has the best dev of all and
    every test score of the other is better."""
    found = {
        (0.1, 0): record(0.9, 0.9, 0.9),
        (0.1, 1): record(0.1, 0.9, 0.9),
        (0.2, 0): record(0.6, 0.5, 0.2),
        (0.2, 1): record(0.6, 0.7, 0.4),
    }
    runs = [LabelledRun({"rate": rate, "seed": seed}, r) for (rate, seed), r in found.items()]
    (chosen,) = settings(runs, ["rate"])
    assert chosen.labels == {"rate": 0.2}
    assert (chosen.candidates, len(chosen.runs)) == (2, 2)
    assert chosen.dev == pytest.approx(0.6)
    assert chosen.source == pytest.approx(0.6)
    assert chosen.target == pytest.approx(0.3)
    assert chosen.spread == pytest.approx(2**-0.5 * 0.2)
    assert chosen.gap == pytest.approx(0.3)
    assert len(settings(runs)) == 2


def test_ties_are_broken_by_log_probability_on_dev() -> None:
    tied = [
        LabelledRun({"rate": rate}, record(0.5, 0.5, 0.5, tie=tie))
        for rate, tie in ((1, -2.0), (2, -1.0), (3, -1.5))
    ]
    (chosen,) = settings(tied, ["rate"])
    assert chosen.labels == {"rate": 2}


# Command line ------------------------------------------------------------------------------------


def test_the_commands(
    cli: Cli,
    values: dict[str, Any],
    tmp_path: Path,
) -> None:
    values["grid"] = {"method.name": ["lora"], "train.learning_rate": [1e-3, 1e-2], "seed": [0, 1]}
    values["select"] = ["train.learning_rate"]
    path = tmp_path / "trial.yaml"
    path.write_text(json.dumps(values))
    place = ["--output", str(tmp_path / "out"), "--set", "task.test_samples=9"]
    code, out, _ = cli("study", "run", str(path), *place, "--plan", "--quiet")
    assert code == 0
    assert "4 runs, 4 to do: about" in out
    assert "parameters" in out
    code, _, err = cli("study", "report", str(path), *place)
    assert code == 2
    assert "no run of" in err
    code, out, err = cli("study", "run", str(path), *place)
    assert code == 0
    assert "run 4 of 4, about" in err
    code, shown, _ = cli("study", "status", str(path), *place)
    assert "4 finished" in shown
    code, shown, _ = cli("study", "report", str(path), *place)
    assert shown in out
    for text in ("reports: Nothing.", "(of 2)", "source language's dev split alone", "mean of"):
        assert text in shown
    page = Path(shown.strip().splitlines()[-1])
    assert page == tmp_path / "out" / "report" / "index.html"
    text = page.read_text()
    assert "German" in text
    assert "People talk about" in text  # the examples, from the data
    code, _, _ = cli("study", "report", str(path), *place, "--examples", "0")
    assert code == 0
    assert "People talk about" not in page.read_text()


def test_a_failing_run_is_shown(
    cli: Cli,
    values: dict[str, Any],
    tmp_path: Path,
) -> None:
    values["grid"] = {"method.name": ["lora"], "train.learning_rate": [1e25, 1e-3]}
    path = tmp_path / "trial.yaml"
    path.write_text(json.dumps(values))
    arguments = ["run", str(path), "--output", str(tmp_path / "out"), "--no-estimates"]
    code, out, err = cli("study", *arguments, "--quiet")
    assert code == 1
    assert "1 failed" in out
    assert "train.learning_rate=1e+25: training stopped at step" in out
    assert "1 of 2 runs are not in these tables: 1 failed; 'polyprefix study" in out
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "1 of 2 runs are not in these tables: 1 failed" in page
    assert "--retry-failed" in err


@pytest.mark.parametrize("name", ["run", "status", "report", "list"])
def test_help(cli: Cli, name: str) -> None:
    code, out, _ = cli("study", name, "--help")
    assert code == 0
    assert "Usage" in out
    assert ("Examples" in out) == (name in ("run", "report"))


def test_an_unknown_study_is_told_with_a_close_one(cli: Cli) -> None:
    code, _, err = cli("study", "run", "less-is-more/length")
    assert code == 2
    assert "Did you mean 'less-is-more/lengths'" in err
