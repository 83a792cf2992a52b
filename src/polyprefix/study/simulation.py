"""What a forward and a backward pass need of memory, without doing them.

The model's own code runs, with the adapter's and the loop's, on tensors that have a shape and a
type and no numbers (torch's ``FakeTensorMode``). Every storage that an operation makes is counted
from then on until nothing refers to it any more, as an allocator would. So there is no formula for
a family or a method: whatever attention kernel, checkpointing or adapter there is, what it keeps
for the backward pass is what is counted. What an operation takes for itself and gives back before
it returns is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from polyprefix.evaluation import Row, RunningBatch, alike, columns, to_draw_from
from polyprefix.methods import AdaptedModel, Adapter, MethodConfig
from polyprefix.models import Entering, attention
from polyprefix.models.batching import Batch
from polyprefix.models.cache import TextCache
from polyprefix.models.hidden_states import states_entering
from polyprefix.models.quantization import is_quantised, stored
from polyprefix.training import micro_batch_losses


@contextmanager
def without_numbers() -> Iterator[None]:
    """Tensors that are made have no numbers, and take no memory."""
    with masks_written_out(), FakeTensorMode(allow_non_fake_inputs=True):
        yield


@contextmanager
def masks_written_out() -> Iterator[None]:
    """torch's causal mask for a prefix is a tensor of a class of its own, which no other may stand
    for. A CPU writes it out as this one."""

    def written_out(queries: int, keys: int) -> torch.Tensor:
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    names = vars(attention)
    plain = names["causal_lower_right"]
    names["causal_lower_right"] = written_out
    try:
        yield
    finally:
        names["causal_lower_right"] = plain


def attach_without_numbers(
    model: AdaptedModel, method: MethodConfig, text: str | None = None
) -> Adapter:
    """Attach an adapter to a model that was made under :func:`without_numbers`, as if saved tensors
    were to follow."""
    with with_numbers():  # methods draw numbers, and ask for some
        adapter = model.attach(method, text=text, restore=True)
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is None or is_quantised(value):  # what that is made of has no numbers
                continue
            if not isinstance(value, FakeTensor):
                empty = torch.empty(value.shape, dtype=value.dtype, device=value.device)
                module._parameters[name] = nn.Parameter(empty, value.requires_grad)
    return adapter


@contextmanager
def with_numbers() -> Iterator[None]:
    """Within :func:`without_numbers`, tensors that are made have them."""
    with unset_fake_temporarily():
        yield


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are made, by what they are made for.

    Attributes:
        stage: what the next ones are made for.
        now: bytes of each stage that are in use.
        peak: the same at the moment at which all of them were most.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        """``known``: tensors that were there before, and are not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.stage = ""
        self.now: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self._most = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = True

    @property
    def most(self) -> int:
        """Bytes in use at the peak."""
        return self._most

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, made)
        return made

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            size, stage = storage.nbytes(), self.stage
            self._seen[storage] = True
            weakref.finalize(storage, self._free, stage, size)
            self.now[stage] = self.now.get(stage, 0) + size
            total = sum(self.now.values())
            if total > self._most:
                self._most, self.peak = total, dict(self.now)
        return tensor

    def _free(self, stage: str, size: int) -> None:
        self.now[stage] -= size


@dataclass(frozen=True)
class StepMemory:
    """Bytes at the moment of a step at which most are in use; weights are not among them.

    Attributes:
        activations: what layers have kept for the backward pass.
        logits: at the places that are read, and what the loss makes of them.
        backward: gradients, and what layers compute, or compute again, in the backward pass.
    """

    activations: int = 0
    logits: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        return self.activations + self.logits + self.backward


