"""Whether examples that share a passage may stand in one optimizer step: loss curves, and time.

    python -m benchmarks.shuffling --data part1.squad.json --model polyprefix/nano

``--data`` is a file in the format of SQuAD v1.1. Ours is the order of a run, in which questions
about a passage come together; the peer is the same training with every example shuffled by itself.
A round is a seed, of the adapter and of the order. The curve is the loss on questions about other
passages, after each tenth of the training. Both agree where the means over seeds are nowhere
further apart than twice the standard error of their difference would let one expect of as many
points (Bonferroni), and the loss fell. The standard error is pooled over the points.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from scipy import stats

from benchmarks.common import Result, arguments, finish, make_model
from benchmarks.training import encode
from polyprefix.config import ModelConfig, RuntimeConfig, TrainConfig
from polyprefix.evaluation import score_answers
from polyprefix.methods import AdaptedModel
from polyprefix.models import Backbone, load_backbone
from polyprefix.models.encoding import Encoded
from polyprefix.tasks import Example, get_task
from polyprefix.training import TrainingExample, read_log, train

GROUPS = "polyprefix.training.job.groups"
"""What says which examples come together."""

POINTS = 10
"""Evaluations of a training."""


def main(given: Sequence[str] | None = None) -> int:
    """Train in both orders; print the table."""
    parser = arguments(__doc__)
    parser.set_defaults(rounds=4)
    add = parser.add_argument
    add("--methods", nargs="+", default=["prefix_tuning"])
    add("--passages", type=int, default=120, help="to train on")
    add("--held-out", type=int, default=20, help="passages that the loss is measured on")
    add("--steps", type=int, default=150)
    add("--batch-size", type=int, default=16)
    options = parser.parse_args(given)
    task = get_task("xquad")
    parts = divide(task.read_file(options.data, "train").examples, options)
    with tempfile.TemporaryDirectory() as name:
        texts = [task.prompt.render(example.fields) for part in parts for example in part]
        model = make_model(Path(name), options, options.vocabulary[0], texts)
        backbone = load_backbone(ModelConfig(name=model), options.device)
        training, held_out = (encode(backbone.tokenizer, task, part) for part in parts)
        results = [
            compare(method, backbone, training, held_out, options) for method in options.methods
        ]
    return finish("shuffling", options, results)


def divide(examples: list[Example], options: argparse.Namespace) -> tuple[list[Example], ...]:
    """Questions about passages to train on, and about others."""
    passages: dict[str, list[Example]] = {}
    for example in examples:
        passages.setdefault(example.fields["context"], []).append(example)
    if (wanted := options.passages + options.held_out) > len(passages):
        raise SystemExit(f"{options.data} has {len(passages)} passages of {wanted}")
    chosen = random.Random(options.seed).sample(sorted(passages), wanted)
    parts = chosen[: options.passages], chosen[options.passages :]
    return tuple([example for passage in part for example in passages[passage]] for part in parts)


def compare(
    method: str,
    backbone: Backbone,
    training: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    options: argparse.Namespace,
) -> Result:
    """One method in both orders, a seed a round."""
    times: tuple[list[float], list[float]] = ([], [])
    curves: tuple[list[list[float]], list[list[float]]] = ([], [])
    for seed in range(options.rounds):
        for side in (0, 1) if seed % 2 == 0 else (1, 0):
            started = time.perf_counter()
            curve = run(method, backbone, training, held_out, options, seed, grouped=side == 0)
            times[side].append(time.perf_counter() - started)
            curves[side].append(curve)
    means = [[statistics.mean(point) for point in zip(*side, strict=True)] for side in curves]
    apart = [ours - theirs for ours, theirs in zip(*means, strict=True)]
    variances = [statistics.variance(point) for side in curves for point in zip(*side, strict=True)]
    stderr = (2 * statistics.mean(variances) / options.rounds) ** 0.5
    tails = 0.05 / (2 * POINTS)
    allowed = float(stats.t.isf(tails, 2 * (options.rounds - 1))) * stderr
    largest = max(apart, key=abs)
    fell = means[0][0] - means[0][-1]
    return Result(
        case={"method": method, "examples": len(training), "batch": options.batch_size},
        peer="every example shuffled by itself",
        work=options.steps * options.batch_size,
        ours=times[0],
        theirs=times[1],
        agrees=abs(largest) <= allowed < fell,
        agreement={"largest difference of loss": largest, "allowed": allowed, "fell by": fell},
        more={
            name: ", ".join(f"{value:.3f}" for value in side)
            for name, side in zip(("loss, ours", "loss, by itself"), means, strict=True)
        },
    )


def run(
    method: str,
    backbone: Backbone,
    training: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    options: argparse.Namespace,
    seed: int,
    *,
    grouped: bool,
) -> list[float]:
    """The loss at each point of one training."""
    model = AdaptedModel(backbone)
    text = backbone.tokenizer.decode(training[0].prompt)
    model.attach({"name": method}, seed=seed, text=text)
    encoded = [Encoded(item.prompt, (item.answer,)) for item in held_out]
    tokens = sum(len(item.answer) for item in held_out)

    def evaluate() -> tuple[float, float]:
        scores = score_answers(model, encoded, batch_tokens=2048)
        return sum(score for [score] in scores) / tokens, 0.0

    config = TrainConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        evaluate_every=max(1, options.steps // POINTS),
    )
    runtime = RuntimeConfig(keep_hidden_states="never")
    order = contextlib.nullcontext() if grouped else mock.patch(GROUPS, one_by_one)
    with tempfile.TemporaryDirectory() as name, order:
        folder = Path(name)
        train(model, training, config, folder=folder, evaluate=evaluate, seed=seed, runtime=runtime)
        entries = read_log(folder)
    model.detach()
    return [-entry["dev_score"] for entry in entries if "dev_score" in entry][:POINTS]


def one_by_one(prompts: Sequence[list[int]], _most: int) -> list[list[int]]:
    """Every example is a group of its own."""
    return [[place] for place in range(len(prompts))]


if __name__ == "__main__":
    sys.exit(main())
