"""What a run will take of memory: planned without weights, beside what it takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.planning import counted
from polyprefix.cli.plan import amount
from polyprefix.config import RunConfig
from polyprefix.study import Plan, plan_run
from polyprefix.study.plan import PROGRAM
from polyprefix.study.simulation import Allocations, masks_written_out
from tests import memory_cases
from tests.conftest import ROOT, Cli
from tests.yaml_tasks import ANSWER, written

LLAMA = {
    "model_type": "llama",
    "vocab_size": 2000,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
PREFIX = {"name": "prefix_tuning", "layers": "all"}
CASES: dict[str, dict[str, Any]] = {
    "prefix": {"model": LLAMA, "method": PREFIX, "length": 64, "texts": 48},
    "prefix-upper": {
        "model": LLAMA | {"num_hidden_layers": 8},
        "method": {"name": "prefix_tuning", "layers": "last:4"},
        "length": 128,
        "texts": 24,
    },
    "prefix-checkpointing": {
        "model": LLAMA | {"num_hidden_layers": 8},
        "method": PREFIX,
        "length": 128,
        "texts": 32,
        "checkpointing": True,
    },
    "prefix-packed": {
        "model": LLAMA,
        "method": PREFIX,
        "length": 160,
        "texts": 48,
        "shared": 120,
    },
    "lora": {"model": LLAMA, "method": {"name": "lora"}, "length": 96, "texts": 32},
    "lora-checkpointing": {
        "model": LLAMA | {"num_hidden_layers": 6},
        "method": {"name": "lora", "layers": "all"},
        "length": 256,
        "texts": 16,
        "checkpointing": True,
    },
    "full": {
        "model": LLAMA | {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
        "method": {"name": "full"},
        "length": 64,
        "texts": 32,
    },
    "full-checkpointing": {
        "model": LLAMA | {"num_hidden_layers": 8},
        "method": {"name": "full"},
        "length": 128,
        "texts": 48,
        "checkpointing": True,
    },
    "large-vocabulary": {
        "model": LLAMA | {"vocab_size": 50_000, "num_hidden_layers": 2},
        "method": PREFIX,
        "length": 64,
        "texts": 32,
        "reads": 12,
    },
    "gpt2": {
        "model": {
            "model_type": "gpt2",
            "vocab_size": 2000,
            "n_embd": 384,
            "n_layer": 4,
            "n_head": 6,
            "resid_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
        },
        "method": {"name": "llama_adapter"},
        "length": 64,
        "texts": 32,
    },
    "bloom": {
        "model": {
            "model_type": "bloom",
            "vocab_size": 2000,
            "hidden_size": 256,
            "n_layer": 2,
            "n_head": 8,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
        },
        "method": PREFIX,
        "length": 96,
        "texts": 32,
    },
    "soft-prompt": {
        "model": LLAMA,
        "method": {"name": "soft_prompt", "initialization": "uniform"},
        "length": 96,
        "texts": 32,
    },
}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def small(case: dict[str, Any]) -> dict[str, Any]:
    """The same with less to compute."""
    if case["model"]["model_type"] != "llama":
        return case | {"texts": 4}
    return (
        case
        | {"model": case["model"] | SMALL, "texts": 6}
        | (
            {"method": {"name": "prefix_tuning", "layers": "last:1"}}
            if case["method"].get("layers") == "last:4"
            else {}
        )
    )


@pytest.mark.parametrize("name", CASES)
def test_what_is_counted_without_numbers_is_what_tensors_with_numbers_take(name: str) -> None:
    case = small(CASES[name])
    want = memory_cases.planned(case)
    model, batch = memory_cases.made(case), memory_cases.laid_out(case)
    model.backbone.gradient_checkpointing(case.get("checkpointing", False))
    model.train()
    known = [*model.parameters(), *model.buffers()]
    with masks_written_out(), Allocations(known) as real:
        memory_cases.step(model, batch)
    assert want.total == pytest.approx(real.most, rel=0.02)
    assert want.activations > 0
    model.zero_grad()
    model.backbone.gradient_checkpointing(False)
    model.eval()
    with torch.no_grad(), masks_written_out(), Allocations(known) as read:
        model(
            batch.input_ids, position_ids=batch.position_ids, until=batch.until, keep=batch.keep
        ).logits.float().log_softmax(-1)
    assert memory_cases.planned_evaluation(case) == pytest.approx(read.most, rel=0.02)


def test_storages_are_counted_once_and_until_they_are_gone() -> None:
    known = torch.zeros(1000)
    with Allocations([known]) as count:
        count.stage = "first"
        one = torch.ones(250)  # 1000 bytes
        view = one.view(25, 10).t()
        known.add_(1)
        _ = known[:10]
        count.stage = "second"
        two = torch.ones(500)
        del two
        three = torch.ones(125)
    assert count.most == 3000
    assert count.peak == {"first": 1000, "second": 2000}
    assert count.now == {"first": 1000, "second": 500}
    del one
    assert count.now["first"] == 1000  # the view needs it
    del view, three
    assert count.now == {"first": 0, "second": 0}


def test_checkpointing_and_fewer_layers_take_less() -> None:
    plain = memory_cases.planned(CASES["prefix"])
    saving = memory_cases.planned(CASES["prefix"] | {"checkpointing": True})
    upper = memory_cases.planned(
        CASES["prefix"] | {"method": {"name": "prefix_tuning", "layers": "last:1"}}
    )
    assert saving.total < plain.total / 2
    assert upper.total < plain.total / 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are Linux's")
def test_planned_and_measured_peaks() -> None:
    """The process's own size, within 15 %. Its allocator is told to give back what is free."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    found = {}
    for name, case in CASES.items():  # each by itself: what one leaves may serve the next
        done = subprocess.run(
            [sys.executable, "-m", "tests.memory_cases"],
            input=json.dumps(case),
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
    off = {name: planned / measured - 1 for name, (planned, measured) in found.items()}
    for name, (planned, measured) in found.items():
        print(f"{name:22} {planned / 1e6:8.1f} {measured / 1e6:8.1f} MB {off[name]:+.1%}")
    assert all(abs(difference) < 0.15 for difference in off.values()), off


# The command -------------------------------------------------------------------------------------


def test_the_plan_of_a_run(make: Callable[..., RunConfig]) -> None:
    found = plan_run(make(method="lora", options={"rank": 2, "layers": "all"}))
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make().model.name)
    count = sum(value.numel() for value in model.parameters())
    assert found.parameters == count
    assert found.trainable == 2 * 2 * ((32 + 32) + (32 + 16))
    parts = {part.name: part.size for part in found.training}
    buffers = sum(value.numel() * 4 for value in model.buffers())
    assert parts["frozen weights"] == 4 * count + buffers
    assert parts["trained weights"] == 4 * found.trainable
    assert parts["optimizer"] == 8 * found.trainable
    assert parts["activations"] > 0
    assert parts["logits"] > 0
    assert found.fits
    assert found.total == max(
        sum(part.size for part in parts) for parts in (found.training, found.evaluation)
    )
    larger = plan_run(make(method="lora", train={"batch_size": 32}))
    assert larger.micro_batch_tokens > found.micro_batch_tokens
    assert beside_program(larger) > beside_program(found)


