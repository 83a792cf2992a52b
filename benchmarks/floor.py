"""A training step against its floor.

    python -m benchmarks.floor --task xquad --data new_wiki_v1.0.json

The floor is what no training of an adapter can do without: the frozen backbone forward, and
backward down to the input of the lowest adapted layer, every token that examples share computed
once, logits at labelled positions only. It has no adapter, no optimizer, no log and no batches to
make: ids are laid out beforehand, in rows of whole groups of examples. Attention is computed piece
by piece, each exactly as large as it has to be: shared tokens among themselves, then each example's
own tokens with what they see. The model is transformers' own.

The other side is :func:`polyprefix.training.train` with an adapter in ``--layers``. With adapters
that change nothing at the start both sides have the same loss at the first step, and that is
checked; what is timed is the method as it usually starts. The ratio is floor to training: 0.91
means that training takes a tenth longer.

``--data`` is a file that the task reads: SQuAD v1.1, XTREME's XNLI, SIB-200.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Comparison, Result, arguments, fastest, finish, make_model, timed
from benchmarks.frozen import Floor, Packed, pack
from benchmarks.training import CHECKED, LOSS, Job, Ours, encode
from polyprefix.config import ModelConfig
from polyprefix.methods import AdaptedModel, Adapter, save_adapter
from polyprefix.models import load_backbone
from polyprefix.models.budget import training_tokens
from polyprefix.tasks import Example, get_task
from polyprefix.training import TrainingExample

METHODS: dict[str, dict[str, Any]] = {
    "prefix_tuning": {"initialization": "random"},
    "llama_adapter": {"initialization": "random"},
    "lora": {},
}
"""As they are timed."""

WITHOUT_EFFECT = {"prefix_tuning": {"initialization": "zero"}}
"""What is another start where the usual one has an effect."""

ROWS = (512, 1024, 2048, 4096)
"""Tokens of a row at least, of which the floor takes what it is fastest with."""


def main(arguments_: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    options = options_of(__doc__, list(METHODS), "all").parse_args(arguments_)
    results: list[Result] = []
    for case, model, folder, examples in cases(options):
        results += timed([prepare(case, model, folder, examples, options)], options)
    return finish("floor", options, results)


def options_of(description: str | None, methods: list[str], layers: str) -> argparse.ArgumentParser:
    """Options of a benchmark of methods in some layers, with its defaults."""
    parser = arguments(description)
    add = parser.add_argument
    add("--task", choices=["xquad", "xnli", "sib200"], default="xquad")
    add("--methods", nargs="+", default=methods, choices=list(METHODS))
    add("--layers", nargs="+", default=[layers], help="adapted layers: all, last:4...")
    add("--examples", type=int, default=128)
    add("--batch-size", type=int, default=32, help="examples of an optimizer step")
    add("--micro-batch-tokens", type=int, help="by default what a run takes on the device")
    return parser


def cases(
    options: argparse.Namespace,
) -> Iterator[tuple[dict[str, Any], str, Path, list[TrainingExample]]]:
    """Each vocabulary, method and choice of layers: the case, the model, a folder for its adapter,
    and the examples."""
    task = get_task(options.task)
    chosen = choose(task.read_file(options.data, "train").examples, options)
    texts = [task.prompt.render(example.fields) for example in chosen]
    for size in options.vocabulary if options.model is None else [0]:
        with tempfile.TemporaryDirectory() as name:
            model = make_model(Path(name, "model"), options, size, texts)
            backbone = load_backbone(ModelConfig(name=model))
            examples = encode(backbone.tokenizer, task, chosen)
            for method in options.methods:
                for layers in options.layers:
                    case = {"task": task.name, "method": method, "layers": layers}
                    case |= {"V": backbone.vocab_size}
                    yield case, model, Path(name, method, layers.replace(":", "-")), examples


def prepare(
    case: dict[str, Any],
    model: str,
    folder: Path,
    examples: list[TrainingExample],
    options: argparse.Namespace,
) -> Comparison:
    """One method in some layers, those of ``case``; ``folder`` receives its adapter."""
    batch, device = options.batch_size, options.device
    budget = training_tokens(options.micro_batch_tokens, torch.device(device))

    def training(**changes: Any) -> tuple[Ours, int]:
        """Our side, and its lowest adapted layer."""
        adapter = make_adapter(case, model, folder, **changes)
        if (kind := adapter.backbone.family.model_type) != "llama":
            raise SystemExit(f"the floor is written for llama, not for {kind}")
        return Ours(Job(model, str(folder), [], batch, budget, 1, device)), adapter.lowest_layer

    still, lowest = training(**WITHOUT_EFFECT.get(case["method"], {}))
    theirs = Floor(model, lowest, device)
    some = examples[:CHECKED]
    [(loss, _)] = still(some, len(some), 1)
    apart = abs(loss - theirs(pack(some, budget, device)))
    ours, _ = training()
    ours(some, len(some), 1)

    def load(tokens: int) -> list[list[Packed]]:
        parts = [examples[i : i + batch] for i in range(0, len(examples), batch)]
        return [pack(part, tokens, device) for part in parts]

    loads = {tokens: load(tokens) for tokens in (*ROWS, budget)}
    best = fastest(sorted(loads), lambda tokens: theirs(loads[tokens][0]), device)
    separate = sum(len(example.prompt) + len(example.answer) - 1 for example in examples)
    computed = sum(row.ids.shape[1] for rows in loads[best] for row in rows)
    more = {
        "tokens": {"one by one": separate, "shared once": computed},
        "floor's tokens of a row": best,
    }
    agreement = {"loss": loss, "apart": apart}
    agrees = apart < LOSS * max(1.0, loss)
    return Comparison(
        case=case,
        peer="floor",
        work=len(examples),
        ours=lambda: ours(examples, batch),
        theirs=lambda: [theirs(rows) for rows in loads[best]],
        agrees=agrees,
        agreement=agreement,
        more=more,
    )


def make_adapter(case: dict[str, Any], model: str, folder: Path, **changes: Any) -> Adapter:
    """The adapter of a case, saved in a folder."""
    adapted = AdaptedModel(load_backbone(ModelConfig(name=model)))
    values = {"layers": case["layers"], **METHODS[case["method"]], **changes}
    adapter = adapted.attach({"name": case["method"], **values})
    save_adapter(adapter, folder)
    return adapter


def choose(found: list[Example], options: argparse.Namespace) -> list[Example]:
    """Examples at random, whole passages with all their questions, so that there is something to
    share; those of a batch stand together in the floor's rows."""
    units: dict[str, list[Example]] = {}
    for example in found:
        units.setdefault(example.fields.get("context", example.id), []).append(example)
    order = random.Random(options.seed).sample(list(units), len(units))
    return [example for unit in order for example in units[unit]][: options.examples]


if __name__ == "__main__":
    sys.exit(main())
