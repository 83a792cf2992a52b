"""The one training loop: any number of adapters on one backbone, each trained as it is alone.

In an optimizer step the examples of all trainings are laid out together, a row carrying one
adapter. Nothing but the frozen backbone is shared, so a row's gradients go to its own adapter, and
every training has its own loss, clipping, optimizer, schedule, evaluations, log and checkpoints.
What is gained: where the steps of one training are too small to fill the device, those of several
together take little longer than one. What it costs: a micro-batch is differentiated down to the
lowest layer that any of its adapters adapts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from polyprefix.config import (
    ConfigError,
    OutOfMemory,
    PolyprefixError,
    RuntimeConfig,
    TrainConfig,
    Unwritable,
)
from polyprefix.distributed import split, sum_gradients, world
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import Batch, Text, lay_out
from polyprefix.models.budget import Budget, longest, training_tokens, unless_out_of_memory
from polyprefix.models.hidden_states import HiddenStates
from polyprefix.results import Progress, Silent, writing
from polyprefix.training.interrupt import held_back
from polyprefix.training.job import DevScore, Job, Trained, Training, TrainingExample
from polyprefix.training.keeping import FILE, keep_hidden_states
from polyprefix.training.loss import micro_batch_losses


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
    into micro-batches, its gradient is the same; where memory does not suffice for one, the step is
    computed again from micro-batches of half the tokens, and so are those that follow.

    Args:
        model: with an adapter attached and in use.
        examples: of the source language, to train on.
        config: how to train.
        folder: receives the log, checkpoints and the best adapter; see :class:`Job`.
        evaluate: scores the model on the source language's dev split, under the adapter in use.
        seed: of the order of examples and of dropout.
        runtime: how much is computed at once, how often a checkpoint is written, what is kept.
        progress: shown every step.

    Raises:
        RunError: the loss or the gradient became infinite or NaN; the last good checkpoint and the
            best adapter stay in ``folder``.
        OutOfMemory: memory does not suffice for one example by itself.
    """
    name = model.active
    if name is None:
        raise ConfigError("no adapter is in use")
    job = Job(name, examples, config, folder, evaluate, seed)
    [result] = train_together(model, [job], runtime=runtime, progress=progress)
    if isinstance(result, PolyprefixError):
        raise result
    return result


def train_together(
    model: AdaptedModel,
    jobs: Sequence[Job],
    *,
    runtime: RuntimeConfig | None = None,
    progress: Progress | None = None,
) -> list[Trained | PolyprefixError]:
    """Train several adapters of a model at once, each as :func:`train` would by itself.

    A training that has done its steps, or fails, leaves; the others go on. Results are those of
    each alone but for how sums are rounded, and, where a backbone or LoRA has dropout, for the
    elements that it falls on.

    Args:
        model: with the adapters attached.
        jobs: at most one an adapter, all of one ``mixed_precision``.
        runtime: for all of them together: a micro-batch has rows of any.
        progress: shown the steps of all.

    Returns:
        For each job what it amounted to, or why it failed.

    Raises:
        ConfigError: the jobs' precisions differ.
        Unwritable: the disk is full, or a folder cannot be written to.
    """
    runtime = runtime or RuntimeConfig()
    progress = progress or Silent()
    if len({job.config.mixed_precision for job in jobs}) > 1:
        raise ConfigError("key 'train.mixed_precision': trainings of one loop have the same")
    _reset_accelerate(model)
    in_use = model.active
    begun = [_begin(model, job, runtime) for job in jobs]
    trainings = [training for training in begun if isinstance(training, Training)]
    try:
        _train(model, trainings, runtime, progress)
    finally:
        for training in trainings:
            training.close()
        model.use(in_use)
    return [
        training if isinstance(training, PolyprefixError) else training.error or training.result()
        for training in begun
    ]


def _begin(model: AdaptedModel, job: Job, runtime: RuntimeConfig) -> Training | PolyprefixError:
    try:
        return Training(model, job, runtime)
    except Unwritable:
        raise
    except PolyprefixError as error:
        return error


