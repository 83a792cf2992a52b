"""What ``polyprefix plan`` says beside what runs take of memory.

    python -m benchmarks.planning --json build/benchmarks/planning.json

Whole runs, from reading the weights to the last language scored, on random Llamas: training, with
and without gradient checkpointing, scoring, and writing answers. Texts are words drawn at random;
nothing is downloaded. Every plan and every run has a process of its own, and neither counts what
the process had before there was a model: libraries, tokenizer and data.

``measured`` is the process's peak resident size less its size before the model is loaded, on CUDA
``max_memory_allocated``. ``counted`` is a second witness on a CPU: the most bytes that the tensors
of the same run have at once, which leaves out what libraries, an allocator and kernels hold for
themselves. The exit status is 1 where a plan is off by more than ``--tolerance``.

``--without-trim`` measures under glibc's own settings, under which it keeps freed pieces below
32 MiB and cannot always use them again; by default it gives back what is free, so that what is
measured is what is in use.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.common import Parser, make_model, surroundings
from benchmarks.memory import reset, used
from polyprefix.config import RunConfig
from polyprefix.models.backbone import read_config
from polyprefix.results import Silent, write_json
from polyprefix.study import execute, plan_run, prepare, run
from polyprefix.study.plan import CHECKPOINT, PROGRAM
from polyprefix.study.simulation import Allocations, masks_written_out
from polyprefix.tasks import load_task_data

VOCABULARY = 32000
ROOT = Path(__file__).parents[1]
CHECKPOINTING = {"gradient_checkpointing": True}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Of glibc: what is freed is given back to the system."""


@dataclass(frozen=True)
class Case:
    """A run. ``task``: ``choice`` or ``answer``; ``tested``: test examples."""

    name: str
    width: int
    layers: int
    method: dict[str, Any]
    task: str = "choice"
    tested: int = 16
    model: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """What was found of a case."""

    case: Case
    planned: dict[str, Any]
    measured: dict[str, Any]

    @property
    def error(self) -> float:
        """By what share the plan is off."""
        return float(self.planned["bytes"] / self.measured["bytes"] - 1)

    def cells(self) -> list[str]:
        """For the table."""
        pairs = [(self.planned["bytes"], self.measured["bytes"])]
        if "counted" in self.planned:
            pairs.append((self.planned["tensors"], self.planned["counted"]))
        return [
            text
            for plan, found in pairs
            for text in (f"{plan / 1e6:,.0f}", f"{found / 1e6:,.0f}", f"{plan / found - 1:+.1%}")
        ]


def cases() -> list[Case]:
    """All of them."""
    found = []
    for width, layers in ((512, 8), (256, 4)):
        size = f"d={width}"
        for method in ("prefix_tuning", "lora", "full"):
            spec = {"name": method}
            if method != "full":
                spec["layers"] = "all"
            found += [
                Case(f"{size} {method}", width, layers, spec),
                Case(f"{size} {method} checkpointing", width, layers, spec, runtime=CHECKPOINTING),
            ]
        for method in ("none", "llama_adapter"):
            found.append(
                Case(f"{size} {method} scoring", width, layers, {"name": method}, tested=96)
            )
        for method in ("none", "prefix_tuning"):
            spec = {"name": method}
            found.append(Case(f"{size} {method} answers", width, layers, spec, "answer", 48))
    found.append(
        Case(
            "d=512 soft_prompt 4096 tokens",
            512,
            8,
            {"name": "soft_prompt"},
            runtime={"micro_batch_tokens": 4096},
        )
    )
    found.append(Case("d=512 lora bfloat16", 512, 8, {"name": "lora"}, model={"dtype": "bfloat16"}))
    return found


# The data ----------------------------------------------------------------------------------------


