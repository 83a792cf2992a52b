"""Training on questions about passages: examples per second against PEFT.

    python -m benchmarks.train_shared --data new_wiki_v1.0.json --vocabulary 32000 128000

``--data`` is a file in the format of SQuAD v1.1, of which whole passages are taken with all their
questions. See ``benchmarks/training.py`` for what the two sides do.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from benchmarks.common import finish
from benchmarks.training import compare, options_of
from polyprefix.tasks import Example, Task, get_task


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = options_of(__doc__)
    parser.add_argument("--passages", type=int, default=24)
    options = parser.parse_args(arguments)
    task = get_task("xquad")
    case = {"data": options.data.stem, "passages": options.passages}
    return finish("train_shared", options, compare(case, task, choose(task, options), options))


def choose(task: Task, options: argparse.Namespace) -> list[Example]:
    """``--passages`` at random, with all their questions."""
    passages: dict[str, list[Example]] = {}
    for example in task.read_file(options.data, "train").examples:
        passages.setdefault(example.fields["context"], []).append(example)
    if options.passages > len(passages):
        raise SystemExit(f"{options.data} has {len(passages)} passages")
    chosen = random.Random(options.seed).sample(sorted(passages), options.passages)
    return [example for passage in chosen for example in passages[passage]]


if __name__ == "__main__":
    sys.exit(main())
