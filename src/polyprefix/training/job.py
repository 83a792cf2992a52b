"""One training: what it is, and where it stands among those that go on with it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor

from polyprefix.config import (
    ConfigError,
    OutOfMemory,
    PolyprefixError,
    RunError,
    RuntimeConfig,
    TrainConfig,
    digest,
)
from polyprefix.distributed import put, total_norm, whole, world
from polyprefix.methods import (
    AdaptedModel,
    Adapter,
    MethodConfig,
    for_peft,
    method_of,
    save_adapter,
)
from polyprefix.methods.storage import WEIGHTS
from polyprefix.models.batching import Text, groups
from polyprefix.models.budget import training_tokens, unless_out_of_memory
from polyprefix.results import read_jsonl, write_jsonl, writing
from polyprefix.training.batches import batches_from, most_of
from polyprefix.training.checkpoint import load_checkpoint, save_checkpoint
from polyprefix.training.schedule import factor

DEFAULT_STEPS = 600

SOLVED = 1e-3
"""A loss so small that there need be no gradient left in float32."""

DevScore = tuple[float, float]
"""Score on the dev split, higher is better, and what breaks a tie."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """``prompt`` token ids without soft tokens; the loss is taken on those of the ``answer``."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Job:
    """A training that is to be done.

    Attributes:
        adapter: name of the adapter on the model.
        examples: the source language's training examples.
        config: see :class:`TrainConfig`.
        folder: receives ``log.jsonl``, ``checkpoints/`` and ``adapter/``, the best so far. If it
            holds a checkpoint, the training goes on from there and ends as if never interrupted.
        evaluate: scores the model on the source language's dev split, under the adapter in use.
        seed: of the order of examples and of dropout.
    """

    adapter: str
    examples: Sequence[TrainingExample]
    config: TrainConfig
    folder: Path
    evaluate: Callable[[], DevScore]
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What a training amounted to.

    ``seconds``: of trainings that went on together each has its share of what they did together, by
    tokens. ``micro_batch_tokens``: of a forward pass at most, in the end: fewer than at first where
    memory did not suffice. ``best_dev``: score of the adapter that was kept. ``best_tie_break``:
    what decides among equal ones.
    """

    steps: int
    seconds: float
    micro_batch_tokens: int
    best_step: int
    best_dev: float
    best_tie_break: float


def num_steps(config: TrainConfig, examples: int) -> int:
    """Optimizer steps of a training."""
    if config.epochs is not None:
        return math.ceil(config.epochs * math.ceil(examples / config.batch_size))
    return config.steps or DEFAULT_STEPS


def peak_learning_rate(config: TrainConfig, method: MethodConfig, hidden_size: int) -> float:
    """The configuration's learning rate, or the method's default for a backbone of that width."""
    default = method_of(method).default_learning_rate(method, hidden_size)
    return config.learning_rate or default


class Training:
    """A job under way: everything of it but the forward and the backward pass.

    Attributes:
        chosen: indices of the examples of the optimizer step that is being done.
        loss: of the last one.
        micro_batch_tokens: of a forward pass of it at most.
        error: why it ended before its time.

    Raises:
        RunError: there is nothing to train or to train on, or the checkpoint cannot be used.
        ConfigError: the precision is not for this device.
    """

    def __init__(self, model: AdaptedModel, job: Job, runtime: RuntimeConfig) -> None:
        self.model, self.job, config = model, job, job.config
        self.adapter = adapter = model.adapter(job.adapter)
        self.parameters = adapter.trainable()
        if not self.parameters:
            raise RunError(f"method {adapter.method!r} has nothing to train")
        if not job.examples:
            raise RunError("there are no training examples")
        if config.mixed_precision == "fp16" and model.backbone.device.type != "cuda":
            raise ConfigError("train.mixed_precision=fp16 needs a CUDA device; bf16 works on a CPU")
        self._in_parts = any(isinstance(value, DTensor) for value in self.parameters.values())
        if config.mixed_precision == "fp16" and self._in_parts:
            raise ConfigError(
                "train.mixed_precision=fp16 does not go with weights that are trained in parts "
                "(--use_fsdp): take bf16"
            )
        self.peak = peak_learning_rate(config, adapter.config, model.backbone.hidden_size)
        self.steps = num_steps(config, len(job.examples))
        self._evaluate_every = config.evaluate_every or max(1, self.steps // 10)
        self._checkpoint_every = runtime.checkpoint_every or self._evaluate_every
        self.texts = [_text(model, example, job.adapter) for example in job.examples]
        self._lengths = [len(text.ids) for text in self.texts]
        optimizer = torch.optim.AdamW(
            _groups(self.parameters.values()),
            lr=self.peak,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        for value in self.parameters.values():
            if not isinstance(value, DTensor):  # another device may have rounded otherwise
                world().hand_out_(value.detach())
        torch.manual_seed(job.seed + world().rank)  # of dropout: examples differ, so may masks
        self._identity = _identity(adapter, job, self.peak)
        self.state = load_checkpoint(
            job.folder / "checkpoints", self._identity, self.parameters, optimizer
        )
        # One each: what fp16 scales a loss by, and which steps it leaves out, is a training's own.
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=model.backbone.device.type == "cpu",
            device_placement=False,
        )
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)
        self._optimizer = self.accelerator.prepare_optimizer(optimizer)
        # of the examples alone, without soft tokens: the order is the same for every method
        together = groups([e.prompt for e in job.examples], most_of(config.batch_size))
        self._order = batches_from(
            self._lengths, together, config.batch_size, job.seed, self.state.step
        )
        self._log_path = job.folder / "log.jsonl"
        self._log: TextIO | None = None
        world().first(self._open_log)
        self.chosen: list[int] = []
        self.loss = 0.0
        self.micro_batch_tokens = training_tokens(runtime.micro_batch_tokens, model.backbone.device)
        self.error: PolyprefixError | None = None

    def _open_log(self) -> None:
        self._log = _reopen_log(self._log_path, self.state.step)

    @property
    def done(self) -> bool:
        """All steps are."""
        return self.state.step >= self.steps

    @property
    def tokens(self) -> int:
        """Of the examples of this step."""
        return sum(self._lengths[i] for i in self.chosen)

    @property
    def best(self) -> float | None:
        """The best dev score so far."""
        return None if self.state.best_step < 0 else self.state.best[0]

    def draw(self) -> None:
        """Choose the examples of the next optimizer step."""
        self.chosen = next(self._order)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What gradients are taken of: fp16 scales the loss."""
        scaler = self.accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    def update(self, loss: float, seconds: float) -> bool:
        """Do the optimizer step, now that its gradients are there, and the dev evaluation that may
        be due after it.

        Args:
            loss: of the step.
            seconds: that its gradients took.

        Returns:
            Whether there was an evaluation; the model then uses this adapter.

        Raises:
            RunError: loss or gradient is infinite or NaN, or the evaluation is; or no parameter has
                a gradient though there is a loss.
        """
        started = time.perf_counter() - seconds - self.state.seconds
        state, config = self.state, self.job.config
        rate = self.peak * factor(config.schedule, state.step, self.steps, config.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        clip = total_norm if self._in_parts else self.accelerator.clip_grad_norm_
        norm = float(clip(self.parameters.values(), config.max_grad_norm))
        # fp16's loss scaling finds its scale by overflowing, and leaves those steps out
        overflows = config.mixed_precision == "fp16"
        # Where a rate was far too large, numbers may be finite and no gradient be left.
        stuck = norm == 0.0 and loss > SOLVED
        if stuck or not (math.isfinite(loss) and (overflows or math.isfinite(norm))):
            raise RunError(_diverged(loss, norm, state.step + 1, self.job.folder))
        failed = unless_out_of_memory(self._optimizer.step) is None
        if world().any(failed):  # weights differ between processes from here on
            raise OutOfMemory(_optimizer_too_large(self.parameters.values()))
        self._optimizer.zero_grad()
        self.loss = loss
        state.step += 1
        state.seconds = time.perf_counter() - started
        entry = {
            "step": state.step,
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm if math.isfinite(norm) else None,
            "tokens": self.tokens,
            "seconds": round(state.seconds, 3),
        }
        due = self._due(self._evaluate_every)
        if due:
            self.model.use(self.job.adapter)
            score = self.job.evaluate()
            score = world().first(lambda: score)  # one decision for all
            entry |= {"dev_score": score[0], "dev_tie_break": score[1]}
            if score > state.best:
                state.best, state.best_step = score, state.step
                self._save_adapter()
        if self._log is not None:
            with writing(self._log_path):
                self._log.write(json.dumps(entry) + "\n")
        state.seconds = time.perf_counter() - started
        return due

    def drop_gradients(self) -> None:
        """Forget what was added up of this step."""
        self._optimizer.zero_grad()

    def _save_adapter(self) -> None:
        adapter, folder = self.adapter, self.job.folder / "adapter"
        tensors = {name: whole(value) for name, value in adapter.state().items()}
        peft = for_peft(adapter)  # asks a sharded backbone, which all processes have to
        world().first(lambda: save_adapter(adapter, folder, state=tensors, peft=peft) and None)

    def save(self, *, now: bool = False) -> None:
        """Write a checkpoint if one is due, or ``now``."""
        if not (now or self._due(self._checkpoint_every)):
            return
        if self._log is not None:
            with writing(self._log_path):
                self._log.flush()
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        save_checkpoint(
            self.job.folder / "checkpoints",
            self._identity,
            self.state,
            self.parameters,
            self._optimizer,
        )

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.done

    def close(self) -> None:
        """No more steps follow."""
        self._optimizer.zero_grad()
        if self._log is not None:
            with writing(self._log_path):
                self._log.close()

    def result(self) -> Trained:
        """Leave the adapter as it was at its best dev evaluation."""
        path = self.job.folder / "adapter" / WEIGHTS
        best: dict[str, torch.Tensor] = {}

        def read() -> None:
            try:
                best.update(load_file(path))
            except (OSError, SafetensorError) as error:
                raise RunError(
                    f"cannot read the best adapter, {str(path)!r} ({error}); --again trains it anew"
                ) from error
            self.adapter.check_state(best)

        world().first(read)
        for name, value in self.adapter.state().items():
            put(value, best.get(name))
        state = self.state
        return Trained(
            self.steps, state.seconds, self.micro_batch_tokens, state.best_step, *state.best
        )


def _groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Of an optimizer: parameters in parts by themselves, since its kernels take one kind."""
    kinds: dict[bool, list[nn.Parameter]] = {}
    for value in parameters:
        kinds.setdefault(isinstance(value, DTensor), []).append(value)
    return [{"params": values} for values in kinds.values()]


def _identity(adapter: Adapter, job: Job, peak: float) -> str:
    """What a checkpoint must belong to, to go on from it."""
    return digest(
        {
            "method": [adapter.method, adapter.config.model_dump(mode="json")],
            "train": job.config.model_dump(mode="json"),
            "learning_rate": peak,
            "seed": job.seed,
            "examples": [[example.prompt, example.answer] for example in job.examples],
        }
    )


def _text(model: AdaptedModel, example: TrainingExample, adapter: str) -> Text:
    """The answer's tokens are predicted one place before where they stand; the last is no input."""
    prompt = model.wrap(example.prompt, adapter)
    places = range(len(prompt) - 1, len(prompt) - 1 + len(example.answer))
    return Text([*prompt, *example.answer[:-1]], places, adapter)


def _reopen_log(path: Path, step: int) -> TextIO:
    """The log with the lines up to ``step``: what a killed run wrote beyond its last checkpoint is
    done again."""
    kept: list[dict[str, Any]] = []
    if path.is_file() and step > 0:
        lines = path.read_bytes().splitlines()
        try:
            # a kill may have cut the last line in two
            whole = [json.loads(line) for line in lines if line.endswith(b"}")]
            kept = [entry for entry in whole if entry["step"] <= step]
        except (ValueError, LookupError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({error}); remove it to go on without the steps that it holds"
            ) from error
    write_jsonl(path, kept)
    with writing(path):
        return path.open("a", encoding="utf-8")


def _optimizer_too_large(parameters: Iterable[torch.Tensor]) -> str:
    size = sum(value.numel() * value.element_size() for value in parameters)
    return (
        f"out of memory in the optimizer's step: AdamW keeps twice the {size / 1e9:,.2f} GB that "
        "are trained, and needs more while it works. What may help: a method that trains less, "
        "such as lora; model.dtype=bfloat16 where the backbone is frozen. 'polyprefix plan' says "
        "what takes how much."
    )


def _diverged(loss: float, norm: float, step: int, folder: Path) -> str:
    stands = sorted((folder / "checkpoints").glob("[0-9]*"))
    kept = (
        f"The last good checkpoint, of step {int(stands[-1].name)}, is"
        if stands
        else ("No checkpoint had been written; the log is")
    )
    return (
        f"training stopped at step {step}: the loss is {loss}, the gradient's norm {norm}. "
        f"{kept} in {folder}. A lower train.learning_rate, a longer train.warmup or "
        "train.mixed_precision=no may help."
    )


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's ``log.jsonl``."""
    return read_jsonl(folder / "log.jsonl")
