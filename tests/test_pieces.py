"""Attention of packed rows in pieces, against attention with the whole mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from polyprefix.models.batching import Text, lay_out
from polyprefix.models.pieces import LONGEST, Pieces, attend, cuts
from tests.conformance.cases import METHODS, adapted

CPU = torch.device("cpu")
HEADS, SHARED, WIDTH = 4, 2, 8
WINDOW = 7


def packed(rows: int = 2, seed: int = 0) -> npt.NDArray[np.int64]:
    """``until`` of rows of passages with questions, and of short texts that share little."""
    generator = np.random.default_rng(seed)
    texts = []
    for passage in range(3 * rows):
        start = generator.integers(10, 90, 70 + 9 * passage).tolist()
        texts += [[*start, *generator.integers(10, 90, 25).tolist()] for _ in range(3)]
    texts += [[5, 6, *generator.integers(10, 90, size).tolist()] for size in range(3, 30)]
    whole = sum(map(len, texts))
    [batch] = lay_out([Text(ids, [0]) for ids in texts], whole, 0, CPU, float("inf"))
    assert batch.until is not None
    return np.tile(batch.until, (rows, 1))


def visible(until: npt.NDArray[np.int64]) -> torch.Tensor:
    """``[B, T, T]``: what the rule says, written out."""
    places = np.arange(until.shape[1])
    return torch.from_numpy(
        (places[None, None] <= places[None, :, None]) & (places[None, :, None] <= until[:, None])
    )


def sees(until: npt.NDArray[np.int64], window: int | None = None) -> Any:
    ends = torch.from_numpy(until)

    def function(
        batch: torch.Tensor, _: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        seen = (key <= query) & (query <= ends[batch, key])
        return seen if window is None else seen & (query - key < window)

    return function


def test_every_query_is_in_one_piece_with_all_that_it_sees() -> None:
    until = packed()
    seen = visible(until).numpy()
    found = np.zeros(until.shape, dtype=int)
    pairs = 0
    for cut in cuts(until):
        found[cut.row, cut.start : cut.end] += 1
        needed = seen[cut.row, cut.start : cut.end].any(0)
        assert set(np.flatnonzero(needed)) <= set(cut.keys.tolist())
        assert cut.keys.tolist() == sorted(set(cut.keys.tolist()))
        assert cut.end - cut.start <= LONGEST
        pairs += (cut.end - cut.start) * len(cut.keys)
    assert (found == 1).all()
    assert pairs < seen.size / 4  # of the scores of all queries with all keys
    assert pairs < 3 * seen.sum()  # and not many more than are needed


def made(seed: int, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("prefix", [0, 5])
@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("with_mass", [False, True])
def test_it_is_attention_with_the_whole_mask(
    prefix: int, window: int | None, with_mass: bool
) -> None:
    until = packed()
    batch, length = until.shape
    query = made(0, batch, HEADS, length, WIDTH, dtype=torch.float64)
    key, value = (
        made(seed, batch, SHARED, prefix + length, WIDTH, dtype=torch.float64) for seed in (1, 2)
    )
    pieces = Pieces(sees(until, window), cuts(until), (batch, length))
    output, mass = attend(query, key, value, pieces, 0.3, with_mass)

    mask = visible(until)
    if window is not None:
        places = torch.arange(length)
        mask = mask & (places[:, None] - places[None] < window)
    assert torch.equal(pieces.dense()[:, 0], mask)
    mask = torch.cat([torch.ones(batch, length, prefix, dtype=torch.bool), mask], -1)[:, None]
    wide = [states.repeat_interleave(HEADS // SHARED, 1) for states in (key, value)]
    scores = (query @ wide[0].transpose(-1, -2) * 0.3).masked_fill(~mask, float("-inf"))
    want = scores.softmax(-1) @ wide[1]
    torch.testing.assert_close(output, want)
    loss, wanted = (output.sin().sum(), want.sin().sum())
    if with_mass:
        torch.testing.assert_close(mass, scores.logsumexp(-1))
        loss, wanted = loss + mass.cos().sum(), wanted + scores.logsumexp(-1).cos().sum()
    states = (query, key, value)
    for got, right in zip(
        torch.autograd.grad(loss, states), torch.autograd.grad(wanted, states), strict=True
    ):
        torch.testing.assert_close(got, right)


@pytest.mark.parametrize("autocast", [False, True])
def test_in_half_precision_scores_are_not(autocast: bool) -> None:
    until = packed(1)
    batch, length = until.shape
    dtype = torch.float32 if autocast else torch.bfloat16
    states = [made(seed, batch, HEADS, length, WIDTH, dtype=dtype) for seed in range(3)]
    pieces = Pieces(sees(until), cuts(until), (batch, length))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output, _ = attend(states[0], states[1], states[2], pieces, 0.3, False)
    assert output.dtype is torch.bfloat16
    narrow = [state.to(torch.bfloat16) for state in states]
    want = torch.nn.functional.scaled_dot_product_attention(
        *narrow, attn_mask=visible(until)[:, None], scale=0.3
    )
    torch.testing.assert_close(output, want, atol=0.02, rtol=0.02)
    grads = [torch.autograd.grad(x.float().sum(), states) for x in (output, want)]
    for got, right in zip(*grads, strict=True):
        assert got.dtype is dtype
        torch.testing.assert_close(got, right, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("kind", "used"),
    [("llama", True), ("mistral-sliding", True), ("bloom", False), ("gemma2", False)],
)
def test_who_attends_in_pieces(kind: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where scores are changed one by one, by ALiBi or a cap."""
    model = adapted(kind, METHODS[0])
    asked = []
    original = Pieces.laid

    def laid(self: Pieces, *arguments: Any) -> Any:
        asked.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(Pieces, "laid", laid)
    texts = [Text([5, 6, 7, *range(10 + n, 20)], [2]) for n in range(4)]
    [batch] = lay_out(texts, 100, 0, CPU, model.attention_length)
    with torch.no_grad():
        model(batch.input_ids, position_ids=batch.position_ids, until=batch.until)
    assert bool(asked) == used
    assert (model.attention_length == float("inf")) == used
