"""The training loop: AdamW, warm-up, a flat rate, a fall to zero, checkpoints, exact resume.

The flat rate makes the number of steps a late decision: until the fall begins, a run of 2,000
steps and one of 3,000 are the same run, and a checkpoint of either can become the other (Hägele
et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024).
"""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import LlamaForCausalLM

from pretraining import checkpoint
from pretraining.batches import Batch, Packer
from pretraining.model import scored_logits
from pretraining.tokenizer import PAD_ID


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimizer steps; the learning rate reaches zero at the last.
        learning_rate: of the decoder, at its peak.
        fall: share of the steps in which the rate falls to zero, linearly.
        embedding_rate: of the embeddings, as a part of it: they start out aligned, and what
            a decoder learns first would undo that.
        depth: layers after which what is expected at a cue is expected too.
    """

    steps: int
    learning_rate: float = 2e-3
    embedding_rate: float = 0.02
    depth: int = 3
    warmup: int = 60
    fall: float = 0.5
    weight_decay: float = 0.05
    clip: float = 1.0
    minutes_per_checkpoint: float = 8.0


def _rate(step: int, schedule: Schedule) -> float:
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    left = (schedule.steps - step) / max(1.0, schedule.fall * schedule.steps)
    return min(1.0, left)


def _optimizer(model: LlamaForCausalLM, schedule: Schedule) -> AdamW:
    embedding: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            embedding.append(parameter)
        else:
            (matrices if parameter.ndim == 2 else vectors).append(parameter)
    peak = schedule.learning_rate
    groups = [
        {"params": matrices, "peak": peak, "weight_decay": schedule.weight_decay},
        {"params": vectors, "peak": peak, "weight_decay": 0.0},
        {"params": embedding, "peak": peak * schedule.embedding_rate, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=peak, betas=(0.9, 0.95), foreach=True)


def _loss(
    model: LlamaForCausalLM, batch: Batch, depth: int, answers: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, and [S] its part at each scored position.

    What is expected at the end of a cue is expected twice: at the end of the decoder, and after
    `depth` layers, there among the words that are `answers` only. What a sentence is about is to be
    gathered there early, so that the layers that follow, and a prefix in them, have something to
    work with. The states of the sentence itself should bring it to mind likewise: what is left to
    itself there drifts apart by language, and prefixes, LoRA and adapters read it.
    """
    states = model.model(
        input_ids=batch.tokens,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states
    logits = scored_logits(model, states[-1], batch.scored)
    each = functional.cross_entropy(logits, batch.targets, reduction="none")
    each = each.index_copy(
        0, batch.soft, _soft_loss(logits[batch.soft], batch.soft_tokens, batch.soft_shares)
    )
    loss = (each * batch.weights).sum() / batch.weights.sum()
    early = torch.cat([batch.scored[batch.soft], batch.gist])
    tokens = torch.cat([batch.soft_tokens, batch.gist_tokens])
    shares = torch.cat([batch.soft_shares, batch.gist_shares])
    state = model.model.norm(states[depth].flatten(0, 1)[early])
    among = state @ model.lm_head.weight[answers].T
    early_loss = _soft_loss(among, torch.searchsorted(answers, tokens), shares).sum()
    return loss + early_loss / batch.weights.sum(), each


def _soft_loss(logits: Tensor, tokens: Tensor, shares: Tensor) -> Tensor:
    """[N] cross-entropy of logits [N, V] to `shares` [N, K] of the `tokens` [N, K]."""
    logprobs = logits.log_softmax(-1).gather(1, tokens)
    return -(logprobs * shares).sum(-1)


def train(
    model: LlamaForCausalLM, packer: Packer, schedule: Schedule, work: Path, identity: str
) -> None:
    """Train in place, from the checkpoint in `work` where there is one.

    Raises:
        FloatingPointError: the loss is not finite; the last checkpoint is kept.
    """
    model.train()
    optimizer = _optimizer(model, schedule)
    answers = packer.writer.possible()
    folder = work / "checkpoint"
    done = checkpoint.load(folder, model, optimizer, identity)
    if done:
        print(f"continuing after step {done} of {schedule.steps}", flush=True)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    saved = time.monotonic()
    log = (work / "train.jsonl").open("a", encoding="utf-8")
    total, answer, asked, tokens, count, since = 0.0, 0.0, 0.0, 0, 0, time.monotonic()
    bar = tqdm(range(done, schedule.steps), initial=done, total=schedule.steps, mininterval=20)
    for step in bar:
        batch = packer.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _rate(step, schedule)
        loss, each = _loss(model, batch, schedule.depth, answers)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"loss is {value} at step {step}; checkpoint in {folder}")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += value
        count += 1
        answer += float(each.detach()[batch.weights > 1].mean())
        asked += float(each.detach()[batch.soft].mean())
        tokens += int((batch.tokens != PAD_ID).sum())
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - since
            line = {
                "step": step + 1,
                "loss": round(total / count, 4),
                "answer_loss": round(answer / count, 4),
                "asked_loss": round(asked / count, 4),
                "tokens_per_second": round(tokens / seconds),
            }
            print(json.dumps(line), file=log, flush=True)
            bar.set_postfix(loss=line["loss"], asked=line["asked_loss"])
            total, answer, asked, tokens, count, since = 0.0, 0.0, 0.0, 0, 0, time.monotonic()
        if stop or time.monotonic() - saved > 60 * schedule.minutes_per_checkpoint:
            checkpoint.save(folder, model, optimizer, step + 1, identity)
            saved = time.monotonic()
        if stop:
            raise SystemExit(f"stopped by a signal; the same command continues at {step + 1}")
    checkpoint.save(folder, model, optimizer, schedule.steps, identity)
    log.close()
