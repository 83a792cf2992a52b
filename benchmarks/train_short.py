"""Training on short examples that share nothing: examples per second against PEFT.

    python -m benchmarks.train_short --task xnli --data multinli.train.en.tsv
    python -m benchmarks.train_short --task sib200 --data data/annotated/eng_Latn/train.tsv

``--data`` is a file that the task reads: pairs of sentences in XTREME's layout, or sentences of
SIB-200. Rows that cannot be used are passed over. See ``benchmarks/training.py`` for what the two
sides do.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from benchmarks.common import finish
from benchmarks.training import compare, options_of
from polyprefix.tasks import get_task


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = options_of(__doc__)
    parser.add_argument("--task", choices=["xnli", "sib200"], default="xnli")
    parser.add_argument("--examples", type=int, default=256)
    options = parser.parse_args(arguments)
    task = get_task(options.task)
    found = task.read_file(options.data, "train").examples
    chosen = random.Random(options.seed).sample(found, min(options.examples, len(found)))
    return finish("train_short", options, compare({"task": task.name}, task, chosen, options))


if __name__ == "__main__":
    sys.exit(main())