def _train(
    model: AdaptedModel,
    trainings: Sequence[Training],
    runtime: RuntimeConfig,
    progress: Progress,
) -> None:
    """Do all steps; a training that fails has its ``error``."""
    for training in trainings:
        world().first(partial(_forget_kept, training.job.folder))
    left = [training for training in trainings if not training.done]
    if not left:
        return
    accelerator = left[0].accelerator
    model.use(left[0].job.adapter)
    with accelerator.autocast():
        kept = _keep(model, left, runtime, progress)
    # With others there are no wrappers that send gradients: see sum_gradients.
    prepared: Any = accelerator.prepare_model(model, evaluation_mode=world().size > 1)
    model.backbone.gradient_checkpointing(runtime.gradient_checkpointing)
    what = left[0].adapter.title if len(trainings) == 1 else f"{len(trainings)} adapters"
    steps, done = sum(t.steps for t in trainings), sum(t.state.step for t in trainings)
    budget = Budget(
        training_tokens(runtime.micro_batch_tokens, model.backbone.device),
        "runtime.micro_batch_tokens",
        _what_helps(model, runtime, len(trainings)),
        progress.say,
        shared=model.backbone.sharded,
    )
    progress.start(f"training {what}", steps, done=done)
    model.train()
    changed = True
    try:
        with held_back() as interrupt:
            while left:
                if changed:  # who is left, or which adapter is in use
                    model.use(left[0].job.adapter)
                    model.trained([training.job.adapter for training in left])
                started = time.perf_counter()
                for training in left:
                    training.draw()
                begun = left
                left, losses = _gradients(prepared, model, left, budget, kept)
                per_token = (time.perf_counter() - started) / max(1, sum(t.tokens for t in left))
                changed = False
                for training, loss in zip(left, losses, strict=True):
                    training.micro_batch_tokens = budget.tokens
                    try:
                        changed |= training.update(loss, per_token * training.tokens)
                    except Unwritable:
                        raise
                    except PolyprefixError as error:
                        training.error = error
                for training in begun:
                    if training.error is not None and len(trainings) > 1:
                        progress.say(f"{training.job.folder}: {training.error}")
                stepped = [training for training in left if training.error is None]
                changed |= len(stepped) < len(begun)
                stop = world().any(interrupt.requested)  # Ctrl-C may have come to one of several
                for training in stepped:
                    training.save(now=stop)
                if stop:
                    raise KeyboardInterrupt
                progress.advance(len(stepped), _note(stepped))
                remaining = [training for training in stepped if not training.done]
                changed |= len(remaining) < len(left)
                left = remaining
    finally:
        progress.finish()
        if kept is not None:
            kept.close()
        # Mixed precision is how to train: what comes after computes in the backbone's own dtype,
        # as it will when the adapter is loaded again.
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        model.eval()
        model.backbone.gradient_checkpointing(False)


def _forget_kept(folder: Path) -> None:
    """Remove the hidden states that a killed training may have left."""
    with writing(folder):
        (folder / FILE).unlink(missing_ok=True)


def _reset_accelerate(model: AdaptedModel) -> None:
    # accelerate keeps one state a process: the device and precision of the first training. Those of
    # one process may differ in both, and the backbone is already where it is to be.
    AcceleratorState._reset_state(reset_partial_state=True)
    device = model.backbone.device
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _keep(
    model: AdaptedModel, trainings: Sequence[Training], runtime: RuntimeConfig, progress: Progress
) -> HiddenStates | None:
    """Hidden states below the lowest layer that any of the trainings adapts."""
    texts = {tuple(text.ids): text for training in trainings for text in training.texts}
    drawn = sum(training.steps * training.job.config.batch_size for training in trainings)
    return keep_hidden_states(
        model,
        [training.adapter for training in trainings],
        list(texts.values()),
        drawn / len(texts),
        runtime,
        trainings[0].job.folder,
        progress,
    )


def _what_helps(model: AdaptedModel, runtime: RuntimeConfig, trainings: int) -> str:
    """What a user can change where one example by itself takes too much memory."""
    ways = [] if runtime.gradient_checkpointing else ["runtime.gradient_checkpointing=true"]
    ways.append("a smaller task.max_length")
    if model.backbone.dtype == torch.float32:
        ways.append("model.dtype=bfloat16")
    if trainings > 1:
        ways.append("a smaller runtime.together")
    return f"What may help: {', '.join(ways)}. 'polyprefix plan' says what takes how much."


def _gradients(
    prepared: Any,
    model: AdaptedModel,
    trainings: list[Training],
    budget: Budget,
    kept: HiddenStates | None,
) -> tuple[list[Training], list[float]]:
    """Gradients of one optimizer step of each training, and the mean losses of its tokens.

    Where memory does not suffice for a micro-batch, what was added up until then is dropped, as a
    part of its own gradients may be in it, and all is computed again from smaller ones: by all
    processes, if it was so in any. A training of which one text does not fit by itself has its
    ``error`` and is not among those returned.

    Raises:
        OutOfMemory: a backbone that is divided among processes does not suffer that.
    """
    device = model.backbone.device
    random = _random_state(device)
    while trainings:
        losses = _accumulate(prepared, model, trainings, budget, kept)
        if not isinstance(losses, _TooLarge):
            return trainings, losses
        for training in trainings:
            training.drop_gradients()
        try:
            budget.halve(losses.tokens, losses.alone)
        except OutOfMemory as error:
            if budget.shared:
                world().give_up(error)
                raise
            for number in losses.trainings:
                trainings[number].error = error
            trainings = [training for training in trainings if training.error is None]
        # What follows is what it would be had the step begun with micro-batches of this size.
        _set_random_state(device, random)
    return [], []


