"""Training, ours and PEFT's, on the same examples: what ``train_shared`` and ``train_short`` run.

Ours is :func:`polyprefix.training.train` as a run calls it, with its default settings and without
a dev split. The peer is a plain loop over a PEFT model: dynamic padding to the longest of a batch,
examples sorted by length over the whole set (less padding than any shuffled order has), loss from
``labels``, gradients clipped, AdamW. Its micro-batch is the size that it is fastest with.

Agreement: both start from the same adapter and take two optimizer steps on the same examples. Loss
and norm of the gradient at the first have to be the same, and the loss at the second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from benchmarks.common import (
    METHODS,
    Comparison,
    Result,
    affordable,
    arguments,
    attach,
    fastest,
    make_model,
    timed,
)
from benchmarks.memory import in_process, reset, used
from benchmarks.wording import MEMORY
from polyprefix.config import ModelConfig, RuntimeConfig, TrainConfig
from polyprefix.methods import AdaptedModel, load_adapter
from polyprefix.models import load_backbone
from polyprefix.models.encoding import Encoder
from polyprefix.tasks import ChoiceTask, Example, Task
from polyprefix.training import TrainingExample, read_log, train

RATE = 1e-2
LOSS, NORM = 1e-4, 2e-2
"""How far apart losses may be, and, as a share, norms. A gate of PEFT's adaption prompt is what
ours is after tanh: where the gate is not zero, its gradients differ by tanh's slope."""

CHECKED = 16
"""Examples that agreement is checked on."""


@dataclass(frozen=True)
class Job:
    """What both sides are given; a file, for the processes that measure memory."""

    model: str
    adapter: str
    examples: list[tuple[list[int], list[int]]]
    batch_size: int
    micro_batch_tokens: int | None
    micro_batch: int
    device: str
    keep_hidden_states: Literal["auto", "memory", "disk", "never"] = "auto"


def encode(tokenizer: Any, task: Task, examples: Sequence[Example]) -> list[TrainingExample]:
    """Token ids as a run makes them: the prompt; the right choice, or the first right answer and
    the token that ends a text."""
    prompt = task.prompt
    prompts = [prompt.render(example.fields) for example in examples]
    if isinstance(task, ChoiceTask):
        answers = [prompt.render_choices(e.fields)[e.label] for e in examples]
        end: list[int] = []
    else:
        answers = [f" {example.answers[0]}" for example in examples]
        end = [tokenizer.eos_token_id]
    encoded = Encoder(tokenizer, 1 << 20).encode(prompts, [(answer,) for answer in answers])
    return [TrainingExample(item.prompt, [*item.answers[0], *end]) for item in encoded]


# The two sides -----------------------------------------------------------------------------------

Steps = list[tuple[float, float]]
"""Loss and norm of the gradient of every optimizer step."""


class Ours:
    """Polyprefix."""

    def __init__(self, job: Job, model: AdaptedModel | None = None) -> None:
        self.job = job
        if model is None:
            model = AdaptedModel(load_backbone(ModelConfig(name=job.model), job.device))
            load_adapter(model, job.adapter)
        self.model = model

    def __call__(
        self, examples: Sequence[TrainingExample], batch_size: int, steps: int | None = None
    ) -> Steps:
        """Train for ``steps``, or once over the examples."""
        count = steps or -(-len(examples) // batch_size)
        config = TrainConfig(
            learning_rate=RATE,
            steps=count,
            batch_size=batch_size,
            warmup=0.0,
            schedule="constant",
            evaluate_every=count,
        )
        runtime = RuntimeConfig(
            micro_batch_tokens=self.job.micro_batch_tokens,
            keep_hidden_states=self.job.keep_hidden_states,
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            nothing = (0.0, 0.0)
            train(
                self.model,
                examples,
                config,
                folder=folder,
                evaluate=lambda: nothing,
                runtime=runtime,
            )
            return [(entry["loss"], entry["gradient_norm"]) for entry in read_log(folder)]


class Theirs:
    """A plain loop over a PEFT model."""

    def __init__(self, job: Job, model: Any = None) -> None:
        self.job = job
        if model is None:
            model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
        config = PeftConfig.from_pretrained(job.adapter)
        config.inference_mode = False
        if not config.is_prompt_learning:  # a cache in training is of no use but to a prefix
            model.config.use_cache = False
        self.model = get_peft_model(model.to(job.device), config)
        tensors = load_file(Path(job.adapter) / "adapter_model.safetensors")
        set_peft_model_state_dict(self.model, tensors)
        self.parameters = [value for value in self.model.parameters() if value.requires_grad]

    def __call__(
        self,
        examples: Sequence[TrainingExample],
        batch_size: int,
        steps: int | None = None,
        micro_batch: int | None = None,
    ) -> Steps:
        """Train for ``steps``, or once over the examples."""
        optimizer = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=0.0)
        ordered = sorted(examples, key=lambda item: len(item.prompt) + len(item.answer))
        batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
        size = micro_batch or self.job.micro_batch
        self.model.train()
        done = []
        for number in range(steps or len(batches)):
            batch = batches[number % len(batches)]
            tokens = sum(len(example.answer) for example in batch)
            total = 0.0
            for start in range(0, len(batch), size):
                micro = batch[start : start + size]
                share = sum(len(example.answer) for example in micro) / tokens
                loss = self.model(**self._padded(micro)).loss * share
                loss.backward()
                total += float(loss.detach())
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, 1.0))
            optimizer.step()
            optimizer.zero_grad()
            done.append((total, norm))
        return done

    def _padded(self, examples: Sequence[TrainingExample]) -> dict[str, torch.Tensor]:
        longest = max(len(example.prompt) + len(example.answer) for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            text = [*example.prompt, *example.answer]
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
            labels[row, len(example.prompt) : len(text)] = torch.tensor(example.answer)
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: value.to(self.job.device) for name, value in tensors.items()}


