"""Files of a run or a study that are cut, empty, garbled, or of a version to come."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import ModelConfig, PolyprefixError, RunConfig, RunError, UnsupportedModel
from polyprefix.models import load_backbone
from polyprefix.results import RunFolder, StudyFolder
from polyprefix.study import plan_study, run, run_study
from tests.conftest import Cli
from tests.reliability.outcome import outcome
from tests.test_run import Recorder
from tests.trial_study import maker, trial_values

CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "one byte": lambda whole: whole[:1],
    "half": lambda whole: whole[: len(whole) // 2],
    "all but the end": lambda whole: whole[:-3],
    "zeros": lambda whole: bytes(len(whole)),
    "noise": lambda whole: bytes(byte ^ 0xA5 for byte in whole),
    "another value": lambda whole: b"3\n",
    "a list": lambda whole: b"[]\n",
    "an empty object": lambda whole: b"{}\n",
    "brackets": lambda whole: b"[" * 100_000,
}

WHOLE_JSON = ("another value", "a list", "an empty object", "brackets")


def damage(path: Path, cut: str) -> None:
    path.write_bytes(CUTS[cut](path.read_bytes()))


def told(error: PolyprefixError, *texts: str) -> None:
    assert [text for text in texts if text not in str(error)] == []


@dataclass(frozen=True)
class Finished:
    """A finished run, to be copied, and its configuration."""

    folder: Path
    config: RunConfig

    def copy(self, place: Path) -> tuple[RunFolder, RunConfig]:
        folder = place / "runs" / self.folder.name
        shutil.copytree(self.folder, folder)
        return RunFolder(folder), self.config.model_copy(update={"output": str(folder.parent)})


@pytest.fixture(scope="module")
def finished(
    tiny_folder: Path, sib_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    output = tmp_path_factory.mktemp("finished")
    config = RunConfig.read(
        {
            "model": {"name": str(tiny_folder)},
            "method": {"name": "prefix_tuning"},
            "task": {"name": "sib200", "data": str(sib_folder)},
            "train": {"steps": 4, "batch_size": 8},
            "output": str(output),
        }
    )
    return Finished(output / run(config)["id"], config)


@pytest.fixture(scope="module")
def stopped(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same run, killed when its training was over and one language scored."""
    output = tmp_path_factory.mktemp("stopped")
    config = finished.config.model_copy(update={"output": str(output)})

    class Killed(Recorder):
        def advance(self, units: int = 1, note: str = "") -> None:
            if note == "deu_Latn":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, progress=Killed())
    folder = output / finished.folder.name
    assert (folder / "checkpoints").is_dir()
    assert (folder / "predictions" / "eng_Latn.jsonl").is_file()
    return Finished(folder, config)


# Records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
def test_a_damaged_record(finished: Finished, tmp_path: Path, cut: str, cli: Cli) -> None:
    folder, config = finished.copy(tmp_path)
    expected = outcome(folder.path)
    damage(folder.path / "record.json", cut)
    with pytest.raises(RunError, match=r"record\.json"):
        run(config)
    for command in (["show"], ["predict", "--text", "a"]):
        status, _, error = cli(command[0], str(folder.path), *command[1:])
        assert status == 2
        assert "record.json" in error
    run(config, again=True)  # as the message says
    assert outcome(folder.path) == expected


def test_a_record_of_a_version_to_come(finished: Finished, tmp_path: Path, cli: Cli) -> None:
    folder, config = finished.copy(tmp_path)
    path = folder.path / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    before = path.read_bytes()
    message = r"format 2; this version of Polyprefix reads format 1"
    with pytest.raises(RunError, match=message):
        run(config)
    status, _, error = cli("show", str(folder.path))
    assert (status, "format 2; this version" in error) == (2, True)
    assert path.read_bytes() == before


# Adapters and checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["polyprefix.safetensors", "polyprefix.json"])
def test_a_damaged_adapter(
    finished: Finished, tmp_path: Path, name: str, cut: str, cli: Cli
) -> None:
    folder, _ = finished.copy(tmp_path)
    damage(folder.adapter / name, cut)
    status, _, error = cli("predict", str(folder.path), "--text", "a")
    assert status == 2
    assert "polyprefix." in error


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_damaged_checkpoint(stopped: Finished, tmp_path: Path, name: str, cut: str) -> None:
    folder, config = stopped.copy(tmp_path)
    [checkpoint] = (folder.path / "checkpoints").glob("[0-9]*")
    damage(checkpoint / name, cut)
    with pytest.raises(RunError, match=r"checkpoint.*0004.*remove it"):
        run(config)
    assert folder.record()["status"] == "failed"


def test_a_checkpoint_that_was_removed(
    stopped: Finished, finished: Finished, tmp_path: Path
) -> None:
    """As the message says: the training is done anew, to the same result."""
    folder, config = stopped.copy(tmp_path)
    shutil.rmtree(folder.path / "checkpoints")
    run(config)
    assert outcome(folder.path) == outcome(finished.folder)


