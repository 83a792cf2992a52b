"""Training with hidden states kept below the lowest adapted layer, against the same without.

    python -m benchmarks.keep --task xquad --data train-v1.1.json --layers last:1 last:2 last:4

Both sides are :func:`polyprefix.training.train`, ``--epochs`` epochs over the same examples in the
same order; ``runtime.keep_hidden_states`` is the only difference. Computing the states once, before
the first epoch, is in the time. The ratio is without to with: 1.5 means that keeping them makes a
training of that many epochs one and a half times as fast. What it comes to depends on the layers
below, on the epochs, and on how much of a step is the head's (``--vocabulary``).

Agreement: the losses of an epoch, step by step, which has the adapter learn on both sides.

``--data`` is a file that the task reads: SQuAD v1.1, XTREME's XNLI, SIB-200.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import Result, alternate, finish
from benchmarks.floor import cases, make_adapter, options_of
from benchmarks.training import LOSS, Job, Ours
from polyprefix.models.batching import beginnings
from polyprefix.training import TrainingExample


def main(arguments_: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = options_of(__doc__, ["prefix_tuning"], "last:2")
    add = parser.add_argument
    add("--where", nargs="+", default=["memory"], choices=["memory", "disk"])
    add("--epochs", type=int, default=3)
    options = parser.parse_args(arguments_)
    results = []
    for case, model, folder, examples in cases(options):
        make_adapter(case, model, folder)
        for where in options.where:
            results.append(compare(case | {"where": where}, model, folder, examples, options))
    return finish("keep", options, results)


def compare(
    case: dict[str, Any],
    model: str,
    folder: Path,
    examples: list[TrainingExample],
    options: argparse.Namespace,
) -> Result:
    """One method in some layers."""
    batch, budget, device = options.batch_size, options.micro_batch_tokens, options.device
    job = Job(model, str(folder), [], batch, budget, 1, device, keep_hidden_states="never")
    kept, plain = Ours(replace(job, keep_hidden_states=case["where"])), Ours(job)
    both = zip(kept(examples, batch), plain(examples, batch), strict=True)
    apart = max(abs(one[0] - other[0]) / max(1.0, other[0]) for one, other in both)
    steps = options.epochs * -(-len(examples) // batch)
    mine, other = alternate(
        lambda: kept(examples, batch, steps),
        lambda: plain(examples, batch, steps),
        options.rounds,
        device,
    )
    ids = [[*example.prompt, *example.answer[:-1]] for example in examples]
    count, _ = beginnings(ids)
    backbone = kept.model.backbone
    size = count * backbone.hidden_size * backbone.dtype.itemsize
    below = kept.model.adapter().lowest_layer
    more = {
        "layers": {"below": below, "all": backbone.num_layers},
        "tokens": {"all": sum(map(len, ids)), "kept": count},
        "MB kept": size / 1e6,
    }
    work = options.epochs * len(examples)
    agrees = apart < LOSS
    return Result(case, "not keeping", work, mine, other, agrees, {"apart": apart}, more)


if __name__ == "__main__":
    sys.exit(main())
