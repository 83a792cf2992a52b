"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from polyprefix.config import ConfigError, RunError, RuntimeConfig, TrainConfig, digest
from polyprefix.methods import AdaptedModel, Adapter, MethodConfig, method_of, save_adapter
from polyprefix.methods.storage import WEIGHTS
from polyprefix.models.batching import Text, groups, lay_out
from polyprefix.models.hidden_states import HiddenStates
from polyprefix.results import Progress, Silent, read_jsonl, write_jsonl
from polyprefix.training.batches import batches_from, most_of
from polyprefix.training.checkpoint import load_checkpoint, save_checkpoint
from polyprefix.training.interrupt import held_back
from polyprefix.training.keeping import keep_hidden_states
from polyprefix.training.schedule import factor

DEFAULT_STEPS = 600

DevScore = tuple[float, float]
"""Score on the dev split, higher is better, and what breaks a tie."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """``prompt`` token ids without soft tokens; the loss is taken on those of the ``answer``."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Trained:
    """What a training amounted to. ``best_dev``: score of the adapter that was kept.
    ``best_tie_break``: what decides among equal ones."""

    steps: int
    seconds: float
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


def train(
    model: AdaptedModel,
    examples: Sequence[TrainingExample],
    config: TrainConfig,
    *,
    folder: Path,
    evaluate: Callable[[], DevScore],
    seed: int = 0,
    runtime: RuntimeConfig | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the adapter in use, and leave it as it was at its best dev evaluation.

    The loss is the cross-entropy of the answers' tokens, averaged over the tokens of an optimizer
    step's examples; logits are computed there and nowhere else. However an optimizer step is cut
    into micro-batches, its gradient is the same.

    Args:
        model: with an adapter attached and in use.
        examples: the source language's training examples.
        config: see :class:`TrainConfig`.
        folder: receives ``log.jsonl``, ``checkpoints/`` and ``adapter/``, the best so far. If it
            holds a checkpoint, the training goes on from there and ends as if never interrupted.
        evaluate: scores the model on the source language's dev split.
        seed: of the order of examples and of dropout.

    Raises:
        RunError: the loss or the gradient became infinite or NaN; the last good checkpoint and the
            best adapter stay in ``folder``.
    """
    runtime = runtime or RuntimeConfig()
    progress = progress or Silent()
    adapter = model.adapter()
    parameters = adapter.trainable()
    if not parameters:
        raise RunError(f"method {adapter.method!r} has nothing to train")
    if not examples:
        raise RunError("there are no training examples")
    peak = peak_learning_rate(config, adapter.config, model.backbone.hidden_size)
    steps = num_steps(config, len(examples))
    evaluate_every = config.evaluate_every or max(1, steps // 10)
    checkpoint_every = runtime.checkpoint_every or evaluate_every

    if config.mixed_precision == "fp16" and model.backbone.device.type != "cuda":
        raise ConfigError("train.mixed_precision=fp16 needs a CUDA device; bf16 works on a CPU")
    texts = [_text(model, example) for example in examples]
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=peak, betas=config.betas, weight_decay=config.weight_decay
    )
    torch.manual_seed(seed)
    training = _identity(adapter, examples, config, peak, seed)
    state = load_checkpoint(folder / "checkpoints", training, parameters, optimizer)
    accelerator = _accelerator(config, model)
    if accelerator.scaler is not None and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    passes = steps * config.batch_size / len(examples)
    kept: HiddenStates | None = None
    with accelerator.autocast():
        if state.step < steps:
            kept = keep_hidden_states(model, texts, passes, runtime, folder, progress)
    prepared: Any = accelerator.prepare_model(model)
    optimizer = accelerator.prepare_optimizer(optimizer)
    model.backbone.gradient_checkpointing(runtime.gradient_checkpointing)
    lengths = [len(text.ids) for text in texts]
    # of the examples alone, without soft tokens: the order is the same for every method
    together = groups([example.prompt for example in examples], most_of(config.batch_size))
    order = batches_from(lengths, together, config.batch_size, seed, state.step)

    folder.mkdir(parents=True, exist_ok=True)
    log = _reopen_log(folder / "log.jsonl", state.step)
    progress.start(f"training {adapter.title}", steps, done=state.step)
    started = time.perf_counter() - state.seconds
    model.train()
    try:
        while state.step < steps:
            with held_back() as interrupt:
                rate = peak * factor(config.schedule, state.step, steps, config.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                chosen = next(order)
                loss = _accumulate(
                    accelerator,
                    prepared,
                    model,
                    [texts[i] for i in chosen],
                    [examples[i].answer for i in chosen],
                    runtime.micro_batch_tokens,
                    kept,
                )
                norm = float(accelerator.clip_grad_norm_(parameters.values(), config.max_grad_norm))
                # fp16's loss scaling finds its scale by overflowing, and leaves those steps out
                overflows = config.mixed_precision == "fp16"
                if not (math.isfinite(loss) and (overflows or math.isfinite(norm))):
                    raise RunError(_diverged(loss, norm, state.step + 1, folder))
                optimizer.step()
                optimizer.zero_grad()
                state.step += 1
                state.seconds = time.perf_counter() - started
                entry = {
                    "step": state.step,
                    "loss": loss,
                    "learning_rate": rate,
                    "gradient_norm": norm if math.isfinite(norm) else None,
                    "tokens": sum(lengths[i] for i in chosen),
                    "seconds": round(state.seconds, 3),
                }
                last = state.step == steps
                if state.step % evaluate_every == 0 or last:
                    score = evaluate()
                    entry |= {"dev_score": score[0], "dev_tie_break": score[1]}
                    if score > state.best:
                        state.best, state.best_step = score, state.step
                        save_adapter(adapter, folder / "adapter")
                log.write(json.dumps(entry) + "\n")
                if state.step % checkpoint_every == 0 or last or interrupt.requested:
                    log.flush()
                    if accelerator.scaler is not None:
                        state.scaler = accelerator.scaler.state_dict()
                    state.seconds = time.perf_counter() - started
                    save_checkpoint(folder / "checkpoints", training, state, parameters, optimizer)
            if interrupt.requested:
                raise KeyboardInterrupt
            dev = "" if state.best_step < 0 else f" dev {state.best[0]:.3f}"
            progress.advance(1, f"loss {loss:.3f}{dev}")
    finally:
        log.close()
        progress.finish()
        if kept is not None:
            kept.close()
        # Mixed precision is how to train: what comes after computes in the backbone's own dtype,
        # as it will when the adapter is loaded again.
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        model.eval()
        model.backbone.gradient_checkpointing(False)
    _restore_best(model, folder)
    return Trained(steps, state.seconds, state.best_step, *state.best)


def _identity(
    adapter: Adapter,
    examples: Sequence[TrainingExample],
    config: TrainConfig,
    peak: float,
    seed: int,
) -> str:
    """What a checkpoint must belong to, to go on from it."""
    return digest(
        {
            "method": [adapter.method, adapter.config.model_dump(mode="json")],
            "train": config.model_dump(mode="json"),
            "learning_rate": peak,
            "seed": seed,
            "examples": [[example.prompt, example.answer] for example in examples],
        }
    )


def _text(model: AdaptedModel, example: TrainingExample) -> Text:
    """The answer's tokens are predicted one place before where they stand; the last is no input."""
    prompt = model.wrap(example.prompt)
    places = range(len(prompt) - 1, len(prompt) - 1 + len(example.answer))
    return Text([*prompt, *example.answer[:-1]], places)


def _accelerator(config: TrainConfig, model: AdaptedModel) -> Accelerator:
    # accelerate keeps one state a process: the device and precision of the first training. Those of
    # one process may differ in both, and the backbone is already where it is to be.
    AcceleratorState._reset_state(reset_partial_state=True)
    device = model.backbone.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=device.type == "cpu",
        device_placement=False,
    )


