"""Plans of training steps beside what the steps took: run as a program, in a process of its own."""

from __future__ import annotations

import ctypes
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polyprefix.methods import AdaptedModel, method_config
from polyprefix.models import Backbone
from polyprefix.models.batching import Batch, Text, lay_out
from polyprefix.study.simulation import (
    StepMemory,
    attach_without_numbers,
    evaluation_pass,
    training_step,
    with_numbers,
    without_numbers,
)
from polyprefix.training import micro_batch_losses

CPU = torch.device("cpu")


def made(case: dict[str, Any], attach: Any = None) -> AdaptedModel:
    values = dict(case["model"])
    torch.manual_seed(0)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AdaptedModel(Backbone(AutoModelForCausalLM.from_config(config)))
    (attach or restored)(model, method_config(case["method"]))
    return model


def restored(model: AdaptedModel, method: Any) -> None:
    model.attach(method, restore=True)


def laid_out(case: dict[str, Any]) -> Batch:
    """Texts of one length, some of which share their beginning where the case says so."""
    generator = torch.Generator().manual_seed(0)
    length, count, shared = case["length"], case["texts"], case.get("shared", 0)
    stem = torch.randint(3, 200, (shared,), generator=generator).tolist()
    texts = []
    for _ in range(count):
        rest = torch.randint(3, 200, (length - shared,), generator=generator).tolist()
        reads = range(length - case.get("reads", 1), length)
        texts.append(Text([*stem, *rest], reads, "default"))
    [batch] = lay_out(texts, length * count, 0, CPU)
    return batch


def planned(case: dict[str, Any]) -> StepMemory:
    with without_numbers():
        model = made(case, attach_without_numbers)
        with with_numbers():
            batch = laid_out(case)
        return training_step(model, batch, checkpointing=case.get("checkpointing", False))


def planned_evaluation(case: dict[str, Any]) -> int:
    with without_numbers():
        model = made(case, attach_without_numbers)
        with with_numbers():
            batch = laid_out(case)
        return evaluation_pass(model, batch)


def step(model: AdaptedModel, batch: Batch) -> None:
    targets = torch.zeros(len(batch.keep), dtype=torch.long)
    losses = micro_batch_losses(model, batch, targets, torch.zeros_like(targets), torch.ones(1))
    losses.sum().backward()


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def measured(case: dict[str, Any]) -> int:
    """Bytes by which the process grows in the second of two steps."""
    model, batch = made(case), laid_out(case)
    model.backbone.gradient_checkpointing(case.get("checkpointing", False))
    model.train()
    for _ in range(2):
        model.zero_grad()
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        step(model, batch)
    return status("VmHWM") - before


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps([planned(asked).total, measured(asked)]), flush=True)
