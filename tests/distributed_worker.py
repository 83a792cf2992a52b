"""One of several processes that ``tests/test_distributed.py`` starts: the runs of a file, in which
one process may run out of memory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from polyprefix.cli.processes import at_the_end
from polyprefix.config import PolyprefixError, RunConfig
from polyprefix.models import Backbone
from polyprefix.study import run, run_together


def run_out(rank: int, tokens: int | None = None) -> None:
    """In a process, forward passes of more tokens run out of memory; or else the optimizer does."""
    if int(os.environ["RANK"]) != rank:
        return

    def step(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    plain = Backbone.hidden_states

    def hidden_states(self: Backbone, **inputs: Any) -> Any:
        embedded = inputs.get("inputs_embeds")
        if embedded is not None and embedded.shape[:2].numel() > (tokens or 0):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, **inputs)

    if tokens is None:
        torch.optim.AdamW.step = step  # type: ignore[method-assign, assignment]
    else:
        Backbone.hidden_states = hidden_states  # type: ignore[method-assign]


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    with at_the_end():
        if asked["memory"] is not None:
            run_out(**asked["memory"])
        try:
            for group in asked["groups"]:
                configs = [RunConfig.read(values) for values in group]
                run(configs[0]) if len(configs) == 1 else run_together(configs)
        except PolyprefixError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        sys.exit(0)  # as a command does
