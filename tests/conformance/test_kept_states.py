"""Training on hidden states that were kept below the lowest adapted layer is the training without,
and the layers below are not computed: every method that allows it, on every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig

from polyprefix.config import ConfigError, RuntimeConfig
from polyprefix.methods import AdaptedModel, get_method
from polyprefix.models import Entering, get_family
from polyprefix.models.batching import Text, lay_out
from polyprefix.models.hidden_states import HiddenStates
from polyprefix.models.tiny import VARIANTS
from polyprefix.results import Silent
from polyprefix.training.keeping import FILE, keep_hidden_states
from tests.conformance.cases import KINDS, METHODS, TEXT, MethodCase, backbone, scramble, supported
from tests.conformance.test_invariants import CPU, TOLERANCE, branching, without_dropout


def has_layers(case: MethodCase) -> bool:
    return "layers" in get_method(case.method).Config.model_fields


UPPER = [
    MethodCase(case.method, tuple((dict(case.options) | {"layers": "last:1"}).items()))
    for case in METHODS
    if has_layers(case)
]
PAIRS = [(kind, case) for kind in KINDS for case in UPPER if supported(kind, case)]
CANNOT = [case for case in METHODS if not has_layers(case) and case.method != "none"]


def adapted(kind: str, case: MethodCase) -> AdaptedModel:
    model = AdaptedModel(backbone(kind))
    scramble(model.attach(case.config(), text=TEXT))
    without_dropout(model)
    return model


def keep(
    model: AdaptedModel, texts: list[Text], folder: Path, where: str = "memory", passes: float = 9
) -> HiddenStates | None:
    runtime = RuntimeConfig.read({"keep_hidden_states": where, "evaluation_batch_tokens": 60})
    return keep_hidden_states(model, [model.adapter()], texts, passes, runtime, folder, Silent())


def loss_and_gradients(
    model: AdaptedModel, texts: list[Text], kept: HiddenStates | None, budget: int
) -> dict[str, torch.Tensor]:
    """Of all reads; ``loss`` is among the gradients."""
    model.zero_grad()
    model.train()
    total = 0.0
    for batch in lay_out(texts, budget, 0, CPU):
        logits = model(
            batch.input_ids,
            position_ids=batch.position_ids,
            until=batch.until,
            keep=batch.keep,
            entering=None if kept is None else kept.entering(texts, batch),
        ).logits
        targets = torch.tensor([3 + (7 * i + j) % 90 for i in batch.texts for j in texts[i].reads])
        loss = F.cross_entropy(logits, targets, reduction="sum") / 10
        loss.backward()
        total += float(loss.detach())
    model.eval()
    found = {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in model.adapter().trainable().items()
    }
    return found | {"loss": torch.tensor(total)}


def calls(model: AdaptedModel) -> list[int]:
    """Receives the number of each layer whose attention is computed from now on."""
    computed: list[int] = []
    for number, attention in enumerate(model.backbone.attentions):
        attention.register_forward_pre_hook(lambda *_, number=number: computed.append(number))
    return computed


def assert_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert any(value.abs().max() > 0 for name, value in want.items() if name != "loss")
    for name, value in want.items():
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(got[name] / largest, value / largest, **TOLERANCE)


@pytest.mark.parametrize(("kind", "case"), PAIRS, ids=str)
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_loss_and_gradients_are_the_same(
    kind: str, case: MethodCase, where: str, tmp_path: Path
) -> None:
    """In small batches and in one that shares most, with gradient checkpointing and without."""
    model = adapted(kind, case)
    texts = branching(model)
    kept = keep(model, texts, tmp_path, where)
    assert kept is not None
    assert (tmp_path / FILE).exists() == (where == "disk")
    for budget, checkpointing in ((40, False), (10_000, False), (10_000, True)):
        model.backbone.gradient_checkpointing(checkpointing)
        want = loss_and_gradients(model, texts, None, budget)
        computed = calls(model)
        got = loss_and_gradients(model, texts, kept, budget)
        assert set(computed) == {1}
        assert_same(got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_below_are_left_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four: layers that are left out follow each other."""
    values = dict(VARIANTS.get(kind, {"model_type": kind}))
    model_type = values["model_type"]
    key = AutoConfig.for_model(model_type).attribute_map.get(
        "num_hidden_layers", "num_hidden_layers"
    )
    values[key] = 4
    if kinds := get_family(model_type).tiny.get("layer_types"):
        values["layer_types"] = kinds * 2
    monkeypatch.setitem(VARIANTS, "deep", values)
    model = adapted("deep", MethodCase("prefix_tuning", (("layers", (3,)),)))
    assert model.adapter().lowest_layer == 3
    texts = branching(model)
    want = loss_and_gradients(model, texts, None, 100)
    computed = calls(model)
    kept = keep(model, texts, tmp_path)
    assert set(computed) == {0, 1, 2}
    computed.clear()
    assert_same(loss_and_gradients(model, texts, kept, 100), want)
    assert set(computed) == {3}


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(
    "case",
    [
        *CANNOT,
        MethodCase("prefix_tuning", (("layers", "all"),)),
        MethodCase("lora", (("layers", (0, 1)),)),
    ],
    ids=str,
)
def test_a_method_that_changes_the_first_layer_keeps_nothing(
    case: MethodCase, where: str, tmp_path: Path
) -> None:
    """A plugin that does not say what it changes is among them."""
    model = adapted("llama", case)
    texts = branching(model)
    with pytest.raises(ConfigError, match=r"runtime\.keep_hidden_states.*the first layer computes"):
        keep(model, texts, tmp_path, where)
    assert keep(model, texts, tmp_path, "auto") is None
    assert not list(tmp_path.iterdir())