def training_step(
    model: AdaptedModel,
    batch: Batch,
    *,
    precision: torch.dtype | None = None,
    checkpointing: bool = False,
    entering: int | None = None,
    accumulated: bool = False,
) -> StepMemory:
    """Memory of the forward and the backward pass of a micro-batch.

    Args:
        model: with the adapter in use; made under :func:`without_numbers` or not.
        batch: on the model's device.
        precision: of autocast, ``None`` for none.
        checkpointing: layers are computed again.
        entering: the layer that kept hidden states enter, ``None`` for none.
        accumulated: gradients of other micro-batches of the step are there already.
    """
    backbone = model.backbone
    targets = torch.zeros(len(batch.keep), dtype=torch.long)
    of = torch.zeros_like(targets)
    counts = torch.ones(1)
    states = None
    if entering is not None:
        shape = (*batch.input_ids.shape, backbone.hidden_size)
        states = Entering(
            entering, torch.zeros(shape, dtype=backbone.dtype, device=backbone.device)
        )
    tracker = _tracker(model)
    head = backbone.model.get_output_embeddings()

    def reached(*_: Any) -> None:
        if tracker.stage == "activations":
            tracker.stage = "logits"

    hook = head.register_forward_pre_hook(reached)
    backbone.gradient_checkpointing(checkpointing)
    model.train()
    try:
        with tracker:
            if accumulated:
                tracker.stage = "backward"
                for value in model.parameters():
                    if value.requires_grad:
                        value.grad = torch.zeros_like(value)
            tracker.stage = "activations"
            with torch.autocast(
                backbone.device.type, dtype=precision, enabled=precision is not None
            ):
                loss = micro_batch_losses(model, batch, targets, of, counts, states).sum()
            tracker.stage = "backward"
            torch.autograd.backward(loss)
    finally:
        hook.remove()
        backbone.gradient_checkpointing(False)
        model.eval()
        model.zero_grad()
    return _parts(tracker)


def evaluation_pass(model: AdaptedModel, batch: Batch) -> int:
    """Bytes that scoring a batch takes at most."""
    tracker = _tracker(model)
    with torch.no_grad(), tracker:
        logits = model(
            batch.input_ids, position_ids=batch.position_ids, until=batch.until, keep=batch.keep
        ).logits
        logits.float().log_softmax(-1)
    return tracker.most


def filling_pass(model: AdaptedModel, batch: Batch, layer: int) -> int:
    """Bytes that computing what enters a layer takes at most, before a training that keeps it."""
    tracker = _tracker(model)
    with torch.no_grad(), tracker:
        states_entering(
            model.backbone.layers[layer],
            lambda: model(batch.input_ids, position_ids=batch.position_ids, until=batch.until),
        )
    return tracker.most


def generation_pass(
    model: AdaptedModel, rows: Sequence[Row], device: torch.device
) -> tuple[int, int]:
    """Bytes of the cache with which prompts are answered, and what their forward passes, and the
    choice of a token, take beside it at most.

    Args:
        model: with the rows' adapter attached.
        rows: prompts that join an empty batch at once.
        device: of the run.
    """
    tracker = _tracker(model)
    decoding, running = rows[0].decoding, RunningBatch(model)
    parts = []
    with torch.no_grad(), tracker:
        for some in alike(rows, device):
            logits, part, _ = running.prefill(some)
            if decoding.temperature:
                to_draw_from(logits, decoding.temperature, decoding.top_p)
            parts.append((part, 0))
        del logits, part
        cache = TextCache.joined(parts, columns(rows))
    held = [values for layer in cache.layers for values in (layer.keys, layer.values)]
    size = sum(values.untyped_storage().nbytes() for values in held)
    return size, max(0, tracker.most - size)


def _tracker(model: AdaptedModel) -> Allocations:
    tensors = (*model.parameters(), *model.buffers())
    return Allocations(inner for tensor in tensors for inner in stored(tensor))


def _parts(tracker: Allocations) -> StepMemory:
    peak = tracker.peak
    return StepMemory(*(peak.get(stage, 0) for stage in ("activations", "logits", "backward")))
