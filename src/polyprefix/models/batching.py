"""Batches under a budget of tokens, and padding.

This is the place where packing will come in: whoever trains or scores asks for batches here and
reads its results at flat positions, whatever the layout of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence and what is read from it.

    Attributes:
        ids: token ids, soft tokens included.
        reads: places in ``ids`` at which logits are wanted.
    """

    ids: list[int]
    reads: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows laid out for one forward pass.

    Attributes:
        input_ids: ``[B, T]``.
        attention_mask: ``[B, T]``.
        keep: ``[N]`` flat positions of all reads, row after row in the order of ``rows``.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    keep: torch.Tensor


def by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first, each of at most ``budget`` padded
    tokens (a single longer row makes a batch of its own)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def lay_out(rows: Sequence[Row], pad_id: int, device: torch.device) -> Batch:
    """Rows padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    keep = []
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        mask[number, : len(row.ids)] = 1
        keep += [number * longest + place for place in row.reads]
    return Batch(ids.to(device), mask.to(device), torch.tensor(keep, device=device))
