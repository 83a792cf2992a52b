"""Attention of packed rows without the work that their mask hides.

In a row of many texts nearly all of the ``T x T`` scores are hidden. Torch's flex attention,
compiled for the device, leaves out every block of 128 x 128 that is hidden as a whole, so that a
long row takes as long as its texts do alone. It returns the logarithm of each query's sum of
exponentials beside the output, and with that a prefix joins afterwards
(:func:`polyprefix.models.attention.join`): the mask is the text's own, whatever the layer carries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import (
    BlockMask,
    create_block_mask,
    flex_attention,
)

from polyprefix.models.pieces import Sees, rows_of

DEVICES = frozenset({"cuda"})
"""Kinds of devices that it is compiled for. On a CPU it has no backward pass."""

DTYPES = frozenset({torch.bfloat16, torch.float16})
LEAST_HEAD = 64
"""Head size D from which on, and types in which, its kernels were seen to work. In float32 with
D = 16 there were none (torch 2.11, H100)."""


def available(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether packed rows can be attended to in blocks."""
    return device.type in DEVICES and dtype in DTYPES and head_dim >= LEAST_HEAD


def block_mask(sees: Sees, batch: int, length: int, device: torch.device) -> BlockMask:
    """The blocks of ``[B, 1, T, T]`` that are not hidden as a whole."""
    return create_block_mask(sees, batch, None, length, length, device=device)


def rows(mask: BlockMask, queries: torch.Tensor) -> torch.Tensor:
    """``[B, 1, t, T]``, the boolean mask of the queries at places ``[B, t]``."""
    return rows_of(mask.mask_mod, queries, mask.shape[3])


def dense(mask: BlockMask) -> torch.Tensor:
    """The boolean mask ``[B, 1, T, T]`` that ``mask`` was made from."""
    batch, _, queries, _ = mask.shape
    where: Any = mask.kv_num_blocks.device
    return rows(mask, torch.arange(queries, device=where).expand(batch, queries))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: BlockMask,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention ``[B, H, T, D]`` and the logarithm of its sums of exponentials ``[B, H, T]``.

    ``key`` and ``value`` have H_kv heads."""
    found: tuple[torch.Tensor, torch.Tensor] = _compiled(query.is_cuda)(
        query,
        key,
        value,
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_lse=True,
        # rows of under 128 tokens would be given to a kernel for decoding, which cannot do all
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
    )
    return found


@cache
def _compiled(compiled: bool) -> Any:
    # dynamic: rows are of any length, and a kernel for each would be compiled anew in every step
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
