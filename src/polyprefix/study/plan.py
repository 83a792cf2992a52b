"""What a run will take of memory, before any weight is loaded.

The model is made from its configuration, without numbers, and the largest micro-batch of the run's
own texts goes through it (:mod:`polyprefix.study.simulation`). A study's probes measure the same
where the model is there: they train and score for some seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from polyprefix.config import RunConfig
from polyprefix.evaluation import columns
from polyprefix.methods import AdaptedModel, Adapter, check_frozen, method_config, method_of
from polyprefix.models import Backbone
from polyprefix.models.backbone import DTYPES, read_config
from polyprefix.models.batching import Text, beginnings, lay_out
from polyprefix.models.budget import training_tokens
from polyprefix.models.encoding import Encoded
from polyprefix.models.quantization import quantise, stored_bytes
from polyprefix.models.tiny import tiny_backbone
from polyprefix.results import Progress, Silent, free_memory
from polyprefix.study.fit import Fitting
from polyprefix.study.largest import (
    CPU,
    SAMPLE,
    answered_rows,
    busiest,
    laid_out,
    scoring_batch,
    training_batch,
    training_texts,
)
from polyprefix.study.prepare import check_offload, choose_device
from polyprefix.study.run import starting_text
from polyprefix.study.simulation import (
    StepMemory,
    attach_without_numbers,
    evaluation_pass,
    filling_pass,
    generation_pass,
    training_step,
    without_numbers,
)
from polyprefix.tasks import AnswerTask, Example, load_task_data
from polyprefix.training import kept_layer, num_steps
from polyprefix.training.keeping import SHARE

PROGRAM = "program and data"
"""The part that is there before the model is."""

CHECKPOINT = "writing a checkpoint"

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        return max(map(_total, (self.training, self.evaluation)))

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
    program = in_use_by_program(trains=method_of(method).trains) if device.type == "cpu" else 0
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
        few = replace(data, train=data.train[:SAMPLE], dev=data.dev[:SAMPLE])
        fitting = Fitting(model, few, config.task.max_length, config.runtime, config.decoding)
        tokens, training, beside = 0, list[Part](), list[Part]()
        if adapter.trains:
            tokens, parts, held = _training(config, model, fitting, len(data.train), device)
            training = [*weights, *parts]
            beside = [_optimizer(adapter), held]
        read, evaluation = _evaluation(model, fitting, data.test, beside, device)
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


def in_use_by_program(*, trains: bool) -> int:
    """Resident bytes of this process once it has scored something small, and trained on it where
    the run does: code is read from its files when it is first used."""
    model = AdaptedModel(tiny_backbone("llama"))
    adapter = model.attach({"name": "lora"})
    [batch] = lay_out([Text(list(range(3, 67)), range(60, 64), model.active)], 64, 0, CPU)
    evaluation_pass(model, batch)
    if not trains:
        return int(psutil.Process().memory_info().rss)
    training_step(model, batch)
    for value in adapter.trainable().values():
        value.grad = torch.zeros_like(value)
    torch.optim.AdamW(adapter.trainable().values()).step()
    return int(psutil.Process().memory_info().rss)


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
        Part(PROGRAM, program),
        Part("frozen weights", frozen),
        Part("trained weights", stored_bytes(trained)),
    ]


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _optimizer(adapter: Adapter) -> Part:
    """Two values of AdamW for each that is trained."""
    return Part("optimizer", 2 * stored_bytes(adapter.trainable().values()))


def _total(parts: Iterable[Part]) -> int:
    return sum(part.size for part in parts)


def _step_parts(adapter: Adapter, step: StepMemory, device: torch.device) -> list[Part]:
    """What a step takes, at its fullest moment: in the backward pass, or where the optimizer works,
    by when activations are gone and all gradients are there."""
    trained = list(adapter.trainable().values())
    size = stored_bytes(trained)
    # torch's AdamW goes through all tensors at once on a GPU, and one by one elsewhere.
    largest = max(value.numel() * value.element_size() for value in trained)
    working = size + (size if device.type == "cuda" else 2 * largest)
    optimizer = _optimizer(adapter)
    if working > step.total:
        return [optimizer, Part("gradients and the optimizer's step", working)]
    return [
        optimizer,
        Part("activations", step.activations),
        Part("logits", step.logits),
        Part("gradients and the backward pass", step.backward),
    ]


def _training(
    config: RunConfig,
    model: AdaptedModel,
    fitting: Fitting,
    count: int,
    device: torch.device,
) -> tuple[int, list[Part], Part]:
    """Tokens of the largest micro-batch; what training takes beside the weights at its fullest
    moment; kept hidden states, which are among it.

    Args:
        config: of the run.
        model: with the adapter in use.
        fitting: with the training examples that are looked at.
        count: of all training examples.
        device: of the run.
    """
    runtime, adapter = config.runtime, model.adapter()
    examples = fitting.job(config.train, Path()).examples
    texts = training_texts(model, examples)
    layer, kept = _kept(config, model, texts, count)
    in_memory = kept if device.type == "cpu" and runtime.keep_hidden_states != "disk" else 0
    held = Part("kept hidden states", in_memory)
    tokens = training_tokens(runtime.micro_batch_tokens, device)
    batch, accumulated = training_batch(config, model, examples, texts, count, tokens, device)
    memory = training_step(
        model,
        batch,
        precision=PRECISIONS[config.train.mixed_precision],
        checkpointing=runtime.gradient_checkpointing,
        entering=layer,
        accumulated=accumulated,
    )
    moments = [[*_step_parts(adapter, memory, device), held]]
    if device.type == "cpu":
        # safetensors makes bytes of what is written, and Python a copy of them.
        written = 2 * (stored_bytes(adapter.trainable().values()) + _optimizer(adapter).size)
        moments.append([_optimizer(adapter), held, Part(CHECKPOINT, written)])
    if layer is not None:
        below = laid_out(texts, runtime.evaluation_batch_tokens, model, device)
        moments.append([held, Part("forward pass", filling_pass(model, below, layer))])
    return batch.input_ids.numel(), max(moments, key=_total), held


def _kept(
    config: RunConfig, model: AdaptedModel, texts: Sequence[Text], count: int
) -> tuple[int | None, int]:
    """The layer that kept hidden states enter, and their bytes; ``None`` and 0 where none are."""
    runtime, backbone = config.runtime, model.backbone
    passes = num_steps(config.train, count) * config.train.batch_size / count
    layer = kept_layer([model.adapter()], passes, runtime, backbone.num_layers)
    if not layer:
        return None, 0
    of_texts, _ = beginnings([text.ids for text in texts])
    share = count / len(texts)
    size = int(of_texts * share * backbone.hidden_size * backbone.dtype.itemsize)
    if runtime.keep_hidden_states == "auto" and size > free_memory() * SHARE:
        return None, 0
    return layer, size


def _evaluation(
    model: AdaptedModel,
    fitting: Fitting,
    test: Mapping[str, Sequence[Example]],
    beside: Sequence[Part],
    device: torch.device,
) -> tuple[int, list[Part]]:
    """Tokens of the largest forward pass in evaluation, and what it takes beside the weights.

    Args:
        model: with the adapter in use.
        fitting: with the dev examples that are looked at.
        test: test examples of all languages.
        beside: what a training holds while the dev split is scored.
        device: of the run.
    """
    data = fitting.data
    busy = busiest(fitting, test)
    moments = [_read(model, fitting, code, test[code][:SAMPLE], device) for code in busy]
    if model.adapter().trains:
        dev, source = data.dev, data.source_language
        while_training = [_read(model, fitting, source, dev, device)]
        if isinstance(data.task, AnswerTask):  # the right ones are scored, too
            while_training.append(_scored(model, fitting.right_answers(dev), fitting, device))
        moments += [(tokens, [*beside, *parts]) for tokens, parts in while_training]
    return max(moments, key=lambda moment: _total(moment[1]))


def _read(
    model: AdaptedModel,
    fitting: Fitting,
    language: str,
    examples: Sequence[Example],
    device: torch.device,
) -> tuple[int, list[Part]]:
    """Tokens and memory of the largest forward pass over examples of a language."""
    encoded = fitting.encode(language, examples)
    if not isinstance(fitting.data.task, AnswerTask):
        return _scored(model, encoded, fitting, device)
    rows = answered_rows(model, encoded, fitting, language)
    cache, most = generation_pass(model, rows, device)
    return columns(rows) * len(rows), [Part("cache", cache), Part("forward pass", most)]


def _scored(
    model: AdaptedModel, encoded: Sequence[Encoded], fitting: Fitting, device: torch.device
) -> tuple[int, list[Part]]:
    batch = scoring_batch(model, encoded, fitting.budget.tokens, device)
    return batch.input_ids.numel(), [Part("forward pass", evaluation_pass(model, batch))]
