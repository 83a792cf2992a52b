"""The configuration of one run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from polyprefix.config.spec import Spec

TASK_FILES = (".yaml", ".yml")
"""How the path of a task's file ends."""

Positive = Annotated[int, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def is_task_file(name: str) -> bool:
    """Whether a task's name is the path of its file."""
    return name.lower().endswith(TASK_FILES) or "/" in name or "\\" in name


class ModelConfig(Spec):
    """Which backbone.

    ``name``: a name on the Hugging Face hub, a folder, or ``polyprefix/nano``, which is packaged.
    """

    name: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    trust_remote_code: bool = False


class TaskConfig(Spec):
    """Which task, its data and how much of it.

    ``name``: a task, or ``task@prompt`` for one of its other prompts (``xnli@lm-eval``); or the
    path of a YAML file that defines one.
    ``data``: a folder in the task's upstream format; without it the task is read from the hub.
    ``train_data``: a file to train on in place of the task's own training split.
    ``train_per_class``: few-shot, this many training examples of each label.
    ``max_length``: tokens of prompt and answer; longer prompts lose their beginning, counted in the
    record. ``bad_rows``: ``error`` refuses to start on a malformed row, ``skip`` leaves it out and
    counts it in the record.
    """

    name: str
    prompt: str | None = None
    data: str | None = None
    train_data: str | None = None
    revision: str | None = None
    source_language: str = "eng_Latn"
    languages: str | tuple[str, ...] = "all"
    train_samples: Positive | None = None
    train_per_class: Positive | None = None
    dev_samples: Positive | None = None
    test_samples: Positive | None = None
    max_length: Positive = 512
    bad_rows: Literal["error", "skip"] = "error"

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
    """How to train.

    ``learning_rate``: ``None`` takes the method's default, scaled to the backbone's width.
    ``steps`` or ``epochs``, not both; neither means 600 steps. ``batch_size``: examples of an
    optimizer step, however many micro-batches it takes (``runtime.micro_batch_tokens``).
    ``evaluate_every``: steps between evaluations on the source language's dev split; ``None``: a
    tenth of the training.
    """

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Positive = 16
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    evaluate_every: Positive | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give 'steps' or 'epochs', not both")
        return self


class DecodingConfig(Spec):
    """How answers are written, for tasks whose answers are.

    ``max_new_tokens``: ``None`` takes the task's. ``temperature``: 0 is greedy. ``top_p``: sample
    from the most probable tokens that have this share together.
    """

    max_new_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _effect(self) -> Self:
        if self.temperature == 0 and self.top_p != 1:
            raise ValueError("'top_p' has no effect at temperature 0")
        return self


class RuntimeConfig(Spec):
    """What may change how fast a run is but not what it computes; not part of its identity. (Sums
    are rounded otherwise, and dropout, where a backbone or LoRA has it, falls on other elements.)

    ``micro_batch_tokens``, ``evaluation_batch_tokens``: tokens of one forward pass as they are laid
    out: what examples share counts once, padding counts. ``None``: what fills the device, see
    ``models/budget.py``.
    ``checkpoint_every``: steps between checkpoints; ``None``: at every dev evaluation.
    ``keep_hidden_states``: compute what enters the lowest adapted layer once for each training
    text, instead of in every epoch, and keep it in ``memory``, or in a file of the run's folder on
    ``disk`` while it trains. ``auto``: in memory, where it takes a quarter of what is free at most
    and half of the layers or more are below, in trainings of two epochs or more. ``never``.
    ``together``: runs of a sweep that are trained at once, at most. Each takes memory for its
    adapter and optimizer; of activations there are ``micro_batch_tokens`` however many they are.
    """

    device: str = "auto"
    micro_batch_tokens: Positive | None = None
    evaluation_batch_tokens: Positive | None = None
    gradient_checkpointing: bool = False
    checkpoint_every: Positive | None = None
    keep_hidden_states: Literal["auto", "memory", "disk", "never"] = "auto"
    together: Positive = 8


class RunConfig(Spec):
    """Everything about a run. ``method`` holds ``name`` and that method's own keys."""

    model: ModelConfig
    method: dict[str, Any]
    task: TaskConfig
    train: TrainConfig = TrainConfig()
    decoding: DecodingConfig = DecodingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    seed: int = 0
    output: str = "runs"

    @model_validator(mode="after")
    def _method_named(self) -> Self:
        if not isinstance(self.method.get("name"), str):
            raise ValueError("key 'method.name' is required: the name of an adaptation method")
        return self