def beside_program(plan: Plan) -> int:
    """Bytes of training, without the process's own, which is another at every call."""
    return sum(part.size for part in plan.training if part.name != PROGRAM)


def in_use(config: RunConfig) -> tuple[int, int]:
    """Bytes of a run by its plan, without the program, and those that its tensors had at once."""
    plan = plan_run(config)
    program = next(part.size for part in plan.evaluation if part.name == PROGRAM)
    return plan.total - program, counted(config)


SLACK = 128 << 10
"""Token ids and masks, which are about as large as all else of a tiny model."""


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "none"},
        {"method": "lora", "runtime": {"micro_batch_tokens": 64}},
        {"method": "lora", "train": {"batch_size": 32}, "runtime": {"evaluation_batch_tokens": 64}},
        {"options": {"layers": "last:1"}, "train": {"steps": 8, "batch_size": 28}},
    ],
    ids=str,
)
def test_a_run_takes_what_its_plan_says(
    make: Callable[..., RunConfig], changes: dict[str, Any]
) -> None:
    planned, counted = in_use(make(**changes))
    assert planned == pytest.approx(counted, rel=0.05, abs=SLACK)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_writing_answers_takes_what_its_plan_says(
    make: Callable[..., RunConfig], tmp_path: Path, temperature: float
) -> None:
    """Prompts share beginnings of different lengths."""
    stems = [" ".join(f"word{i}" for i in range(start, start + 9)) for start in range(3)]
    rows = [
        {"question": f"{stems[n % 3]} {'and ' * (n % 4)}{n}?", "answers": ["yes"]}
        for n in range(24)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files = [f"{split}-{code}.jsonl" for split, code in (("train", "en"), ("dev", "en"))]
    files += ["test-en.jsonl", "test-de.jsonl"]
    path = written(tmp_path, ANSWER, dict.fromkeys(files, lines))
    config = make(
        method="none",
        task={"name": str(path), "data": None},
        decoding={"max_new_tokens": 8, "temperature": temperature},
    )
    planned, counted = in_use(config)
    assert planned == pytest.approx(counted, rel=0.05, abs=SLACK)
    parts = {part.name for part in plan_run(config).evaluation}
    assert "cache" in parts


def test_the_dev_split_is_scored_beside_the_optimizer(make: Callable[..., RunConfig]) -> None:
    """Of full fine-tuning, two more values for each parameter, which the test split has not."""
    found = plan_run(make(method="full", runtime={"evaluation_batch_tokens": 16}))
    parts = {part.name: part.size for part in found.evaluation}
    assert parts["optimizer"] == 2 * parts["trained weights"]


def test_the_language_with_most_tokens_is_planned_for(
    make: Callable[..., RunConfig], sib_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sib_folder, tmp_path / "sib")
    whole = plan_run(make(method="none")).evaluation_batch_tokens
    path = folder / "data" / "annotated" / "swh_Latn" / "test.tsv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *(line + " na kadhalika" * 4 for line in lines)]) + "\n")
    assert plan_run(make(method="none", task={"data": str(folder)})).evaluation_batch_tokens > whole


def test_no_weight_is_read(
    make: Callable[..., RunConfig], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "without"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    whole = plan_run(make())
    assert plan_run(make(model={"name": str(folder)})).parameters == whole.parameters
    halved = plan_run(make(model={"name": str(folder), "dtype": "bfloat16"}))
    sizes = [
        next(part.size for part in found.training if part.name == "frozen weights")
        for found in (halved, whole)
    ]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.01)


@pytest.mark.parametrize("method", ["none", "full", "soft_prompt", "bottleneck"])
def test_every_kind_of_method(make: Callable[..., RunConfig], method: str) -> None:
    found = plan_run(make(method=method))
    assert bool(found.training) is (method != "none")
    parts = {part.name: part.size for part in found.training}
    if method == "full":
        assert "frozen weights" not in parts or parts["frozen weights"] < 1000
        assert parts["trained weights"] == 4 * found.parameters == 4 * found.trainable
    assert found.evaluation[-1].size > 0


def arguments(tiny_folder: Path, sib_folder: Path, *more: str) -> list[str]:
    return [
        *("plan", "--model", str(tiny_folder), "--method", "prefix_tuning"),
        *("--task", "sib200", "--data", str(sib_folder), *more),
    ]


def test_the_command(cli: Cli, tiny_folder: Path, sib_folder: Path) -> None:
    code, out, _ = cli(*arguments(tiny_folder, sib_folder))
    assert code == 0
    for word in ("frozen weights", "optimizer", "activations", "logits", "at the most", "It fits"):
        assert word in out
    code, out, _ = cli(*arguments(tiny_folder, sib_folder, "--json", "--memory", "64GiB"))
    found = json.loads(out)
    assert found["available"] == 64 << 30
    assert found["fits"] is True
    assert found["trainable"] < found["parameters"]


def frozen(plan: dict[str, Any]) -> int:
    """Bytes of frozen weights."""
    [size] = [part["size"] for part in plan["training"] if part["name"] == "frozen weights"]
    return int(size)


def test_what_does_not_fit(cli: Cli, tiny_folder: Path, sib_folder: Path) -> None:
    code, out, _ = cli(*arguments(tiny_folder, sib_folder, "--memory", "1MiB"))
    assert code == 1
    assert "It does not fit" in out
    assert "runtime.gradient_checkpointing=true" in out
    assert "model.dtype=bfloat16" in out
    code, out, _ = cli(
        *arguments(tiny_folder, sib_folder, "--memory", "1MiB", "--json"),
        *("--set", "runtime.gradient_checkpointing=true", "--set", "model.dtype=bfloat16"),
    )
    first, *others = json.loads(out)["changes"]
    assert first["change"] == (
        "runtime.evaluation_batch_tokens=512, runtime.micro_batch_tokens=512"
    )
    assert first["micro_batch_tokens"] <= 512
    # as far as torchao is installed; nf4 not, since this model's blocks are too small for it, and
    # no offload, since a CPU has no other memory
    tried = [change["change"] for change in others]
    assert tried == ["... and model.quantization=int8"] * bool(find_spec("torchao"))
    for change in others:
        assert frozen(change) < frozen(first)


def test_a_device_that_is_not_here(cli: Cli, tiny_folder: Path, sib_folder: Path) -> None:
    code, out, _ = cli(
        *arguments(tiny_folder, sib_folder, "--memory", "8GiB", "--set", "runtime.device=cuda")
    )
    assert code == 0
    assert "program" not in out
    if not torch.cuda.is_available():
        code, _, err = cli(*arguments(tiny_folder, sib_folder, "--set", "runtime.device=cuda"))
        assert code == 2
        assert "runtime.device" in err


def test_mistakes(cli: Cli, tiny_folder: Path, sib_folder: Path) -> None:
    for wrong in ("24 elephants", "24", "0GiB", "-5GiB", ""):
        code, _, err = cli(*arguments(tiny_folder, sib_folder, "--memory", wrong))
        assert code == 2
        assert f"--memory {wrong!r}: give a number with its unit, such as 24GiB" in err
    code, _, err = cli("plan", "--model", str(tiny_folder), "--task", "sib200")
    assert code == 2
    assert "--method" in err
    code, _, err = cli("plan", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml" in err
    code, _, err = cli(*arguments(tiny_folder / "nothing", sib_folder))
    assert code == 2
    assert "model.name" in err


def test_amounts() -> None:
    assert amount(3 << 29) == "1.50 GiB"
    assert amount(3 << 19) == "1.5 MiB"
