"""A backbone of which every process holds a part (FSDP2, ``torch.distributed.fsdp.fully_shard``).

Each decoder layer is a group of its own: its weights are gathered before the layer is computed and
given up after it. Embeddings, the last norm and the head are a group too. What an adapter adds is
small, and every process has all of it: its gradients are summed like those of an unsharded
backbone. Where the backbone itself is trained, FSDP2 sums the gradients of the parts.

Gathering is a thing that all processes do together, so all make the same number of passes through
the model: who has fewer texts makes passes that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils import _pytree

from polyprefix.config import OutOfMemory, PolyprefixError
from polyprefix.distributed.world import world
from polyprefix.methods import AdaptedModel, Output


def shard(model: AdaptedModel, device: torch.device) -> None:
    """Divide the backbone among the processes of this world.

    Args:
        model: on the CPU, or on ``device``, with its adapters attached. Others cannot be attached
            afterwards, and the backbone serves no other model.
        device: where each process's part goes, a layer at a time: the whole need not fit.
    """
    backbone = model.backbone
    own = {id(value): value for value in model.adapters.parameters()}
    if not backbone.tuned:  # what is trained within the backbone, such as LoRA's, is an adapter's
        for name in model.adapters:
            own |= {id(value): value for value in model.adapter(name).trainable().values()}
    for value in own.values():
        value.data = value.data.to(device)
    for value in backbone.model.parameters():  # FSDP2 takes no others
        value.data = value.data.contiguous()
    mesh = init_device_mesh(device.type, (world().size,))
    options: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": True,  # an evaluation may be followed by an optimizer step
        "ignored_params": set(own.values()),
    }
    _make_output_known()
    for layer in backbone.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Losses are divided by the tokens of all processes: gradients are added, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    backbone.sharded = True
    model.register_forward_pre_hook(_count, prepend=True)


def _make_output_known() -> None:
    """FSDP2 looks for tensors in what a model returns."""
    if Output not in _pytree.SUPPORTED_NODES:
        _pytree.register_pytree_node(
            Output,
            lambda output: ([output.logits, output.past_key_values], None),
            lambda values, _: Output(*values),
        )


_counting = False


def _count(*_: object) -> None:
    """Before each pass: say that there is one."""
    if _counting:
        world().total(1)


@contextmanager
def in_step(model: AdaptedModel) -> Iterator[None]:
    """Within, and without gradients, processes make different numbers of passes through the model;
    at its end, those that need no more make some for the others."""
    global _counting
    if not model.backbone.sharded:
        yield
        return
    _counting = True
    failed: PolyprefixError | None = None
    try:
        yield
    except OutOfMemory as error:  # within a pass, where the others wait
        world().give_up(error)
        raise
    except PolyprefixError as error:  # not within a pass: the others can go on
        failed = error
    finally:
        _counting = False
    nothing = torch.tensor([[model.pad_id]], device=model.backbone.device)
    while world().total(0):
        with torch.no_grad():
            model(nothing, adapters=[None])
    if failed is not None:
        raise failed
