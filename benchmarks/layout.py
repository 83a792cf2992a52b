"""How the weights of linear layers lie in memory: products with few rows on a CPU.

    python -m benchmarks.layout --rows 8 16 24 32 48 96 1024

Ours is the linear maps of the random model's decoder layers (one of them by default), laid out as a
loaded model's are (:mod:`polyprefix.models.layout`); the peer is the same weights as they are
stored. A step of writing answers has a row for each answer, training and scoring have hundreds.
Rounds are short: nothing else may run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from benchmarks.common import Comparison, Work, arguments, finish, random_model, timed
from polyprefix.models.layout import outputs_together

ROUNDS, REPEATED = 15, 50
"""Measurements, and products in each."""

TOLERANCE = 1e-4


def main(given: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = arguments(__doc__, data=False)
    parser.set_defaults(rounds=ROUNDS, num_layers=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 24, 32, 48, 96, 1024])
    options = parser.parse_args(given)
    stored = random_model(options, options.vocabulary[0]).eval()
    turned = deepcopy(stored)
    outputs_together(turned)
    comparisons = [compare(rows, turned, stored, options) for rows in options.rows]
    return finish("layout", options, timed(comparisons, options))


def compare(
    rows: int, turned: nn.Module, stored: nn.Module, options: argparse.Namespace
) -> Comparison:
    """Products of so many rows with the weights of all linear layers but the head."""
    maps = [
        [module for name, module in model.named_modules() if _measured(name, module)]
        for model in (turned, stored)
    ]
    inputs = [torch.randn(rows, module.in_features) for module in maps[0]]

    def products(which: int) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [module(x) for module, x in zip(maps[which], inputs, strict=True)]

    def work(which: int) -> Work:
        def run() -> None:
            for _ in range(REPEATED):
                products(which)

        return run

    pairs = list(zip(products(0), products(1), strict=True))
    apart = max(float((one - other).abs().max()) for one, other in pairs)
    return Comparison(
        case={"rows": rows, "d": options.hidden_size},
        peer="weights as they are stored",
        work=rows * REPEATED,
        ours=work(0),
        theirs=work(1),
        agrees=apart < TOLERANCE,
        agreement={"largest difference": apart},
    )


def _measured(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and name != "lm_head"


if __name__ == "__main__":
    sys.exit(main())