def test_a_plugin_that_does_not_say_is_among_them() -> None:
    assert {"soft_prompt", "full", "value_shift"} <= {case.method for case in CANNOT}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bloom"])
def test_dropout_below_keeps_nothing(kind: str, tmp_path: Path) -> None:
    """As a module, and as a number that attention is given; above it is no obstacle."""
    model = adapted(kind, MethodCase("prefix_tuning", (("layers", "last:1"),)))
    texts = branching(model)
    below, above = model.backbone.attentions
    for attention, allowed in ((above, True), (below, False)):
        found: Any = attention
        if kind == "llama":
            found.attention_dropout = 0.5
        elif kind == "gpt2":
            found.resid_dropout.p = 0.5
        else:
            found.hidden_dropout = 0.5
        state = torch.get_rng_state()
        if allowed:
            assert keep(model, texts, tmp_path) is not None
        else:
            with pytest.raises(ConfigError, match="dropout below layer 1"):
                keep(model, texts, tmp_path)
            assert keep(model, texts, tmp_path, "auto") is None
        assert torch.equal(torch.get_rng_state(), state)  # which training goes on to draw from
        assert not model.training


def test_a_pass_that_begins_above_excludes_what_needs_the_layers_below() -> None:
    model = AdaptedModel(backbone("llama"))
    model.attach({"name": "lora", "layers": [1]}, "upper")
    model.attach({"name": "lora", "layers": [0]}, "lower")
    ids = torch.tensor([[5, 6, 7]])
    entering = Entering(1, torch.zeros(1, 3, 32))
    with pytest.raises(ValueError, match="'lower' changes layers below 1"):
        model(ids, entering=entering)
    with pytest.raises(ValueError, match="'lower' changes layers below 1"):
        model(ids, adapters=["lower"], entering=entering)
    with pytest.raises(ValueError, match="excludes a cache"):
        model(ids, adapters=["upper"], use_cache=True, entering=entering)
    assert model(ids, adapters=["upper"], entering=entering).logits.shape == (1, 3, 128)
