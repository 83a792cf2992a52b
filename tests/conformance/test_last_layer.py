"""The last layer computes the positions that are read, in every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from polyprefix.methods import AdaptedModel
from polyprefix.models.cache import TextCache
from polyprefix.models.last_layer import Read
from tests.conformance.cases import KINDS, METHODS, MethodCase, adapted, padded, texts
from tests.conformance.test_invariants import wrapped

PREFIX = next(case for case in METHODS if case.method == "prefix_tuning")
CPU = torch.device("cpu")


@contextmanager
def positions_of(model: AdaptedModel) -> Iterator[list[int]]:
    """For how many positions each layer's feed-forward block is computed."""
    family = model.backbone.family
    found: list[int] = []

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(inputs[0].numel() // inputs[0].shape[-1])

    hooks = [
        layer.get_submodule(family.mlp_output).register_forward_pre_hook(count)
        for layer in model.backbone.layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_read_is_computed(kind: str) -> None:
    """Padded rows that read different numbers of positions, some of them twice; gradients too."""
    model = adapted(kind, PREFIX)
    ids, mask = padded(wrapped(model, texts()), "left")
    batch, length = ids.shape
    keep = np.array([length - 1, length - 1, 2 * length - 1, 2 * length - 3, 3 * length - 2])
    values = model.adapter().trainable().values()
    everywhere = model(ids, mask).logits.flatten(0, 1)[keep]
    want = torch.autograd.grad(everywhere.sin().sum(), values)
    with positions_of(model) as positions:
        logits = model(ids, mask, keep=keep).logits
    assert positions == [batch * length, batch * 2]
    torch.testing.assert_close(logits, everywhere, atol=1e-5, rtol=1e-5)
    for got, right in zip(torch.autograd.grad(logits.sin().sum(), values), want, strict=True):
        torch.testing.assert_close(got, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_is_whole(kind: str) -> None:
    """Keys and values are of all positions, also where none is read."""
    model = adapted(kind, PREFIX)
    rows = wrapped(model, texts(1))
    ids = torch.tensor(rows)
    length = ids.shape[1]
    cache = TextCache(model.backbone.num_layers, length)
    with torch.no_grad(), positions_of(model) as positions:
        nothing = np.zeros(0, dtype=np.int64)
        first = model(ids[:, :-2], past_key_values=cache, use_cache=True, keep=nothing)
        assert first.logits.shape[0] == 0
        assert positions == [length - 2, 1]
        last = model(ids[:, -2:], past_key_values=cache, use_cache=True, keep=np.array([1]))
        want = model(ids).logits[0, -1:]
    torch.testing.assert_close(last.logits, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_with_every_method(case: MethodCase) -> None:
    model = adapted("llama", case)
    ids, mask = padded(wrapped(model, texts()), "right")
    keep = np.array([1, ids.shape[1] + 2])
    with torch.no_grad(), positions_of(model) as positions:
        logits = model(ids, mask, keep=keep).logits
        assert positions[-1] == len(ids)
        want = model(ids, mask).logits.flatten(0, 1)[keep]
    torch.testing.assert_close(logits, want, atol=1e-5, rtol=1e-5)


def test_where_it_does_not_pay_all_are_computed() -> None:
    half = np.arange(5)
    assert Read.of(1, half, 1, 10, CPU) is not None
    assert Read.of(1, half, 1, 9, CPU) is None
    assert Read.of(1, np.concatenate([half, half]), 1, 10, CPU) is not None  # five, each twice
    assert Read.of(1, half, 2, 9, CPU) is None  # a row is as expensive as the one that reads most