def write_tasks(folder: Path) -> list[str]:
    """Two tasks and their data; the texts, for a tokenizer."""
    draw = random.Random(0)
    words = [
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 8)))
        for _ in range(4000)
    ]
    texts = []

    def text(count: int) -> str:
        texts.append(" ".join(draw.choices(words, k=count)))
        return texts[-1]

    def rows(split: str, count: int) -> None:
        choice, answer = [], []
        for number in range(count):
            choice.append({"text": text(draw.randint(40, 56)), "label": ("one", "two")[number % 2]})
            answer.append(
                {"question": text(draw.randint(90, 110)), "answers": [draw.choice(words)]}
            )
        for name, lines in (("choice", choice), ("answer", answer)):
            path = folder / f"{name}-{split}-en.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    for split, count in {"train": 64, "dev": 8, "test": 96}.items():
        rows(split, count)
    shared = {"languages": ["en"]}
    specs: dict[str, dict[str, Any]] = {
        "choice": shared
        | {
            "kind": "choice",
            "columns": {"label": "label"},
            "prompt": "{{ text }}\nThis is",
            "choices": {"one": "good", "two": "bad"},
        },
        "answer": shared
        | {
            "kind": "answer",
            "columns": {"answers": "answers"},
            "prompt": "{{ question }}\nAnswer:",
            "metrics": "squad",
            "max_new_tokens": 32,
        },
    }
    for name, spec in specs.items():
        spec |= {"name": name, "files": f"{name}-{{split}}-{{language}}.jsonl"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return texts


def config_of(case: Case, folder: Path, device: str) -> dict[str, Any]:
    """Of the run of a case."""
    values: dict[str, Any] = {
        "model": {"name": str(folder / f"{case.width}-{case.layers}"), **case.model},
        "method": case.method,
        "task": {"name": str(folder / f"{case.task}.yaml"), "test_samples": case.tested},
        "runtime": {"device": device, **case.runtime},
        "output": str(folder / "runs"),
    }
    if case.method["name"] != "none":
        values["train"] = {"steps": 3, "batch_size": 64, "evaluate_every": 2}
    return values


# Planned and measured ----------------------------------------------------------------------------


def planned(config: RunConfig) -> dict[str, Any]:
    """The plan; its total without what the process has before there is a model; and its tensors,
    with the most bytes that those of the run have at once."""
    before = _ready(config)
    plan = plan_run(config)
    found = plan.as_dict() | {"bytes": plan.total, "tensors": plan.total}
    programs = [p.size for p in (*plan.training, *plan.evaluation) if p.name == PROGRAM]
    if programs:  # on a CPU
        found |= {"bytes": plan.total - before, "tensors": plan.total - programs[0]}
        if not any(part.name == CHECKPOINT for part in plan.training):  # bytes, and no tensors
            found["counted"] = counted(config)
    return found


def counted(config: RunConfig) -> int:
    """The most bytes that a run's tensors have at once, with those of the model, on a CPU."""
    prepared = prepare(config, Silent())
    model = prepared.backbone.model
    known = [*model.parameters(), *model.buffers()]
    weights = sum(value.numel() * value.element_size() for value in known)
    # In inference mode an operation's parts are not seen.
    visible = patch.object(torch, "inference_mode", torch.no_grad)
    with visible, masks_written_out(), Allocations(known) as tensors:
        execute(prepared, again=True, progress=Silent())
    return int(tensors.most + weights)


def measured(config: RunConfig) -> dict[str, Any]:
    """The peak of the run."""
    before = _ready(config)
    run(config, again=True)
    return {"bytes": used(config.runtime.device) - before}


def _ready(config: RunConfig) -> int:
    """What the process has in use before there is a model. Reading data and tokenizer once loads
    what that needs."""
    load_task_data(config.task, seed=config.seed)
    read_config(config.model)
    return reset(config.runtime.device)


SIDES = {"planned": planned, "measured": measured}


def in_process(side: str, values: dict[str, Any], trim: bool) -> dict[str, Any]:
    """What a side says, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.planning", "--side", side],
        input=json.dumps(values),
        env=os.environ | (GIVE_BACK if trim else {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side}: exit status {done.returncode}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(case: Case, folder: Path, texts: Sequence[str], options: argparse.Namespace) -> Line:
    """Plan a case, and run it."""
    place = folder / f"{case.width}-{case.layers}"
    if not place.exists():
        sizes = {"hidden_size": case.width, "num_layers": case.layers}
        of_model = argparse.Namespace(model=None, seed=options.seed, **sizes)
        make_model(place, of_model, VOCABULARY, texts)
    values = config_of(case, folder, options.device)
    trim = not options.without_trim
    return Line(case, *(in_process(side, values, trim) for side in SIDES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan and measure; print the table."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", default=[""], metavar="WORD", help="cases whose names have it")
    add("--device", default="cpu")
    add("--seed", type=int, default=0, help="of weights")
    add("--tolerance", type=float, default=0.15)
    add("--without-trim", action="store_true", help="glibc's own settings")
    add("--json", type=Path, help="where to write the figures")
    add("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        print(json.dumps(SIDES[options.side](RunConfig.read(json.load(sys.stdin)))))
        return 0
    table = Table(box=SIMPLE_HEAD, title="Peaks in MB, beyond libraries and data")
    table.add_column("run", no_wrap=True)
    for column in ("planned", "measured", "error", "tensors planned", "counted", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    lines: list[Line] = []
    chosen = [case for case in cases() if any(word in case.name for word in options.only)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_tasks(folder)
        for case in chosen:
            line = compare(case, folder, texts, options)
            lines.append(line)
            table.add_row(case.name, *line.cells())
            print(" ".join([case.name, *line.cells()]), file=sys.stderr, flush=True)
            if options.json is not None:
                about = {"benchmark": "planning", "given": options.given}
                about |= surroundings(options.device)
                write_json(options.json, about | {"results": [asdict(each) for each in lines]})
    Console(width=110).print(table)
    return int(not lines or any(abs(line.error) > options.tolerance for line in lines))


if __name__ == "__main__":
    sys.exit(main())