# Comparing them ----------------------------------------------------------------------------------


def options_of(description: str | None) -> argparse.ArgumentParser:
    """Options of a training benchmark."""
    parser = arguments(description)
    add = parser.add_argument
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    add("--length", type=int, help="P of prefix tuning, LLaMA-Adapter and soft prompts")
    add("--batch-size", type=int, default=32, help="examples of an optimizer step, both sides")
    add("--micro-batch-tokens", type=int, help="ours; by default what a run takes on the device")
    add("--peer-batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="to choose from")
    add("--no-memory", action="store_true", help="do not measure memory")
    return parser


def compare(
    case: dict[str, Any], task: Task, chosen: Sequence[Example], options: argparse.Namespace
) -> list[Result]:
    """All methods and vocabularies on these examples."""
    results = []
    texts = [task.prompt.render(example.fields) for example in chosen]
    for size in options.vocabulary if options.model is None else [0]:
        with tempfile.TemporaryDirectory() as name:
            model = make_model(Path(name, "model"), options, size, texts)
            for method in options.methods:
                about = case | {"method": method} | ({"V": size} if size else {})
                found = prepare(about, task, chosen, model, Path(name, method), options)
                results += timed([found], options)
    return results


def prepare(
    case: dict[str, Any],
    task: Task,
    chosen: Sequence[Example],
    model: str,
    folder: Path,
    options: argparse.Namespace,
) -> Comparison:
    """One method on these examples; ``folder`` receives its adapter."""
    backbone = load_backbone(ModelConfig(name=model))
    parameters = sum(value.numel() for value in backbone.model.parameters())
    attach(AdaptedModel(backbone), case["method"], folder, options.seed, options.length)
    examples = encode(backbone.tokenizer, task, chosen)
    size = backbone.vocab_size
    del backbone
    job = Job(
        model=model,
        adapter=str(folder),
        examples=[(example.prompt, example.answer) for example in examples],
        batch_size=options.batch_size,
        micro_batch_tokens=options.micro_batch_tokens,
        micro_batch=options.peer_batches[0],
        device=options.device,
    )
    ours, theirs = Ours(job), Theirs(job)
    lengths = sorted(len(example.prompt) + len(example.answer) for example in examples)
    agrees, apart = agreement(ours, theirs, examples[:CHECKED], LOSS, NORM)
    possible = affordable(options.peer_batches, size, lengths[-1])
    sizes = [n for n in possible if n <= options.batch_size] or [1]
    some = examples[:: max(1, len(examples) // options.batch_size)]
    best = fastest(sizes, lambda n: theirs(some, options.batch_size, micro_batch=n), options.device)
    job = replace(job, micro_batch=best)
    more: dict[str, Any] = {
        "peer's micro-batch": best,
        "parameters": parameters,
        "tokens": {"all": sum(lengths), "longest": lengths[-1]},
    }
    if not options.no_memory:
        more[MEMORY] = {side: peak_memory(job, side, folder) for side in ("ours", "theirs")}
    return Comparison(
        case=case,
        peer="PEFT",
        work=len(examples),
        ours=lambda: ours(examples, options.batch_size),
        theirs=lambda: theirs(examples, options.batch_size, micro_batch=best),
        agrees=agrees,
        agreement=apart,
        more=more,
    )


def agreement(
    ours: Ours,
    theirs: Theirs,
    examples: Sequence[TrainingExample],
    loss_tolerance: float,
    norm_tolerance: float,
) -> tuple[bool, dict[str, Any]]:
    """Two optimizer steps, each over all ``examples``, so their order is of no matter."""
    mine, other = ours(examples, len(examples), 2), theirs(examples, len(examples), 2)
    first, second = (abs(a[0] - b[0]) for a, b in zip(mine, other, strict=True))
    norm = abs(mine[0][1] / other[0][1] - 1)
    moved = abs(mine[1][0] - mine[0][0])
    allowed = loss_tolerance * max(1.0, other[0][0])
    # A step that changed nothing would agree with another one that does not.
    agrees = max(first, second) < allowed and second < moved / 2 and norm < norm_tolerance
    apart = {"loss": first, "norm": norm, "loss after a step": second}
    return agrees, {"loss": mine[0][0], "moved": moved, "apart": apart}


def peak_memory(job: Job, side: str, folder: Path) -> float:
    """MiB of one pass over the examples, in a process of its own."""
    return in_process("benchmarks.training", asdict(job), side, folder)


def measure(path: str, side: str) -> None:
    """The process that measures memory: MiB from before the model is loaded, at the most."""
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    examples = [TrainingExample(prompt, answer) for prompt, answer in job.examples]
    before = reset(job.device)
    runner = Ours(job) if side == "ours" else Theirs(job)
    runner(examples, job.batch_size)
    print((used(job.device) - before) / 2**20)


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2])