@pytest.mark.parametrize("cut", CUTS)
def test_the_best_adapter_is_damaged_before_the_end(
    stopped: Finished, tmp_path: Path, cut: str
) -> None:
    folder, config = stopped.copy(tmp_path)
    damage(folder.adapter / "polyprefix.safetensors", cut)
    with pytest.raises(RunError, match=r"polyprefix\.safetensors.*--again"):
        run(config)


@pytest.mark.parametrize("cut", CUTS)
def test_a_damaged_log(stopped: Finished, finished: Finished, tmp_path: Path, cut: str) -> None:
    """The log is for people: it stops a run only where it cannot be told what it holds."""
    folder, config = stopped.copy(tmp_path)
    damage(folder.path / "log.jsonl", cut)
    try:
        run(config)
    except RunError as error:
        told(error, "log.jsonl", "remove it")
        return
    assert folder.record()["scores"] == RunFolder(finished.folder).record()["scores"]


# Predictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut", [*CUTS, "a line less", "another's ids", "unknown labels", "no label"]
)
def test_damaged_predictions(
    stopped: Finished, finished: Finished, tmp_path: Path, cut: str
) -> None:
    """A score of the rows that are left would be a score, and a wrong one."""
    folder, config = stopped.copy(tmp_path)
    path = folder.predictions_path("eng_Latn")
    lines = path.read_text().splitlines(keepends=True)
    changed = {
        "a line less": "".join(lines[:-1]),
        "another's ids": path.read_text().replace('"id": "', '"id": "x'),
        "unknown labels": path.read_text().replace('"travel"', '"travels"'),
        "no label": path.read_text().replace('"label"', '"lable"'),
    }
    if cut in changed:
        path.write_text(changed[cut])
    else:
        damage(path, cut)
    with pytest.raises(RunError, match=r"eng_Latn\.jsonl.*damaged.*Remove it"):
        run(config)
    assert folder.record()["status"] == "failed"
    path.unlink()
    run(config)
    assert outcome(folder.path) == outcome(finished.folder)


@pytest.mark.parametrize("cut", ["one byte", "half", "zeros", "noise", "another value"])
def test_damaged_predictions_of_a_finished_run(
    finished: Finished, tmp_path: Path, cut: str
) -> None:
    folder, _ = finished.copy(tmp_path)
    damage(folder.predictions_path("deu_Latn"), cut)
    with pytest.raises(RunError, match=r"deu_Latn\.jsonl, line \d+ is damaged"):
        folder.predictions("deu_Latn")


# Models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model(tiny_folder: Path, tmp_path: Path, name: str, cut: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    damage(folder / name, cut)
    with pytest.raises(UnsupportedModel, match=r"model"):
        load_backbone(ModelConfig(name=str(folder)))


# Studies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
def test_a_damaged_entry_of_a_study(
    tiny_folder: Path, sib_folder: Path, tmp_path: Path, cut: str
) -> None:
    make = maker(trial_values(tiny_folder, sib_folder), tmp_path)
    study, folder = make({"method.name": ["none"]}, base=small(tiny_folder, sib_folder))
    assert run_study(study, folder) == {"finished": 1}
    [entry] = (folder.path / "study" / "runs").iterdir()
    before = entry.read_bytes()
    damage(entry, cut)
    if cut == "an empty object":  # says that nothing was begun: the run is found again
        assert run_study(study, folder) == {"finished": 1}
    else:
        with pytest.raises(RunError, match=r"study/runs/.*damaged.*Remove it"):
            run_study(study, folder)
        entry.unlink()
        assert run_study(study, folder) == {"finished": 1}
    assert entry.read_bytes() == before


@pytest.mark.parametrize("cut", CUTS)
def test_a_damaged_probe_and_record_of_a_study(
    tiny_folder: Path,
    sib_folder: Path,
    tmp_path: Path,
    cut: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("polyprefix.study.probe.SECONDS", 0.0)
    make = maker(trial_values(tiny_folder, sib_folder), tmp_path)
    study, folder = make({"method.name": ["none"]}, base=small(tiny_folder, sib_folder))
    plan_study(study, folder)
    [probe] = (folder.path / "study" / "probes").iterdir()
    damage(probe, cut)
    try:
        assert plan_study(study, folder)[0].probe is not None
    except PolyprefixError as error:
        told(error, "study/probes/", "Remove it")
        probe.unlink()
    run_study(study, folder)
    [record] = folder.path.glob("*/record.json")
    damage(record, cut)
    with pytest.raises(RunError, match=r"record\.json"):
        run_study(study, folder)
    assert run_study(study, folder, again=True) == {"finished": 1}


def small(model: Path, data: Path) -> dict[str, Any]:
    task = {"name": "sib200", "data": str(data), "languages": "en"}
    return {"model": {"name": str(model)}, "task": task}


def test_entries_with_other_kinds_of_values(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    path = tmp_path / "study" / "runs" / "k.json"
    path.parent.mkdir(parents=True)
    for values in ({"run": 3}, {"error": ["x"]}, {"run": {}}):
        path.write_text(json.dumps(values))
        with pytest.raises(RunError, match=r"k\.json is damaged"):
            folder.state("k")