def _accumulate(
    accelerator: Accelerator,
    prepared: Any,
    model: AdaptedModel,
    texts: Sequence[Text],
    answers: Sequence[list[int]],
    budget: int,
    kept: HiddenStates | None,
) -> float:
    """Add up the gradients of one optimizer step; the mean loss of its tokens."""
    tokens = sum(map(len, answers))
    total = 0.0
    for batch in lay_out(texts, budget, model.pad_id, model.backbone.device):
        targets = torch.tensor([t for i in batch.texts for t in answers[i]])
        logits = prepared(
            batch.input_ids,
            position_ids=batch.position_ids,
            until=batch.until,
            keep=batch.keep,
            entering=None if kept is None else kept.entering(texts, batch),
        ).logits
        loss = F.cross_entropy(logits.float(), targets.to(logits.device), reduction="sum") / tokens
        accelerator.backward(loss)
        total += float(loss.detach())
    return total


def _reopen_log(path: Path, step: int) -> TextIO:
    """The log with the lines up to ``step``: what a killed run wrote beyond its last checkpoint is
    done again."""
    kept: list[dict[str, Any]] = []
    if path.is_file() and step > 0:
        lines = path.read_text(encoding="utf-8").splitlines()
        # a kill may have cut the last line in two
        whole = [line for line in lines if line.endswith("}")]
        kept = [entry for entry in map(json.loads, whole) if entry["step"] <= step]
    write_jsonl(path, kept)
    return path.open("a", encoding="utf-8")


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


def _restore_best(model: AdaptedModel, folder: Path) -> None:
    tensors = load_file(folder / "adapter" / WEIGHTS, device=str(model.backbone.device))
    model.adapter().load_state(tensors)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's ``log.jsonl``."""
    return read_jsonl(folder / "log.jsonl")
