"""What a run will take of memory, before any weight is loaded.

The model is made from its configuration, without numbers, and the largest micro-batch of the run's
own texts goes through it (:mod:`polyprefix.study.simulation`). A study's probes measure the same
where the model is there: they train and score for some seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from polyprefix.config import RunConfig
from polyprefix.methods import AdaptedModel, Adapter, check_frozen, method_config, method_of
from polyprefix.models import Backbone
from polyprefix.models.backbone import DTYPES, read_config
from polyprefix.models.batching import ATTENTION_LENGTH, Batch, Text, beginnings, lay_out
from polyprefix.models.budget import training_tokens
from polyprefix.models.quantization import quantise, stored_bytes
from polyprefix.results import Progress, Silent, free_memory
from polyprefix.study.fit import Fitting
from polyprefix.study.prepare import check_offload, choose_device
from polyprefix.study.run import starting_text
from polyprefix.study.simulation import (
    StepMemory,
    attach_without_numbers,
    evaluation_pass,
    generation_pass,
    training_step,
    with_numbers,
    without_numbers,
)
from polyprefix.tasks import AnswerTask, TaskData, load_task_data
from polyprefix.training import kept_layer, num_steps

SAMPLE = 2048
"""Training examples that are looked at, the first of them."""

TESTED = 64
"""Test examples of each language that are looked at."""

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Part:
    """One use of memory, in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Plan:
    """What a run takes of its device's memory at most, in bytes.

    Attributes:
        model: its name.
        method: title of the method.
        device: that it was planned for.
        parameters: of the backbone.
        trainable: parameters that are trained.
        micro_batch_tokens: of the largest micro-batch in training; 0 where nothing is trained.
        evaluation_batch_tokens: of the largest forward pass in evaluation.
        training: what is in use at the fullest moment of a training step.
        evaluation: the same in evaluation.
        available: what the process can have on the device; ``None``: the device is not there.
    """

    model: str
    method: str
    device: str
    parameters: int
    trainable: int
    micro_batch_tokens: int
    evaluation_batch_tokens: int
    training: tuple[Part, ...]
    evaluation: tuple[Part, ...]
    available: int | None

    @property
    def total(self) -> int:
        """At the fullest moment of all."""
        return max(sum(part.size for part in parts) for parts in (self.training, self.evaluation))

    @property
    def fits(self) -> bool | None:
        """``None``: it is not known how much there is."""
        return None if self.available is None else self.total <= self.available

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"total": self.total, "fits": self.fits}


def plan_run(
    config: RunConfig, *, available: int | None = None, progress: Progress | None = None
) -> Plan:
    """The memory of a run. Data and tokenizer are read, weights are not.

    Args:
        config: of the run.
        available: bytes of the device, where the run will not be on this machine.
        progress: told what is looked at.

    Raises:
        PolyprefixError: whatever is wrong with configuration, data or model.
    """
    progress = progress or Silent()
    method = method_config(config.method)
    elsewhere = available is not None and config.runtime.device != "auto"
    device = (
        torch.device(config.runtime.device) if elsewhere else choose_device(config.runtime.device)
    )
    check_frozen(method_of(method), method, config.model)
    check_offload(config, device, trains=method_of(method).trains)
    progress.say("reading the data and the model's configuration")
    data = load_task_data(config.task, seed=config.seed, with_training=method_of(method).trains)
    model_config, tokenizer = read_config(config.model)
    program = psutil.Process().memory_info().rss if device.type == "cpu" else 0
    if available is None:
        available = _available(device, program)
    progress.say("computing without numbers")
    with without_numbers():
        dtype = DTYPES.get(config.model.dtype) or getattr(model_config, "dtype", None)
        if not method_of(method).mixes(method):  # what is trained is in float32
            dtype = torch.float32
        made = AutoModelForCausalLM.from_config(model_config, dtype=dtype or torch.float32)
        kind = config.model.quantization
        if kind is not None:
            quantise(made, kind)
        model = AdaptedModel(Backbone(made, tokenizer, config.model.name, quantization=kind))
        parameters = made.num_parameters()
        adapter = attach_without_numbers(model, method, starting_text(data))
        offloaded = config.model.offload == "cpu"
        weights = _weights(model, adapter, program, offloaded=offloaded)
        tokens, training = 0, list[Part]()
        if adapter.trains:
            tokens, step, kept = _training(config, model, data, device)
            training = [*weights, *_step_parts(adapter, step, device)]
            if device.type == "cpu" and config.runtime.keep_hidden_states != "disk":
                training.append(Part("kept hidden states", kept))
        read, evaluation = _evaluation(config, model, data, device)
        return Plan(
            config.model.name,
            adapter.title,
            str(device),
            parameters,
            adapter.num_trainable(),
            tokens,
            read,
            tuple(part for part in training if part.size),
            tuple(part for part in (*weights, *evaluation) if part.size),
            available,
        )


