"""Packed rows that are attended to in blocks: eagerly on a CPU, compiled on CUDA."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask

from polyprefix.models import attention, block_sparse
from polyprefix.models.batching import lay_out
from tests.conformance.cases import PAIRS, MethodCase, adapted, alone
from tests.conformance.test_invariants import (
    TOLERANCE,
    branching,
    packed_logits,
    without_dropout,
)

BLOCKED = [(kind, case) for kind, case in PAIRS if kind not in ("bloom", "gemma2")]
"""ALiBi and a cap change scores one by one."""
CUDA = torch.device("cuda")


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[BlockMask]:
    """Blocks on a CPU, for heads of any size; what was attended with."""
    monkeypatch.setattr(block_sparse, "DEVICES", {"cpu"})
    monkeypatch.setattr(block_sparse, "DTYPES", {torch.float32})
    monkeypatch.setattr(block_sparse, "LEAST_HEAD", 1)
    found: list[BlockMask] = []
    original = block_sparse.attend

    def attend(*arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(attention.block_sparse, "attend", attend)
    return found


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("kind", "case"), BLOCKED, ids=lambda value: str(value))
def test_blocks_change_nothing(kind: str, case: MethodCase, masks: list[BlockMask]) -> None:
    model = adapted(kind, case)
    rows = branching(model)
    [batch] = lay_out(rows, 10_000, 0, torch.device("cpu"), model.attention_length)
    assert len(batch.input_ids) == 1  # of any length: nothing speaks against one row
    with torch.no_grad():
        logits = packed_logits(model, batch)
    assert masks
    want = [alone(model, rows[i].ids)[list(rows[i].reads)] for i in batch.texts]
    torch.testing.assert_close(logits, torch.cat(want), **TOLERANCE)


def test_a_mask_of_blocks_can_be_written_out() -> None:
    """As attention with dropout needs it."""
    until = torch.tensor([[6, 6, 5, 3, 5, 5, 6, 8, 8]])

    def sees(
        batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        return (key <= query) & (query <= until[batch, key])

    places = torch.arange(9)
    want = (places[None] <= places[:, None]) & (places[:, None] <= until[0][None])
    mask = block_sparse.block_mask(sees, 1, 9, torch.device("cpu"))
    assert torch.equal(block_sparse.dense(mask), want[None, None])


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "case"), PAIRS, ids=lambda value: str(value))
def test_cuda_computes_what_a_cpu_does(kind: str, case: MethodCase) -> None:
    """Packed logits and gradients, of texts that a CPU computes one by one."""
    reference, model = adapted(kind, case), adapted(kind, case)
    rows = branching(reference)
    model.backbone.model.to(CUDA)
    model.adapters.to(CUDA)
    for each in (reference, model):
        each.train()
        without_dropout(each)
    targets = [torch.arange(3, 3 + len(row.reads)) for row in rows]
    for row, target in zip(rows, targets, strict=True):
        logits = reference(torch.tensor([row.ids])).logits[0, list(row.reads)]
        (F.cross_entropy(logits, target, reduction="sum") / 10).backward()
    for batch in lay_out(rows, 10_000, 0, CUDA, model.attention_length):
        logits = packed_logits(model, batch)
        want = [alone(reference, rows[i].ids)[list(rows[i].reads)] for i in batch.texts]
        torch.testing.assert_close(logits.cpu(), torch.cat(want), atol=1e-4, rtol=1e-4)
        target = torch.cat([targets[i] for i in batch.texts]).to(CUDA)
        (F.cross_entropy(logits, target, reduction="sum") / 10).backward()
    wanted = reference.adapter().trainable() if case.type.trains else {}
    for name, value in (model.adapter().trainable() if wanted else {}).items():
        expected = wanted[name].grad
        largest = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            value.grad.cpu() / largest, expected / largest, atol=1e-4, rtol=1e-3
        )
