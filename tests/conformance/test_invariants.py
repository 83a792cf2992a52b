"""The invariants of the design, for every method on every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from polyprefix.config import ConfigError
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import Batch, Text, lay_out
from tests.conformance.cases import (
    KINDS,
    METHODS,
    PAIRS,
    SLIDING,
    TEXT,
    MethodCase,
    adapted,
    alone,
    backbone,
    padded,
    scramble,
    supported,
    texts,
)

CPU = torch.device("cpu")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
FEW, MANY = 5, 2
"""One place in so many is read: the last layer computes these alone, or all."""

ALL_READ = ("llama-tied", "mistral", "gpt_neox-sequential")
"""Kinds like others, which are there for that too."""
every = pytest.mark.parametrize(("kind", "case"), PAIRS, ids=str)
every_trained = pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for kind, case in PAIRS if case.method != "none"], ids=str
)


def wrapped(model: AdaptedModel, rows: list[list[int]]) -> list[list[int]]:
    """Prompts with their soft tokens in place, and an answer of three tokens."""
    return [model.wrap(row[:-3]) + row[-3:] for row in rows]


# 1 ------------------------------------------------------------------------------------------------


@every
def test_no_op_at_initialisation(kind: str, case: MethodCase) -> None:
    model = AdaptedModel(backbone(kind))
    ids = torch.tensor([texts(1)[0]])
    with torch.no_grad():
        before = model(ids).logits
        model.attach(case.config(), text=TEXT)
        after = model(ids).logits
    claims = case.type.claims_no_op(case.config())
    if claims:
        torch.testing.assert_close(after, before, **TOLERANCE)
    elif case.method == "prefix_tuning":
        # the comparison above could pass because nothing is ever attached
        assert not torch.allclose(after, before, atol=1e-3)


# 2 ------------------------------------------------------------------------------------------------


def loss_of(model: AdaptedModel, rows: list[list[int]]) -> torch.Tensor:
    ids, mask = padded(wrapped(model, rows), "right")
    logits = model(ids, mask).logits[:, :-1].float()
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    targets = targets.masked_fill(targets >= model.backbone.vocab_size, -100)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@every_trained
def test_training_moves_all_that_is_trainable_and_nothing_else(kind: str, case: MethodCase) -> None:
    model = AdaptedModel(backbone(kind))
    adapter = model.attach(case.config(), text=TEXT)
    trainable = adapter.trainable()
    with torch.no_grad():
        loss_of(model, texts())
    ours = {id(value) for value in trainable.values()}
    start = {name: value.detach().clone() for name, value in trainable.items()}
    rest = {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if id(value) not in ours
    }
    model.train()
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, texts()).backward()
        optimizer.step()
    for name, value in adapter.trainable().items():
        assert not torch.equal(value, start[name]), f"{name} did not move"
    for name, value in model.named_parameters():
        if name in rest:
            assert torch.equal(value, rest[name]), f"{name} moved"
            assert value.grad is None, f"{name} has a gradient"


# 4 ------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(kind: str, case: MethodCase, side: str) -> None:
    model = adapted(kind, case)
    rows = wrapped(model, texts())
    ids, mask = padded(rows, side)
    with torch.no_grad():
        logits = model(ids, mask).logits
    for row, got, visible in zip(rows, logits, mask.bool(), strict=True):
        torch.testing.assert_close(got[visible], alone(model, row), **TOLERANCE)


def branching(model: AdaptedModel, every: int = FEW) -> list[Text]:
    """Texts that share beginnings within beginnings, longer than windows, soft tokens in them;
    one is the beginning of others, one is there twice, some share nothing. One place in ``every``
    is read."""
    first, second, third, fourth = texts(4)
    stems = [first, first + second[:4], first + second, first[:5] + third]
    prompts = [*stems, first + second, third, first + second + [7, 8], fourth]
    answers = [[11], [12, 13], [11, 12, 14], [11], [11, 12, 15], [12], [11, 16], [17]]
    rows = [
        model.wrap(prompt) + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    rows += [model.wrap(first[:6]) + third, rows[2]]
    return [Text(row, range(len(row) % 3, len(row), every)) for row in rows]


def packed_logits(model: AdaptedModel, batch: Batch) -> torch.Tensor:
    return model(
        batch.input_ids, position_ids=batch.position_ids, until=batch.until, keep=batch.keep
    ).logits


@pytest.mark.parametrize(
    ("kind", "case", "budget", "reads"),
    [(kind, case, 40, FEW) for kind, case in PAIRS]
    + [(kind, case, 10_000, MANY if kind in ALL_READ else FEW) for kind, case in PAIRS],
    ids=str,
)
def test_packing_and_sharing_change_nothing(
    kind: str, case: MethodCase, budget: int, reads: int
) -> None:
    model = adapted(kind, case)
    rows = branching(model, reads)
    packed = False
    for batch in lay_out(rows, budget, 0, CPU):
        packed |= batch.until is not None
        with torch.no_grad():
            logits = packed_logits(model, batch)
        want = [alone(model, rows[i].ids)[list(rows[i].reads)] for i in batch.texts]
        torch.testing.assert_close(logits, torch.cat(want), **TOLERANCE)
    assert packed


@every_trained
@pytest.mark.parametrize(("checkpointing", "reads"), [(False, MANY), (True, FEW)])
def test_packed_gradients_are_those_of_texts_alone(
    kind: str, case: MethodCase, checkpointing: bool, reads: int
) -> None:
    model = adapted(kind, case)
    model.train()
    without_dropout(model)
    rows = branching(model, reads)
    generator = torch.Generator().manual_seed(1)
    targets = [torch.randint(3, 120, (len(row.reads),), generator=generator) for row in rows]
    values = model.adapter().trainable()

    def collect() -> dict[str, torch.Tensor]:
        found = {
            name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
            for name, value in values.items()
        }
        model.zero_grad()
        return found

    alone_loss = packed_loss = 0.0
    for row, target in zip(rows, targets, strict=True):
        logits = model(torch.tensor([row.ids])).logits[0, list(row.reads)]
        loss = F.cross_entropy(logits, target, reduction="sum") / 10
        loss.backward()
        alone_loss += float(loss.detach())
    want = collect()
    model.backbone.gradient_checkpointing(checkpointing)
    for batch in lay_out(rows, 100, 0, CPU):
        target = torch.cat([targets[i] for i in batch.texts])
        loss = F.cross_entropy(packed_logits(model, batch), target, reduction="sum") / 10
        loss.backward()
        packed_loss += float(loss.detach())
    assert packed_loss == pytest.approx(alone_loss, rel=1e-5)
    for name, got in collect().items():
        largest = max(1.0, float(want[name].abs().max()))
        torch.testing.assert_close(got / largest, want[name] / largest, **TOLERANCE)


@every
def test_cached_decoding_changes_nothing(kind: str, case: MethodCase) -> None:
    model = adapted(kind, case)
    rows = wrapped(model, texts())
    ids, mask = padded(rows, "left")
    steps = 3
    with torch.no_grad():
        output = model(ids[:, :-steps], mask[:, :-steps], use_cache=True)
        got = [output.logits]
        for step in range(ids.shape[1] - steps, ids.shape[1]):
            output = model(
                ids[:, step : step + 1],
                mask[:, : step + 1],
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            got.append(output.logits)
    logits = torch.cat(got, dim=1)
    for row, each, visible in zip(rows, logits, mask.bool(), strict=True):
        torch.testing.assert_close(each[visible], alone(model, row), **TOLERANCE)


def test_who_sees_whom_is_said_in_one_way() -> None:
    model = AdaptedModel(backbone("llama"))
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(ValueError, match="until needs position_ids"):
        model(ids, until=np.array([[2, 2, 2]]))
    with pytest.raises(ValueError, match="position_ids excludes"):
        model(ids, torch.ones_like(ids), position_ids=torch.tensor([[0, 1, 2]]))


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_logits_where_they_are_kept(case: MethodCase) -> None:
    model = adapted("llama", case)
    rows = wrapped(model, texts())
    ids, mask = padded(rows, "right")
    keep = torch.tensor([2, ids.shape[1] + 4, 2 * ids.shape[1] + 1])
    with torch.no_grad():
        whole = model(ids, mask).logits.flatten(0, 1)
        torch.testing.assert_close(model(ids, mask, keep=keep).logits, whole[keep], **TOLERANCE)


# 5 ------------------------------------------------------------------------------------------------


def gradients(model: AdaptedModel) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    loss_of(model, texts()).backward()
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in model.adapter().trainable().items()
    }


def without_dropout(model: AdaptedModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


@every_trained
def test_checkpointed_gradients_are_the_same(kind: str, case: MethodCase) -> None:
    model = adapted(kind, case)
    model.train()
    without_dropout(model)
    plain = gradients(model)
    model.backbone.gradient_checkpointing(True)
    checkpointed = gradients(model)
    assert any(value.abs().max() > 0 for value in plain.values())
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["prefix_tuning", "llama_adapter", "lora", "bottleneck"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_below_the_lowest_adapted_layer_is_differentiated(
    kind: str, method: str, checkpointing: bool
) -> None:
    """Its input has no gradient, and checkpointing does not compute it a second time."""
    model = AdaptedModel(backbone(kind))
    scramble(model.attach({"name": method, "layers": "last:1"}, text=TEXT))
    model.train()
    model.backbone.gradient_checkpointing(checkpointing)
    wants: list[bool] = []
    computed: list[int] = []
    for number, layer in enumerate(model.backbone.layers):
        layer.register_forward_pre_hook(lambda _, inputs: wants.append(inputs[0].requires_grad))
        model.backbone.attentions[number].register_forward_pre_hook(
            lambda _module, _inputs, number=number: computed.append(number)
        )
    [batch] = lay_out(branching(model, MANY), 10_000, 0, CPU)
    packed_logits(model, batch).sum().backward()
    assert wants == [False, False]
    assert computed == ([0, 1, 1] if checkpointing else [0, 1])


# 7 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SLIDING)
@pytest.mark.parametrize("method", ["prefix_tuning", "llama_adapter"])
@pytest.mark.parametrize("layer", [0, 1])
def test_prefix_is_seen_beyond_the_window(kind: str, method: str, layer: int) -> None:
    """The last query of a text several windows long: its logits depend on the prefix of each
    layer, by itself and not through earlier tokens."""
    model = AdaptedModel(backbone(kind))
    options = {"name": method, "length": 3, "layers": [layer], "initialization": "random"}
    scramble(model.attach(options))
    window = model.backbone.sliding_window
    assert window is not None
    ids = torch.tensor([(texts(1)[0] * 20)[: 6 * window]])
    logits = model(ids).logits[0, -1]
    # hidden states before the window were computed with the same prefix: block that path
    model_only_last = _gradient_through_last_query(model, ids, layer)
    assert logits.isfinite().all()
    assert model_only_last > 1e-6


def _gradient_through_last_query(model: AdaptedModel, ids: torch.Tensor, layer: int) -> float:
    """Largest gradient of the last query's attention output with respect to the prefix."""
    attention = model.backbone.attentions[layer]
    seen: list[torch.Tensor] = []
    hook = attention.register_forward_hook(lambda _m, _a, output: seen.append(output[0]))
    model(ids)
    hook.remove()
    values = list(model.adapter().trainable().values())
    grads = torch.autograd.grad(seen[0][0, -1].sum(), values, allow_unused=True)
    return max(float(grad.abs().max()) for grad in grads if grad is not None)


