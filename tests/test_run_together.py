"""Runs that are trained together leave what they leave by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from polyprefix.config import ConfigError, RunConfig, RunLocked
from polyprefix.methods import methods
from polyprefix.results import RunFolder, Silent
from polyprefix.study import prepare, run, run_together
from tests.test_run import Recorder

Make = Callable[..., RunConfig]
WORK: Any = import_module("polyprefix.study.run")  # the package has a function of that name
VOLATILE = {"started", "finished", "together", "peak_memory_bytes", "config"}


def folder_of(config: RunConfig) -> RunFolder:
    return RunFolder(prepare(config, Silent()).folder.path)


def outcome(record: dict[str, Any]) -> dict[str, Any]:
    """What of a record does not depend on when and in which company it was made."""
    kept = {key: value for key, value in record.items() if key not in VOLATILE}
    for key in ("training", "evaluation"):
        kept[key] = {k: v for k, v in kept.get(key, {}).items() if k != "seconds"}
    return kept


def test_every_method_leaves_what_it_leaves_alone(make: Make, tmp_path: Path) -> None:
    """Files, records and identities; those that tune the backbone itself run by themselves."""
    names = sorted(methods())
    tuned = {"options": {"tune_backbone": True, "length": 3}, "train": {"steps": 2}}

    def configs(output: str) -> list[RunConfig]:
        place = {"output": str(tmp_path / output), "task": {"languages": "sw"}}
        return [
            *(make(name, train={"steps": 3}, **place) for name in names),
            make("lora", train={"steps": 2, "learning_rate": 0.01}, seed=1, **place),
            make("full", train={"steps": 2}, seed=1, **place),
            make("soft_prompt", **tuned, **place),
        ]

    found = run_together(configs("together"))
    mixed = [name for name in names if name not in ("none", "full")]
    ids = [record["id"] for record in found if "together" in record]
    assert len(ids) == len(mixed) + 1
    for config, record in zip(configs("alone"), found, strict=True):
        alone = run(config)
        assert "together" not in alone
        assert record["status"] == "finished"
        if "together" in record:
            assert record["together"] == ids
        ours, theirs = outcome(record), outcome(alone)
        for one in (ours, theirs):
            one["scores"] = {
                (code, name): value
                for code, scores in one["scores"].items()
                for name, value in scores.items()
            }
            for name in ("best_dev_score", "best_dev_tie_break"):
                one["scores"][name] = one["training"].pop(name, None)
        assert ours.pop("scores") == pytest.approx(theirs.pop("scores"), abs=1e-4)
        assert ours == theirs
        one, other = RunFolder(tmp_path / "together" / record["id"]), folder_of(config)
        assert {p.relative_to(one.path) for p in one.path.rglob("*")} == {
            p.relative_to(other.path) for p in other.path.rglob("*")
        }
        weights = "polyprefix.safetensors"
        tensors = load_file(other.adapter / weights)
        for name, value in load_file(one.adapter / weights).items():
            torch.testing.assert_close(value, tensors[name], atol=1e-5, rtol=1e-5)
        for code in ("eng_Latn", "swh_Latn"):
            rows = zip(one.predictions(code) or [], other.predictions(code) or [], strict=True)
            compared = [
                row["logprobs"] == pytest.approx(wanted["logprobs"], abs=1e-4)
                for row, wanted in rows
            ]
            assert len(compared) == 21
            assert all(compared)


def test_what_is_finished_is_not_repeated(make: Make) -> None:
    configs = [make(seed=seed, train={"steps": 2}) for seed in (0, 1, 2)]
    first = run(configs[1])
    progress = Recorder()
    records = run_together(configs, progress=progress)
    assert records[1] == first
    assert records[0]["together"] == records[2]["together"] == [records[0]["id"], records[2]["id"]]
    assert any("is finished already" in line for line in progress.lines)
    progress = Recorder()
    assert run_together([configs[2], configs[0], configs[2]], progress=progress) == [
        records[2],
        records[0],
        records[2],
    ]
    assert progress.units == 0
    anew = run_together(configs[:2], again=True)
    assert anew[1]["together"] == [anew[0]["id"], anew[1]["id"]]
    assert run_together([]) == []


def test_at_most_so_many_at_once(make: Make) -> None:
    configs = [make(seed=seed, train={"steps": 2}, runtime={"together": 2}) for seed in range(5)]
    records = run_together(configs)
    ids = [record["id"] for record in records]
    assert [record.get("together") for record in records] == [
        ids[:2],
        ids[:2],
        ids[2:4],
        ids[2:4],
        None,
    ]


def test_samples_are_each_seed_s_own(make: Make, tmp_path: Path) -> None:
    task = {"train_samples": 10, "test_samples": 5, "languages": "sw"}
    configs = [make(seed=seed, train={"steps": 2}, task=task) for seed in (0, 1)]
    records = run_together(configs)
    answered = [
        [row["id"] for row in folder_of(config).predictions("swh_Latn") or []] for config in configs
    ]
    assert len(records[0]["together"]) == 2
    assert len(answered[0]) == len(answered[1]) == 5
    assert answered[0] != answered[1]


def test_one_fails_and_the_others_finish(make: Make) -> None:
    configs = [make(train={"steps": 4, "learning_rate": rate}) for rate in (0.02, 1e25, 0.01)]
    configs.append(make(options={"layers": "last:9"}))  # is found out when it is attached
    progress = Recorder()
    records = run_together(configs, progress=progress)
    status = [record["status"] for record in records]
    assert status == ["finished", "failed", "finished", "failed"]
    assert "train.learning_rate" in records[1]["error"]
    assert "the model has 2 layers" in records[3]["error"]
    assert "scores" not in records[1]
    again = run_together(configs)
    assert [record["status"] for record in again] == status


def test_a_bug_leaves_no_run_running(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    configs = [make(seed=seed, train={"steps": 2}) for seed in (0, 1)]
    monkeypatch.setattr(WORK, "train_together", broken)
    with pytest.raises(ZeroDivisionError):
        run_together(configs)
    found = [folder_of(config).record() for config in configs]
    assert [(record["status"], record["error"]) for record in found] == [
        ("failed", "ZeroDivisionError()")
    ] * 2


def test_a_run_of_another_process_is_left_to_it(make: Make) -> None:
    configs = [make(seed=seed, train={"steps": 2}) for seed in (0, 1)]
    theirs = folder_of(configs[0])
    theirs.path.parent.mkdir(parents=True)
    with FileLock(theirs.lock), pytest.raises(RunLocked, match="another process"):
        run_together(configs)
    assert not theirs.has_record()
    assert folder_of(configs[1]).finished()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"task": {"max_length": 99}}, "task.max_length"),
        ({"task": {"languages": "sw"}}, "task.languages"),
        ({"runtime": {"micro_batch_tokens": 99}}, "runtime.micro_batch_tokens"),
        ({"output": "elsewhere"}, "output"),
    ],
)
def test_what_must_not_differ(make: Make, changes: dict[str, Any], key: str) -> None:
    configs = [make(), make(seed=1), make(**changes)]
    with pytest.raises(ConfigError, match=f"key '{key}'.*run 3.*method, seed and train"):
        run_together(configs)
    assert not Path(configs[0].output).exists()


def test_a_wrong_method_is_told_before_the_first_run(make: Make) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'length'"):
        run_together([make(), make(options={"lenght": 3})])
    assert not Path(make().output).exists()


def test_interrupted_and_resumed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while the first was scored: training is not done again, and all end as they would."""
    configs = [make(seed=seed, train={"steps": 3}) for seed in (0, 1)]
    whole = [outcome(run(config)) for config in configs]
    for config in configs:
        folder_of(config).clear()
    evaluate = WORK._evaluate

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WORK, "_evaluate", pressed)
    with pytest.raises(KeyboardInterrupt):
        run_together(configs)
    logs = [(folder_of(config).path / "log.jsonl").read_text() for config in configs]
    assert [len(log.splitlines()) for log in logs] == [3, 3]
    assert folder_of(configs[0]).record()["status"] == "running"
    monkeypatch.setattr(WORK, "_evaluate", evaluate)
    records = run_together(configs)
    assert logs == [(folder_of(config).path / "log.jsonl").read_text() for config in configs]
    for record, wanted in zip(records, whole, strict=True):
        assert json.dumps(outcome(record)["identity"]) == json.dumps(wanted["identity"])
        assert record["training"]["best_step"] == wanted["training"]["best_step"]
        for code, scores in record["scores"].items():
            assert scores == pytest.approx(wanted["scores"][code], abs=1e-4)
