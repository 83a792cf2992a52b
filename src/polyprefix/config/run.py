"""The configuration of one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from polyprefix.config.spec import Spec

TASK_FILES = (".yaml", ".yml")
"""How the path of a task's file ends."""

Positive = Annotated[int, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def _path(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path holds no NUL")
    try:
        Path(text).expanduser()
    except RuntimeError as error:  # ~somebody
        raise ValueError(str(error)) from None
    return text


PathText = Annotated[str, AfterValidator(_path)]
"""A path or a name, of which no system call says that it is none."""


def _seed(seed: int) -> int:
    if not -(2**63) <= seed < 2**63:
        raise ValueError("a seed has 64 bits")
    return seed


Seed = Annotated[int, AfterValidator(_seed)]


def is_task_file(name: str) -> bool:
    """Whether a task's name is the path of its file."""
    return name.lower().endswith(TASK_FILES) or "/" in name or "\\" in name


class ModelConfig(Spec):
    """Which backbone."""

    name: PathText
    """A name on the Hugging Face hub, a folder, or ``polyprefix/nano``, which is packaged."""
    revision: str | None = None
    """A branch, tag or commit on the hub; by default ``main``. The record holds the commit."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Of the frozen weights; ``auto`` takes the one they are stored in. What is trained is in
    float32 whatever this says."""
    quantization: Literal["int8", "nf4"] | None = None
    """Hold the frozen linear maps of the layers in 8 or 4 bits, by torchao (extra
    ``quantization``); ``dtype`` is then what is computed in. Not with a method that trains the
    model's own weights."""
    offload: Literal["none", "cpu"] = "none"
    """``cpu``: the layers' frozen weights wait in main memory and come to the device one at a time.
    Training then needs ``runtime.gradient_checkpointing``. Changes no result."""
    trust_remote_code: bool = False
    """Let transformers run Python code that comes with a model on the hub."""

    @model_validator(mode="after")
    def _whole_weights_move(self) -> Self:
        if self.quantization is not None and self.offload != "none":
            raise ValueError(
                "'offload' moves whole weights and cannot move quantised ones: leave "
                "'model.offload' or 'model.quantization' out"
            )
        return self


class TaskConfig(Spec):
    """Which task, its data and how much of it."""

    name: PathText
    """A task, or ``task@prompt`` for one of its other prompts (``xnli@lm-eval``); or the path of a
    YAML file that defines one."""
    prompt: str | None = None
    """One of the task's other prompts, as after the ``@`` of ``name``."""
    data: PathText | None = None
    """A folder in the task's upstream format; without it the task is read from the hub."""
    train_data: PathText | None = None
    """A file to train on in place of the task's own training split."""
    revision: str | None = None
    """A branch, tag or commit of the data set on the hub."""
    source_language: str = "eng_Latn"
    """The language that is trained on, and that checkpoints are selected in."""
    languages: str | tuple[str, ...] = "all"
    """Which languages are tested: ``all``, or codes, names and groups in any mixture, such as
    ``sw,tr,family:Uralic,script:Cyrl,level:0-2,-en``. The source language is always among them."""
    train_samples: Positive | None = None
    """So many of the training examples, drawn by the seed."""
    train_per_class: Positive | None = None
    """Few-shot: this many training examples of each label."""
    dev_samples: Positive | None = None
    """So many of the dev examples."""
    test_samples: Positive | None = None
    """So many of the test examples of each language."""
    max_length: Positive = 512
    """Tokens of prompt and answer; longer prompts lose their beginning, counted in the record."""
    bad_rows: Literal["error", "skip"] = "error"
    """``error`` refuses to start on a malformed row, ``skip`` leaves it out and counts it in the
    record."""

    @model_validator(mode="before")
    @classmethod
    def _prompt_in_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(name := values.get("name"), str):
            task, at, prompt = name.rpartition("@")
            # The path of a task's file may have an @ of its own: what follows that is a path.
            if at and not is_task_file(prompt) and values.get("prompt") is None:
                return values | {"name": task, "prompt": prompt}
        return values


class TrainConfig(Spec):
    """How to train: AdamW on the log-probability of the right answers."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """The peak; ``null`` takes the method's default, scaled to the backbone's width."""
    steps: Positive | None = None
    """Optimizer steps; ``steps`` or ``epochs``, not both. Neither means 600 steps."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training examples, in place of ``steps``."""
    batch_size: Positive = 16
    """Examples of an optimizer step, however many micro-batches it takes
    (``runtime.micro_batch_tokens``)."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps over which the rate rises to its peak."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate goes on from there: to zero, or not at all."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's, of all that is trained."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients whose norm is larger are scaled down to it."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Compute in this type by autocast; what is trained stays in float32."""
    evaluate_every: Positive | None = None
    """Steps between evaluations on the source language's dev split; ``null``: a tenth of the
    training."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give 'steps' or 'epochs', not both")
        return self


class DecodingConfig(Spec):
    """How answers are written, for tasks whose answers are."""

    max_new_tokens: Positive | None = None
    """An answer ends after so many tokens at the latest; ``null`` takes the task's number."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Logits are divided by it and an answer is drawn; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most probable tokens that have this share together."""

    @model_validator(mode="after")
    def _effect(self) -> Self:
        if self.temperature == 0 and self.top_p != 1:
            raise ValueError("'top_p' has no effect at temperature 0")
        return self


class RuntimeConfig(Spec):
    """What may change how fast a run is but not what it computes; not part of its identity. (Sums
    are rounded otherwise, and dropout, where a backbone or LoRA has it, falls on other elements.)
    """

    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes a CUDA device, Apple's, or the CPU, in
    that order."""
    micro_batch_tokens: Positive | None = None
    """Tokens of one forward pass in training as they are laid out: what examples share counts once,
    padding counts. ``null``: what fills the device, 1,024 on a CPU, 8,192 elsewhere."""
    evaluation_batch_tokens: Positive = 16384
    """The same in evaluation."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping what they computed: less memory,
    more time."""
    checkpoint_every: Positive | None = None
    """Steps between checkpoints; ``null``: at every dev evaluation."""
    keep_hidden_states: Literal["auto", "memory", "disk", "never"] = "auto"
    """Compute what enters the lowest adapted layer once for each training text, instead of in every
    epoch, and keep it in ``memory``, or in a file of the run's folder on ``disk`` while it trains.
    ``auto``: in memory, where it takes a quarter of what is free at most and half of the layers or
    more are below, in trainings of two epochs or more. ``never``."""
    together: Positive = 8
    """Runs of a sweep that are trained at once, at most. Each takes memory for its adapter and
    optimizer; of activations there are ``micro_batch_tokens`` however many they are."""


class RunConfig(Spec):
    """Everything about a run."""

    model: ModelConfig
    """Which backbone."""
    method: dict[str, Any]
    """``name`` of the adaptation method, and that method's own keys."""
    task: TaskConfig
    """Which task, its data and how much of it."""
    train: TrainConfig = TrainConfig()
    """How to train."""
    decoding: DecodingConfig = DecodingConfig()
    """How answers are written, for tasks whose answers are."""
    runtime: RuntimeConfig = RuntimeConfig()
    """What may change how fast a run is but not what it computes."""
    seed: Seed = 0
    """Of everything random: initialisation, the order of examples, subsampling, dropout."""
    output: PathText = "runs"
    """Folder in which the run's own folder is made."""

    @model_validator(mode="after")
    def _method_named(self) -> Self:
        if not isinstance(self.method.get("name"), str):
            raise ValueError("key 'method.name' is required: the name of an adaptation method")
        try:
            json.dumps(self.method, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"section 'method' holds what JSON cannot: {error}") from None
        return self