def _available(device: torch.device, program: int) -> int | None:
    if device.type == "cpu":
        return program + free_memory()
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def _weights(model: AdaptedModel, adapter: Adapter, program: int, *, offloaded: bool) -> list[Part]:
    trained = list(adapter.trainable().values())
    ids = {id(value) for value in trained}
    others = [v for v in _tensors(model.backbone.model) if id(v) not in ids]
    frozen = stored_bytes(others)
    if offloaded:  # but one layer's at a time: what computes it again in the backward pass keeps
        layers = [
            stored_bytes(v for v in _tensors(layer) if id(v) not in ids)
            for layer in model.backbone.layers
        ]
        frozen += max(layers) - sum(layers)
    return [
        Part("program and data", program),
        Part("frozen weights", frozen),
        Part("trained weights", stored_bytes(trained)),
    ]


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _step_parts(adapter: Adapter, step: StepMemory, device: torch.device) -> list[Part]:
    """What a step takes, at its fullest moment: in the backward pass, or where the optimizer works,
    by when activations are gone and all gradients are there."""
    trained = list(adapter.trainable().values())
    size = stored_bytes(trained)
    # torch's AdamW goes through all tensors at once on a GPU, and one by one elsewhere.
    largest = max(value.numel() * value.element_size() for value in trained)
    working = size + (size if device.type == "cuda" else 2 * largest)
    optimizer = Part("optimizer", 2 * size)
    if working > step.total:
        return [optimizer, Part("gradients and the optimizer's step", working)]
    return [
        optimizer,
        Part("activations", step.activations),
        Part("logits", step.logits),
        Part("gradients and the backward pass", step.backward),
    ]


def _training(
    config: RunConfig, model: AdaptedModel, data: TaskData, device: torch.device
) -> tuple[int, StepMemory, int]:
    """Tokens and memory of the micro-batch that the longest examples make; bytes of kept hidden
    states."""
    few = replace(data, train=data.train[:SAMPLE])
    runtime, backbone = config.runtime, model.backbone
    fitting = Fitting(model, few, config.task.max_length, runtime, config.decoding)
    examples = fitting.job(config.train, Path()).examples
    texts = [_text(model, example.prompt, example.answer) for example in examples]
    passes = num_steps(config.train, len(data.train)) * config.train.batch_size / len(data.train)
    layer = kept_layer([model.adapter()], passes, runtime, backbone.num_layers)
    kept = 0
    if layer:
        count, _ = beginnings([text.ids for text in texts])
        share = len(data.train) / len(texts)
        kept = int(count * share * backbone.hidden_size * backbone.dtype.itemsize)
    longest = sorted(texts, key=lambda text: -len(text.ids))[: config.train.batch_size]
    batch = _laid_out(longest, training_tokens(runtime.micro_batch_tokens, device), model, device)
    memory = training_step(
        model,
        batch,
        precision=PRECISIONS[config.train.mixed_precision],
        checkpointing=runtime.gradient_checkpointing,
        entering=layer or None,
    )
    return batch.input_ids.numel(), memory, kept


def _evaluation(
    config: RunConfig, model: AdaptedModel, data: TaskData, device: torch.device
) -> tuple[int, list[Part]]:
    """Tokens and memory of a forward pass over the longest test texts."""
    budget = config.runtime.evaluation_batch_tokens
    test = {code: part[:TESTED] for code, part in data.test.items()}
    fitting = Fitting(model, data, config.task.max_length, config.runtime, config.decoding)
    encoded = [item for code, part in test.items() for item in fitting.encode(code, part)]
    if isinstance(data.task, AnswerTask):
        new = max(decoding.max_new_tokens for decoding in fitting.decodings.values())
        prompt = max(len(model.wrap(item.prompt)) for item in encoded)
        rows = max(1, min(budget // (prompt + new), len(encoded)))
        cache, most = generation_pass(model, rows, prompt, new)
        return rows * (prompt + new), [Part("cache", cache), Part("forward pass", most)]
    texts = [_text(model, item.prompt, answer) for item in encoded for answer in item.answers]
    texts.sort(key=lambda text: -len(text.ids))
    batch = _laid_out(texts, budget, model, device)
    with with_numbers():  # answers to one prompt read the same places
        batch = replace(batch, keep=torch.unique(batch.keep))
    return batch.input_ids.numel(), [Part("forward pass", evaluation_pass(model, batch))]


def _text(model: AdaptedModel, bare: list[int], answer: list[int]) -> Text:
    prompt = model.wrap(bare)
    reads = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
    return Text([*prompt, *answer[:-1]], reads, model.active)


def _laid_out(
    texts: Sequence[Text], budget: int, model: AdaptedModel, device: torch.device
) -> Batch:
    """The first batch, which has the longest texts.

    On a GPU, attention skips what the mask hides and no mask is written out, in rows as long as the
    batch; here it is one text a row, which needs none either."""
    with with_numbers():
        batches = lay_out(texts, budget, model.pad_id, CPU, ATTENTION_LENGTH)
        batch = max(batches, key=lambda found: found.input_ids.numel())
        until = batch.until if device.type == "cpu" else None
        return replace(batch, until=until)
