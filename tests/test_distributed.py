"""Several processes on one run: what one process would have made of it, in the same files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from polyprefix.config import RunConfig
from polyprefix.distributed import split, world
from polyprefix.results import RunFolder
from polyprefix.study import run, run_together
from polyprefix.training import read_log
from tests.conftest import ROOT, Cli

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
LANGUAGES = ("eng_Latn", "deu_Latn", "swh_Latn")
PATIENCE = 300
"""Seconds: what a busy machine may need to start two processes, with much to spare."""

Make = Callable[..., RunConfig]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "tests" / "plugins")])
    return plain | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | more


def start(arguments: Sequence[str], size: int = 2, **more: str) -> list[subprocess.Popen[str]]:
    """Processes of one world, without a launcher that ends all when one has ended."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(size),
                LOCAL_WORLD_SIZE=str(size),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                **more,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell starts what it puts in the background with SIGINT ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for rank in range(size)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit status, output and error output of each; none is left running."""
    deadline = time.monotonic() + PATIENCE
    try:
        said = [p.communicate(timeout=max(1, deadline - time.monotonic())) for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, out, err) for process, (out, err) in zip(processes, said, strict=True)
    ]


def attempt(
    groups: Sequence[Sequence[RunConfig]],
    folder: Path,
    size: int = 2,
    memory: dict[str, int] | None = None,
    **more: str,
) -> list[tuple[int, str, str]]:
    """Runs by several processes, one group after another; how each process ended."""
    path = folder / "groups.json"
    values = [[c.model_dump(mode="json") for c in group] for group in groups]
    path.write_text(json.dumps({"groups": values, "memory": memory}))
    return ended(start(["-m", "tests.distributed_worker", str(path)], size, **more))


def execute(
    groups: Sequence[Sequence[RunConfig]],
    folder: Path,
    size: int = 2,
    memory: dict[str, int] | None = None,
    **more: str,
) -> None:
    """As :func:`attempt`, with success."""
    for status, _, err in attempt(groups, folder, size, memory, **more):
        assert status == 0, err


def in_folder(config: RunConfig, folder: Path) -> RunConfig:
    return config.model_copy(update={"output": str(folder)})


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder.adapter / "polyprefix.safetensors")
    return tensors


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """Losses, the weights that were kept, and predictions, to what sums are rounded by."""
    assert other.finished()
    first, second = one.record(), other.record()
    assert first["identity"] == second["identity"]
    if "training" in first:
        losses = [[entry["loss"] for entry in read_log(folder.path)] for folder in (one, other)]
        assert losses[0] == pytest.approx(losses[1], abs=2e-5)
        norms = [[e["gradient_norm"] for e in read_log(folder.path)] for folder in (one, other)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert first["training"]["best_step"] == second["training"]["best_step"]
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # AdamW divides small gradients by their size: where one is all rounding, so is its step
        torch.testing.assert_close(theirs[name], value, atol=2e-4, rtol=1e-3, msg=name)
    for code in LANGUAGES:
        all_expected, rows = one.predictions(code), other.predictions(code)
        assert all_expected
        assert rows
        for expected, row in zip(all_expected, rows, strict=True):
            assert row["id"] == expected["id"]
            assert row["prediction"] == expected["prediction"]
            assert row["logprobs"] == pytest.approx(expected["logprobs"], abs=2e-3)


Cases = list[dict[str, Any]]


def compare(
    make: Make, tmp_path: Path, cases: Cases, size: int = 2, **more: str
) -> list[dict[str, Any]]:
    """Each case by one process and by several; the records of the several."""
    configs = [make(**case) for case in cases]
    execute([[in_folder(c, tmp_path / "several")] for c in configs], tmp_path, size, **more)
    records = []
    for config in configs:
        record = run(in_folder(config, tmp_path / "one"))
        several = RunFolder(tmp_path / "several" / record["id"])
        assert_same(RunFolder(tmp_path / "one" / record["id"]), several)
        assert not (several.path / "checkpoints").exists()
        assert "processes" not in record["machine"]
        records.append(several.record())
    assert len([p for p in (tmp_path / "several").iterdir() if p.is_dir()]) == len(configs)
    return records


METHODS = ("prefix_tuning", "llama_adapter", "soft_prompt", "lora", "full")

FEW: Cases = [
    {"method": "prefix_tuning", "train": {"steps": 3}},
    {"method": "full", "train": {"steps": 3}},
]

MANY: Cases = [
    *({"method": name} for name in METHODS),
    {"method": "bottleneck", "runtime": {"micro_batch_tokens": 64}},
    {"method": "soft_prompt", "options": {"tune_backbone": True}},
    {"method": "prefix_tuning", "train": {"batch_size": 1}},  # process 1 has no example
    {"method": "none"},
]

MANY_SHARDED: Cases = [
    *({"method": name} for name in METHODS),
    {"method": "bottleneck"},
    {"method": "full", "runtime": {"micro_batch_tokens": 40}, "train": {"batch_size": 3}},
    {"method": "prefix_tuning", "options": {"parameterization": "projected"}},
    {"method": "prefix_tuning", "seed": 1, "runtime": {"gradient_checkpointing": True}},
    {"method": "lora", "options": {"layers": "last:1"}, "train": {"batch_size": 1}},
    {"method": "soft_prompt", "options": {"tune_backbone": True}},
    {"method": "none"},
]


@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_two_processes_are_as_one(make: Make, tmp_path: Path, cases: Cases) -> None:
    for record in compare(make, tmp_path, cases):
        assert record["machine"]["processes"] == 2
        assert record["machine"]["hosts"] == 1
        assert record["machine"]["sharded_backbone"] is False


@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY_SHARDED, marks=pytest.mark.slow)])
def test_a_sharded_backbone_is_as_a_whole_one(make: Make, tmp_path: Path, cases: Cases) -> None:
    for record in compare(make, tmp_path, cases, **FSDP):
        assert record["machine"]["sharded_backbone"] is True


@pytest.mark.slow
def test_three_processes_divide_unevenly(make: Make, tmp_path: Path) -> None:
    cases = [{"method": "full"}, {"method": "prefix_tuning"}]
    compare(make, tmp_path, cases, size=3, **FSDP)


@pytest.mark.slow
def test_written_answers(make: Make, tmp_path: Path, answers_folder: Path) -> None:
    """Decoding takes processes different numbers of steps."""
    task = {"name": "mgsm", "data": str(answers_folder)}
    config = make(task=task, decoding={"max_new_tokens": 6}, train={"steps": 2})
    execute([[in_folder(config, tmp_path / "two")]], tmp_path)
    execute([[in_folder(config, tmp_path / "parts")]], tmp_path, **FSDP)
    expected = run(in_folder(config, tmp_path / "one"))
    for name in ("two", "parts"):
        folder = RunFolder(tmp_path / name / expected["id"])
        for code in expected["scores"]:
            rows = folder.predictions(code)
            assert rows
            assert rows == RunFolder(tmp_path / "one" / expected["id"]).predictions(code)


@pytest.fixture
def answers_folder(tmp_path: Path) -> Path:
    """MGSM as it is published, with a few sums."""
    folder = tmp_path / "mgsm"
    folder.mkdir()
    for code in ("en", "de", "sw"):
        lines = [f"{code}: {a} plus {b}, wie viele?\t{a + b}" for a in range(3) for b in range(4)]
        (folder / f"mgsm_{code}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, words in (("train", "What is"), ("test", "How many are")):
        rows = [
            {"question": f"{words} {a} plus {b}?", "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}
            for a in range(4)
            for b in range(3)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.mark.slow
def test_a_sweep(make: Make, tmp_path: Path) -> None:
    configs = [make("prefix_tuning"), make("lora"), make("soft_prompt", seed=1)]
    execute([[in_folder(c, tmp_path / "several") for c in configs]], tmp_path)
    execute([[in_folder(c, tmp_path / "parts") for c in configs]], tmp_path, **FSDP)
    for record in run_together([in_folder(c, tmp_path / "one") for c in configs]):
        one = RunFolder(tmp_path / "one" / record["id"])
        assert_same(one, RunFolder(tmp_path / "several" / record["id"]))
        assert_same(one, RunFolder(tmp_path / "parts" / record["id"]))
    assert "together" not in RunFolder(tmp_path / "parts" / record["id"]).record()


# Memory ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_halve_together(make: Make, tmp_path: Path) -> None:
    """One of them runs out of memory, in training and in evaluation."""
    config = make("lora", train={"steps": 4}, runtime={"evaluation_batch_tokens": 400})
    execute([[in_folder(config, tmp_path / "several")]], tmp_path, memory={"rank": 1, "tokens": 40})
    record = run(in_folder(config, tmp_path / "one"))
    several = RunFolder(tmp_path / "several" / record["id"])
    assert_same(RunFolder(tmp_path / "one" / record["id"]), several)
    assert several.record()["training"]["micro_batch_tokens"] <= 40
    assert several.record()["evaluation"]["batch_tokens"] <= 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "more", "message"),
    [
        ({"rank": 1, "tokens": 2}, {}, "does not fit by itself"),
        ({"rank": 1}, {}, "out of memory in the optimizer's step"),
        ({"rank": 1, "tokens": 40}, FSDP, "A smaller runtime.micro_batch_tokens helps"),
        ({"rank": 0, "tokens": 40}, FSDP, "A smaller runtime.micro_batch_tokens helps"),
    ],
    ids=["text", "optimizer", "sharded-1", "sharded-0"],
)
def test_where_nothing_can_be_halved_all_end(
    make: Make, tmp_path: Path, memory: dict[str, int], more: dict[str, str], message: str
) -> None:
    config = make("full", output=str(tmp_path / "runs"))
    results = attempt([[config]], tmp_path, memory=memory, **more)
    assert [status for status, _, _ in results] == [2, 2], results
    assert message in results[memory["rank"]][2]
    other = results[1 - memory["rank"]][2]
    assert message in other or "another process of this run has ended" in other
    assert not any("Traceback" in err for _, _, err in results)
    [folder] = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert RunFolder(folder).record()["status"] == "failed"


# Ends --------------------------------------------------------------------------------------------


def command(config: RunConfig, folder: Path, *more: str) -> list[str]:
    path = folder / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json")))  # JSON is YAML
    return ["-m", "polyprefix", "run", str(path), *more]


def long_run(make: Make, tmp_path: Path, name: str, method: str) -> RunConfig:
    values: dict[str, Any] = {"train": {"steps": 60, "evaluate_every": 20}}
    return make(method, **values, runtime={"checkpoint_every": 5}, output=str(tmp_path / name))


def checkpointed(folder: Path) -> bool:
    return any(folder.glob("*/checkpoints/[0-9]*"))


def wait_for(ready: Callable[[], bool], processes: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        codes = [process.poll() for process in processes]
        assert codes == [None] * len(codes), [p.communicate() for p in processes]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, FSDP], ids=["whole", "sharded"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others(
    make: Make, tmp_path: Path, rank: int, more: dict[str, str]
) -> None:
    """And the run goes on, with another number of processes, to the same result."""
    config = long_run(make, tmp_path, "parts", "full")
    processes = start(command(config, tmp_path, "--quiet"), **more)
    wait_for(lambda: checkpointed(tmp_path / "parts"), processes)
    processes[rank].kill()
    results = ended(processes)
    assert results[1 - rank][0] not in (0, -signal.SIGKILL)
    assert "another process of this run has ended" in results[1 - rank][2]
    assert "Traceback" not in results[1 - rank][2]
    record = run(config)
    expected = run(in_folder(config, tmp_path / "whole"))
    assert_same(
        RunFolder(tmp_path / "whole" / expected["id"]), RunFolder(tmp_path / "parts" / record["id"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, FSDP], ids=["whole", "sharded"])
@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_in_one_process_is_of_all(
    make: Make, tmp_path: Path, rank: int, more: dict[str, str]
) -> None:
    config = long_run(make, tmp_path, "parts", "full")
    processes = start(command(config, tmp_path, "--quiet"), **more)
    wait_for(lambda: checkpointed(tmp_path / "parts"), processes)
    processes[rank].send_signal(signal.SIGINT)
    (first, _, told), (second, _, silent) = ended(processes)
    assert (first, second) == (130, 130), told + silent
    assert "the same command goes on" in told
    assert "goes on" not in silent
    [saved] = (tmp_path / "parts").glob("*/checkpoints/[0-9]*")
    [log] = (tmp_path / "parts").glob("*/log.jsonl")
    assert int(saved.name) == len(log.read_text().splitlines()) < 60
    # by two processes again: each has its part, and its random state
    execute([[config]], tmp_path, **more)
    expected = run(in_folder(config, tmp_path / "whole"))
    assert_same(
        RunFolder(tmp_path / "whole" / expected["id"]),
        RunFolder(tmp_path / "parts" / expected["id"]),
    )


# As a user does it -------------------------------------------------------------------------------


def accelerate(*arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2",
         "--main_process_port", str(free_port()), *arguments],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as in a terminal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [["--multi_gpu"], ["--use_fsdp", "--fsdp_version", "2"]], ids=["whole", "sharded"]
)
def test_accelerate_launch(make: Make, tmp_path: Path, how: list[str]) -> None:
    config = make(output=str(tmp_path / "runs"))
    [(status, out, err)] = ended([accelerate(*how, *command(config, tmp_path))])
    assert status == 0, err
    assert out.count("Swahili") == 1  # one table
    assert err.count("starting ") == 1
    [folder] = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert out.splitlines()[-1] == str(folder)
    record = RunFolder(folder).record()
    assert record["machine"]["processes"] == 2
    assert record["machine"]["sharded_backbone"] is ("--use_fsdp" in how)
    expected = run(in_folder(config, tmp_path / "one"))
    assert_same(RunFolder(tmp_path / "one" / expected["id"]), RunFolder(folder))


def rank_one(launcher: subprocess.Popen[str]) -> psutil.Process:
    [found] = [
        child
        for child in psutil.Process(launcher.pid).children(recursive=True)
        if child.environ().get("RANK") == "1"
    ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_launched_run_that_ends_early_goes_on(make: Make, tmp_path: Path, how: str) -> None:
    config = long_run(make, tmp_path, "runs", "lora")
    launcher = accelerate("--multi_gpu", *command(config, tmp_path, "--quiet"))
    wait_for(lambda: checkpointed(tmp_path / "runs"), [launcher])
    if how == "killed":
        rank_one(launcher).kill()
    else:
        os.killpg(launcher.pid, signal.SIGINT)  # what a terminal does
    [(status, _, err)] = ended([launcher])
    assert status != 0
    if how == "killed":
        assert "Signal 9 (SIGKILL)" in err  # the launcher's words
    else:
        assert err.count("the same command goes on from here") == 1
    [(status, _, err)] = ended([accelerate("--multi_gpu", *command(config, tmp_path))])
    assert status == 0, err
    assert err.count("continuing ") == 1
    execute([[in_folder(config, tmp_path / "whole")]], tmp_path)
    [folder] = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    whole = RunFolder(tmp_path / "whole" / folder.name)
    assert_same(whole, RunFolder(folder))
    ours = weights(whole)  # by as many processes, in the same order: the same bits
    assert all(torch.equal(value, ours[name]) for name, value in weights(RunFolder(folder)).items())


@pytest.mark.slow
def test_a_mistake_is_told_once(make: Make, tmp_path: Path) -> None:
    config = make(task={"languages": "klingon"}, output=str(tmp_path / "runs"))
    [(status, _, err)] = ended([accelerate("--multi_gpu", *command(config, tmp_path))])
    assert status != 0
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "klingon" in err
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT / "src") not in err


@pytest.mark.slow
def test_processes_of_different_runs_do_not_start(make: Make, tmp_path: Path) -> None:
    """As where a host has other data or another model."""
    path = command(make(output=str(tmp_path / "runs")), tmp_path)[-1]
    seed = "import os, sys; sys.argv[1:] = ['run', sys.argv[1], '--seed', os.environ['RANK']]; "
    program = seed + "from polyprefix.cli import main; main()"
    results = ended(start(["-c", program, path]))
    for status, _, err in results:
        assert status == 2
        assert "processes of this run come to different runs" in err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """As if a launcher had started this process and another one that never comes."""

    def environment(**more: str) -> None:
        here = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        for name, value in (here | more).items():
            monkeypatch.setenv(name, value)

    yield environment
    assert world().size == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "--fsdp_version 2"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "--fsdp_offload_params is not supported"),
        (FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "runtime.gradient_checkpointing=true"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "train.mixed_precision=bf16"),
    ],
)
def test_what_accelerate_asks_for_in_vain_is_an_error(
    make: Make, launched: Callable[..., None], more: dict[str, str], message: str
) -> None:
    from polyprefix.config import ConfigError

    launched(**more)
    with pytest.raises(ConfigError, match=message):
        run(make())


def test_other_commands_are_for_one_process(cli: Cli, launched: Callable[..., None]) -> None:
    launched()
    status, _, err = cli("list", "methods")
    assert status == 2
    assert "'run'" in err


# Parts -------------------------------------------------------------------------------------------


def test_texts_that_share_a_passage_stay_together() -> None:
    passages = [[number] * 40 for number in range(6)]
    texts = [[*passage, 100 + q, q] for passage in passages for q in range(4)]
    parts = split(texts, 3)
    assert sorted(i for part in parts for i in part) == list(range(24))
    for part in parts:
        assert {i // 4 for i in part} == {i // 4 for i in part if i % 4 == 0}
        assert len(part) == 8


def test_a_passage_is_cut_where_processes_would_be_idle() -> None:
    texts = [[*range(40), 100 + question] for question in range(6)]
    assert [len(part) for part in split(texts, 4)] == [2, 2, 1, 1] or all(split(texts, 4))
    assert sorted(map(len, split(texts[:1], 3))) == [0, 0, 1]
    assert split([], 2) == [[], []]


def test_parts_cost_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 200, (101,), generator=generator).tolist()
    texts = [[number, *range(length)] for number, length in enumerate(lengths)]
    loads = [sum(len(texts[i]) for i in part) for part in split(texts, 7)]
    assert max(loads) - min(loads) < 0.05 * max(loads)