# 8 ------------------------------------------------------------------------------------------------


@every
def test_trainable_tensors_are_fp32_on_a_bf16_backbone(kind: str, case: MethodCase) -> None:
    frozen = backbone(kind)
    frozen.model.to(torch.bfloat16)
    model = AdaptedModel(frozen)
    adapter = model.attach(case.config(), text=TEXT)
    assert all(value.dtype == torch.float32 for value in adapter.trainable().values())
    if adapter.trainable():
        scramble(adapter)
        loss = loss_of(model, texts())
        loss.backward()
        assert loss.isfinite()
        for value in adapter.trainable().values():
            assert value.grad is None or value.grad.dtype == torch.float32


# 9 ------------------------------------------------------------------------------------------------


def mixture(kind: str) -> tuple[AdaptedModel, list[str | None]]:
    """A model with two adapters of every method that can share a batch, and none."""
    model = AdaptedModel(backbone(kind))
    names: list[str | None] = [None]
    for number, case in enumerate(c for c in METHODS if c.type.mixes(c.config())):
        if not supported(kind, case):
            continue
        config: Any = case.config()
        if "length" in type(config).model_fields:  # different lengths within a batch
            config = config.model_copy(update={"length": 2 + number % 4})
        scramble(model.attach(config, f"a{number}", seed=number, text=TEXT), number)
        names.append(f"a{number}")
    return model, names


