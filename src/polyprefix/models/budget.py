"""Tokens of a forward pass: where a configuration leaves them to the device, and where memory does
not suffice for them.

A CPU is filled by a thousand tokens. In training more of them are no faster and take memory: the
activations of all are kept. In evaluation they are not, and where answers are written a batch's
tokens are those of its cache: the more rows, the fewer times all weights are read. What a GPU is
filled by depends on the model; these are enough for a small one, and fit beside a large one. Where
they do not fit, half of them may.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from polyprefix.config import OutOfMemory
from polyprefix.models.batching import Batch, Text, lay_out

TRAINING, TRAINING_ON_CPU = 8192, 1024

EVALUATION_HELP = (
    "What may help: a smaller task.max_length, a smaller decoding.max_new_tokens where answers are "
    "written, model.dtype=bfloat16. 'polyprefix plan' says what takes how much."
)
"""Where a text by itself does not fit in evaluation."""

T = TypeVar("T")


def training_tokens(wanted: int | None, device: torch.device) -> int:
    """``runtime.micro_batch_tokens`` on a device."""
    return wanted or (TRAINING_ON_CPU if device.type == "cpu" else TRAINING)


class Budget:
    """Tokens of a forward pass, halved each time that memory does not suffice.

    Attributes:
        tokens: how many there may be now.
        shared: the backbone is divided among processes: a pass is made by all at once, and one of
            them cannot leave it to make a smaller one.

    Args:
        tokens: at first.
        key: the configuration's key that says how many.
        help: what to change where one text by itself does not fit.
        say: told of every halving.
        shared: see the attribute.
    """

    def __init__(
        self,
        tokens: int,
        key: str = "runtime.evaluation_batch_tokens",
        help: str = EVALUATION_HELP,
        say: Callable[[str], None] = lambda _: None,
        shared: bool = False,
    ) -> None:
        self.tokens, self.key, self.help, self.say = tokens, key, help, say
        self.shared = shared

    @classmethod
    def of(cls, tokens: int | Budget, *, shared: bool = False) -> Budget:
        """A budget unless it is one."""
        budget = tokens if isinstance(tokens, Budget) else cls(tokens)
        budget.shared = shared
        return budget

    def halve(self, tokens: int, alone: int) -> None:
        """Half of what did not fit.

        Args:
            tokens: of the forward pass that did not fit.
            alone: tokens of the longest text in it, which cannot be cut.

        Raises:
            OutOfMemory: there was one text only, or other processes wait in the pass.
        """
        if tokens <= alone:
            raise OutOfMemory(self.too_large(alone))
        if self.shared:
            raise OutOfMemory(
                f"out of memory at {tokens:,} tokens of a forward pass, which all processes that "
                f"share the backbone make together. A smaller {self.key} helps, such as "
                f"{max(1, min(self.tokens, tokens) // 2)}: --set {self.key}=... with the same "
                "command goes on from the last checkpoint"
            )
        self.tokens = max(1, min(self.tokens, tokens) // 2)
        self.say(
            f"out of memory at {tokens:,} tokens of a forward pass: going on with {self.tokens:,} "
            f"({self.key})"
        )

    def too_large(self, tokens: int) -> str:
        """What is said where one text by itself does not fit."""
        return f"out of memory: one text of {tokens:,} tokens does not fit by itself. {self.help}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the system had no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


def unless_out_of_memory(work: Callable[[], T]) -> tuple[T] | None:
    """What ``work`` returns; ``None`` where memory did not suffice, and what it held is free."""
    try:
        return (work(),)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Out of the handler: the traceback, which held the tensors of its frames, is gone.
    free_what_is_unused()
    return None


def free_what_is_unused() -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        clear_device_cache()


def lay_out_fitting(
    texts: Sequence[Text],
    budget: Budget,
    pad_id: int,
    device: torch.device,
    attention_length: float,
    work: Callable[[Batch], T],
) -> Iterator[tuple[Batch, T]]:
    """Batches of :func:`polyprefix.models.batching.lay_out` with what ``work`` makes of each. One
    for which memory does not suffice, and all that follow, are laid out anew with half the tokens.

    Raises:
        OutOfMemory: a text by itself does not fit.
    """
    left = list(range(len(texts)))
    while left:
        chosen, done, failed = [texts[i] for i in left], set[int](), False
        for batch in lay_out(chosen, budget.tokens, pad_id, device, attention_length):
            whole = batch if len(left) == len(texts) else _of_all(batch, left)
            found = unless_out_of_memory(partial(work, whole))
            if found is None:
                budget.halve(batch.input_ids.numel(), longest(chosen, batch))
                failed = True
                break
            done.update(batch.texts)
            yield whole, found[0]
        if not failed:
            return
        left = [i for place, i in enumerate(left) if place not in done]


def longest(texts: Sequence[Text], batch: Batch) -> int:
    """Tokens of the longest text of a batch."""
    return max(len(texts[i].ids) for i in batch.texts)


def _of_all(batch: Batch, places: Sequence[int]) -> Batch:
    """A batch of some of the texts as one of all of them."""
    return replace(
        batch,
        texts=[places[i] for i in batch.texts],
        stretches=[replace(stretch, text=places[stretch.text]) for stretch in batch.stretches],
    )
