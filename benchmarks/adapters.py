"""Several adapters on one backbone: rows of a batch that carry different ones, and adapters trained
together, against one adapter after another.

    python -m benchmarks.adapters --data data/annotated/eng_Latn/test.tsv --adapters 8

**Asking.** Each adapter is asked about its own sentences, as where many users have an adapter each.
Together: sentences of similar length in one batch whatever their adapter, as :class:`AdaptedModel`
takes them. One after another: for each adapter a batch of its sentences. Logits at the last token
have to be the same. ``--data`` is a file of SIB-200.

**Training.** Adapters that differ in seed and learning rate, as in a sweep, each trained for
``--steps`` on all sentences of the file, by the loop that runs are trained by: together, or each on
the backbone by itself. Losses of all steps have to be the same. What it gains depends on how much
of the device a step of one training fills: see ``--train-batch-sizes``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import METHODS, NOISE, Result, alternate, arguments, finish, make_model
from benchmarks.training import encode
from polyprefix.config import ModelConfig, TrainConfig
from polyprefix.methods import AdaptedModel
from polyprefix.models import load_backbone
from polyprefix.tasks import Example, get_task
from polyprefix.training import Job, read_log, train_together

TOLERANCE = 1e-3

RATE = 1e-2
"""The highest learning rate of the adapters that are trained."""

Request = tuple[str, list[int]]
"""The name of an adapter and the ids of a text, soft tokens included."""


def answer(model: AdaptedModel, requests: Sequence[Request], device: str) -> torch.Tensor:
    """``[B, V]``: logits at the last token of each request, padded on the right."""
    longest = max(len(ids) for _, ids in requests)
    tokens = torch.zeros(len(requests), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, (_, ids) in enumerate(requests):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    last = torch.tensor([row * longest + len(ids) - 1 for row, (_, ids) in enumerate(requests)])
    names = [name for name, _ in requests]
    alone = len(set(names)) == 1
    if alone:
        model.use(names[0])
    with torch.inference_mode():
        logits: torch.Tensor = model(
            tokens.to(device),
            mask.to(device),
            keep=last.to(device),
            adapters=None if alone else names,
        ).logits
        return logits


def main(arguments_: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    add("--adapters", type=int, default=8)
    add("--examples", type=int, default=4, help="of each adapter")
    add("--batch-size", type=int, default=16, help="rows of a batch of different adapters")
    add("--train-batch-sizes", type=int, nargs="*", default=[2, 16], help="of each training")
    add("--steps", type=int, default=4, help="of each training")
    options = parser.parse_args(arguments_)
    task = get_task("sib200")
    found = task.read_file(options.data, "test").examples
    wanted = min(options.adapters * options.examples, len(found))
    chosen = random.Random(options.seed).sample(found, wanted)
    texts = [task.prompt.render(example.fields) for example in chosen]
    results = []
    for size in options.vocabulary if options.model is None else [0]:
        with tempfile.TemporaryDirectory() as name:
            folder = make_model(Path(name, "model"), options, size, texts)
            for method in options.methods:
                results.append(compare(folder, method, texts, options))
            for method in options.methods:
                for batch_size in options.train_batch_sizes:
                    results.append(compare_training(folder, method, found, batch_size, options))
    return finish("adapters", options, results)


def compare(folder: str, method: str, texts: list[str], options: argparse.Namespace) -> Result:
    """One method."""
    model = AdaptedModel(load_backbone(ModelConfig(name=folder), options.device))
    names = [f"adapter {number}" for number in range(options.adapters)]
    for number, name in enumerate(names):
        adapter = model.attach({"name": method, **METHODS[method]}, name, seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for value in adapter.trainable().values():
                value.add_(NOISE * torch.randn(value.shape, generator=generator).to(value.device))
    requests: list[Request] = []
    for number, text in enumerate(texts):
        name = names[number % len(names)]
        requests.append((name, model.wrap(model.backbone.tokenizer(text)["input_ids"], name)))
    order = sorted(range(len(requests)), key=lambda i: len(requests[i][1]))
    size = options.batch_size
    mixed = [order[i : i + size] for i in range(0, len(order), size)]
    single = [[i for i in order if requests[i][0] == name] for name in names]

    def run(batches: list[list[int]]) -> torch.Tensor:
        parts = [answer(model, [requests[i] for i in batch], options.device) for batch in batches]
        place = torch.tensor([i for batch in batches for i in batch]).argsort()
        return torch.cat(parts)[place.to(options.device)]

    single = [batch for batch in single if batch]
    together, apart = run(mixed), run(single)
    difference = float((together - apart).abs().max())
    mine, other = alternate(lambda: run(mixed), lambda: run(single), options.rounds, options.device)
    case: dict[str, Any] = {"work": "asking", "method": method, "adapters": len(names)}
    case["V"] = model.backbone.vocab_size
    agreement = {"largest difference": difference}
    agrees = difference < TOLERANCE
    more = {"batches": {"together": len(mixed), "one after another": len(single)}}
    peer = "one after another"
    return Result(case, peer, len(requests), mine, other, agrees, agreement, more)


def compare_training(
    folder: str,
    method: str,
    found: Sequence[Example],
    batch_size: int,
    options: argparse.Namespace,
) -> Result:
    """One method, trained with one batch size."""
    backbone = load_backbone(ModelConfig(name=folder), options.device)
    examples = encode(backbone.tokenizer, get_task("sib200"), found)

    def run(groups: Sequence[Sequence[int]]) -> list[list[float]]:
        """The losses of every adapter, trained in groups."""
        return [losses for group in groups for losses in trained(group)]

    def trained(group: Sequence[int]) -> list[list[float]]:
        model = AdaptedModel(backbone)
        with tempfile.TemporaryDirectory() as temporary:
            jobs = []
            for number in group:
                name = str(number)
                model.attach({"name": method, **METHODS[method]}, name, seed=number)
                config = TrainConfig(
                    learning_rate=RATE / (1 + number % 3),
                    steps=options.steps,
                    batch_size=batch_size,
                    evaluate_every=options.steps,
                )
                where = Path(temporary, name)
                jobs.append(Job(name, examples, config, where, lambda: (0.0, 0.0), number))
            for result in train_together(model, jobs):
                if isinstance(result, Exception):
                    raise result
            losses = [[entry["loss"] for entry in read_log(job.folder)] for job in jobs]
        for name in list(model.adapters):
            model.detach(name)
        return losses

    everyone = list(range(options.adapters))
    alone = [[number] for number in everyone]
    together, apart = run([everyone]), run(alone)
    pairs = [
        (one, other)
        for ours, theirs in zip(together, apart, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    difference = max(abs(one - other) for one, other in pairs)
    moved = min(max(losses) - min(losses) for losses in apart)
    allowed = TOLERANCE * max(1.0, max(other for _, other in pairs))
    mine, other = alternate(
        lambda: run([everyone]), lambda: run(alone), options.rounds, options.device
    )
    case = {
        "work": "training",
        "method": method,
        "adapters": options.adapters,
        "batch": batch_size,
        "V": backbone.vocab_size,
    }
    return Result(
        case=case,
        peer="one after another",
        work=options.adapters * options.steps * batch_size,
        ours=mine,
        theirs=other,
        # Trainings in which nothing moves would agree whatever they computed.
        agrees=difference < allowed < moved,
        agreement={"largest difference of losses": difference, "moved": moved},
    )


if __name__ == "__main__":
    sys.exit(main())