@pytest.mark.parametrize("kind", KINDS)
def test_rows_carry_different_adapters(kind: str) -> None:
    model, names = mixture(kind)
    assert len(names) > 8
    plain = texts(1)[0]
    rows = [model.wrap(plain, name) if name else plain for name in names]
    expected = []
    for name, row in zip(names, rows, strict=True):
        model.use(name)
        expected.append(alone(model, row))
    for side in ("left", "right"):
        ids, mask = padded(rows, side)
        with torch.no_grad():
            logits = model(ids, mask, adapters=names).logits
        for name, got, visible, want in zip(names, logits, mask.bool(), expected, strict=True):
            torch.testing.assert_close(
                got[visible], want, **TOLERANCE, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_carry_different_adapters(kind: str) -> None:
    """Each row holds a tree of texts under one adapter."""
    model, names = mixture(kind)
    plain = texts(1)[0]
    rows, expected = [], []
    for name in names:
        model.use(name)
        wrapped_ids = [model.wrap(ids) for ids in (plain, [*plain[:5], 9, 8], [*plain, 7])]
        [row] = lay_out([Text(ids, range(len(ids))) for ids in wrapped_ids], 999, 0, CPU)
        rows.append(row)
        expected.append(torch.cat([alone(model, wrapped_ids[i]) for i in row.texts]))
    longest = max(row.input_ids.shape[1] for row in rows)

    def stacked(name: str) -> torch.Tensor:
        fill = torch.arange(longest) if name == "until" else torch.zeros(longest, dtype=torch.long)
        filled = [fill.clone() for _ in rows]
        for line, row in zip(filled, rows, strict=True):
            values = torch.as_tensor(getattr(row, name)[0])
            line[: len(values)] = values
        return torch.stack(filled)

    with torch.no_grad():
        logits = model(
            stacked("input_ids"),
            position_ids=stacked("position_ids"),
            until=stacked("until").numpy(),
            adapters=names,
        ).logits
    for name, row, got, want in zip(names, rows, logits, expected, strict=True):
        torch.testing.assert_close(
            got[row.keep], want, **TOLERANCE, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_detach_restores_the_backbone(case: MethodCase) -> None:
    model = AdaptedModel(backbone("llama"))
    ids = torch.tensor([texts(1)[0]])
    before = alone(model, texts(1)[0])
    adapter = model.attach(case.config(), text=TEXT)
    tunes_backbone = any(name.startswith("backbone.") for name in adapter.trainable())
    if not tunes_backbone:
        scramble(adapter)
    model.detach()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits[0], before, atol=0, rtol=0)


# 10 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"name": "prefix_tuning", "network_size": 8}, "network_size"),
        ({"name": "prefix_tuning", "init_std": 0.1}, "init_std"),
        ({"name": "prefix_tuning", "initialization": "random", "init_text": "x"}, "init_text"),
        (
            {"name": "prefix_tuning", "parameterization": "mlp", "initialization": "activations"},
            "activations",
        ),
        ({"name": "llama_adapter", "init_text": "Topic:"}, "init_text"),
        ({"name": "llama_adapter", "initialization": "random", "init_text": "x"}, "init_text"),
        ({"name": "soft_prompt", "init_text": "x"}, "init_text"),
        ({"name": "soft_prompt", "network_size": 8}, "network_size"),
        ({"name": "full", "length": 3}, "length"),
        ({"name": "none", "layers": "all"}, "layers"),
    ],
    ids=str,
)
def test_an_argument_without_effect_is_an_error(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        AdaptedModel(backbone("llama")).attach(options, text=TEXT)
