"""The loss of a micro-batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from polyprefix.models import Entering
from polyprefix.models.batching import Batch


def micro_batch_losses(
    model: Any,
    batch: Batch,
    targets: torch.Tensor,
    of: torch.Tensor,
    counts: torch.Tensor,
    entering: Entering | None = None,
) -> torch.Tensor:
    """What a micro-batch adds to the losses of several trainings, ``[J]``.

    Logits are computed where a text is read, and nowhere else.

    Args:
        model: an :class:`AdaptedModel`, or what accelerate makes of one.
        batch: on the model's device.
        targets: ``[N]``, the token at every place that is read.
        of: ``[N]``, the training that each of them belongs to.
        counts: ``[J]``, targets of each training in the whole optimizer step.
        entering: see :meth:`AdaptedModel.forward`.
    """
    logits = model(
        batch.input_ids,
        position_ids=batch.position_ids,
        until=batch.until,
        adapters=batch.adapters,
        keep=batch.keep,
        entering=entering,
    ).logits
    of_tokens = F.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")
    return torch.zeros_like(counts).index_add(0, of.to(logits.device), of_tokens) / counts