@dataclass(frozen=True, slots=True)
class _TooLarge:
    """A micro-batch for which memory did not suffice: its tokens, those of the longest text in it,
    and the numbers of the trainings that have texts in it."""

    tokens: int
    alone: int
    trainings: set[int]


def _in_any(failed: _TooLarge | None) -> _TooLarge | None:
    """What was too large in any process, the same in all: what cannot be cut, or the smallest."""
    if not world().any(failed is not None):
        return None
    found = [other for other in world().gather(failed) if other is not None]
    return min(found, key=lambda other: (other.tokens > other.alone, other.tokens))


def _random_state(device: torch.device) -> list[torch.Tensor]:
    found = [torch.get_rng_state()]
    return [*found, torch.cuda.get_rng_state(device)] if device.type == "cuda" else found


def _set_random_state(device: torch.device, state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def _accumulate(
    prepared: Any,
    model: AdaptedModel,
    trainings: Sequence[Training],
    budget: Budget,
    kept: HiddenStates | None,
) -> list[float] | _TooLarge:
    """Add up the gradients of one optimizer step of each training; the mean losses of its tokens.

    The sum of the losses has, for each adapter's parameters, the gradient of its own loss. Of
    several processes each has a part of the examples, whose losses it divides by the tokens of all
    of them: gradients add up to those of one process."""
    device = model.backbone.device
    texts: list[Text] = []
    answers: list[list[int]] = []
    owners: list[int] = []
    for number, training in enumerate(trainings):
        texts += [training.texts[i] for i in training.chosen]
        answers += [training.job.examples[i].answer for i in training.chosen]
        owners += [number] * len(training.chosen)
    counts = torch.zeros(len(trainings))
    counts.index_add_(0, torch.tensor(owners), torch.tensor([float(len(a)) for a in answers]))
    counts = counts.to(device)
    total = torch.zeros_like(counts)

    def differentiate(batch: Batch, counted: bool) -> torch.Tensor:
        targets = torch.tensor([token for i in batch.texts for token in answers[i]])
        of = torch.tensor([owners[i] for i in batch.texts for _ in answers[i]])
        entering = None if kept is None else kept.entering(texts, batch)
        losses = micro_batch_losses(prepared, batch, targets, of, counts, entering)
        if not counted:
            losses = losses * 0
        pairs = zip(trainings, losses.unbind(), strict=True)
        torch.autograd.backward([training.scaled(loss) for training, loss in pairs])
        return losses.detach()

    failed: _TooLarge | None = None
    for batch, counted in _batches(model, texts, budget.tokens):
        found = unless_out_of_memory(partial(differentiate, batch, counted))
        if found is None:
            members = {owners[i] for i in batch.texts}
            failed = _TooLarge(batch.input_ids.numel(), longest(texts, batch), members)
            break
        total += found[0]
    if budget.shared and failed is not None:  # the others wait in the pass
        return failed
    if (failed := _in_any(failed)) is not None:
        return failed
    if world().size > 1:
        sum_gradients([p for t in trainings for p in t.parameters.values()], total)
    return [float(loss) for loss in total.tolist()]


def _batches(
    model: AdaptedModel, texts: Sequence[Text], budget: int
) -> Iterator[tuple[Batch, bool]]:
    """Micro-batches of this process, and whether they count: a sharded backbone is computed as
    often by all, so one with fewer texts computes some for the others."""
    device, here = model.backbone.device, world()
    if here.size == 1:
        for batch in lay_out(texts, budget, model.pad_id, device, model.attention_length):
            yield batch, True
        return
    mine = split([text.ids for text in texts], here.size)[here.rank]
    own = [texts[i] for i in mine]
    batches = list(lay_out(own, budget, model.pad_id, device, model.attention_length))
    # Asked before the first pass, which all make together.
    missing = here.most(len(batches)) - len(batches) if model.backbone.sharded else 0
    for batch in batches:
        yield replace(batch, texts=[mine[i] for i in batch.texts]), True
    short = min(range(len(texts)), key=lambda i: len(texts[i].ids))
    for _ in range(missing):
        [batch] = lay_out([texts[short]], budget, model.pad_id, device)
        yield replace(batch, texts=[short]), False


def _note(trainings: Sequence[Training]) -> str:
    """Losses of this step and best dev scores so far."""
    losses = _range([training.loss for training in trainings])
    scores = _range([best for training in trainings if (best := training.best) is not None])
    return f"loss {losses}" * bool(losses) + f" dev {scores}" * bool(scores)


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    least, most = f"{min(values):.3f}", f"{max(values):.3f}"
    return least if least == most else f"{least} to {most}"
