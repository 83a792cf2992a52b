"""The attention function against the formulas written out; caches; models that cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

from polyprefix.config import ModelConfig, UnsupportedModel
from polyprefix.methods import AdaptedModel
from polyprefix.models import (
    Backbone,
    CallContext,
    LayerPrefix,
    calling,
    families,
    get_family,
    load_backbone,
    slot_of,
)
from polyprefix.models.attention import prefix_attention
from polyprefix.models.tiny import tiny_model
from tests.conformance.cases import KINDS, TEXT, backbone, padded, scramble, texts

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
B, H, T, D, P = 3, 4, 6, 8, 3
SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625])


# The formulas -------------------------------------------------------------------------------------


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    visible: torch.Tensor,
    prefix: LayerPrefix | None,
    softcap: float | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """``[B, T, H, D]`` in fp64: exponentials and sums.

    ``visible``: ``[B, T, S]``; ``positions``: ``[B, S]`` for ALiBi with ``SLOPES``.
    """

    def weights(keys: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """``[B, H, T, S]``, not normalised."""
        keys = keys.double().repeat_interleave(H // keys.shape[1], dim=1)
        scores = torch.einsum("bhtd,bhsd->bhts", query.double(), keys) / D**0.5
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if places is not None:
            scores = (
                scores + torch.einsum("h,bs->bhs", SLOPES.double(), places.double())[:, :, None]
            )
        return scores.exp()

    def blend(amounts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        values = values.double().repeat_interleave(H // values.shape[1], dim=1)
        return torch.einsum("bhts,bhsd->bthd", amounts, values)

    text = weights(key, positions) * visible[:, None]
    if prefix is None:
        return blend(text / text.sum(-1, keepdim=True), value)
    prefix_key = prefix.key.expand(len(query), -1, -1, -1)
    prefix_value = prefix.value.expand(len(query), -1, -1, -1)
    places = None
    if positions is not None:
        place = torch.arange(P) - P if prefix.alibi_offset else torch.zeros(P)
        places = place.expand(len(query), -1)
    extra = weights(prefix_key, places)
    if prefix.additive:
        assert prefix.gate is not None
        term = blend(extra / extra.sum(-1, keepdim=True), prefix_value)
        gate = prefix.gate.double()[:, None]
        return blend(text / text.sum(-1, keepdim=True), value) + gate * term
    if prefix.gate is not None:
        extra = extra * prefix.gate.double()[:, None, None]
    whole = text.sum(-1, keepdim=True) + extra.sum(-1, keepdim=True)
    return blend(text / whole, value) + blend(extra / whole, prefix_value)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prefix_of(mode: str, heads: int, length: int = P, seed: int = 10) -> LayerPrefix | None:
    key, value = draw(heads, length, D, seed=seed), draw(heads, length, D, seed=seed + 1)
    gate = torch.tensor([0.0, 0.3, 1.0, 2.5])
    match mode:
        case "none":
            return None
        case "joint":
            return LayerPrefix(key, value)
        case "joint, before the text":
            return LayerPrefix(key, value, alibi_offset=length)
        case "mass":
            return LayerPrefix(key, value, gate=gate)
        case _:
            return LayerPrefix(key, value, gate=gate - 1, additive=True)


def call(
    prefix: LayerPrefix | None,
    *args: torch.Tensor | None,
    softcap: float | None = None,
    **more: Any,
) -> torch.Tensor:
    module = nn.Module()
    if prefix is not None:
        slot_of(module).prefixes[0] = lambda: prefix
    query, key, value, mask = args
    assert query is not None
    assert key is not None
    assert value is not None
    with calling(CallContext(adapter=0)):
        return prefix_attention(module, query, key, value, mask, softcap=softcap, **more)[0]


MODES = ["none", "joint", "mass", "additive"]
modes = pytest.mark.parametrize("mode", MODES)


@modes
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("masking", ["causal", "left padding", "one query"])
def test_attention_is_the_formula(
    mode: str, heads: int, softcap: float | None, masking: str
) -> None:
    """``None`` stands for causal attention, and for one query that sees all keys."""
    queries = 1 if masking == "one query" else T
    query, key, value = (
        draw(B, H, queries, D, seed=1),
        draw(B, heads, T, D, seed=2),
        draw(B, heads, T, D, seed=3),
    )
    visible = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)[:, -queries:]
    mask = None
    if masking == "left padding":
        visible = visible & (torch.arange(T) >= torch.tensor([0, 2, 4])[:, None])[:, None]
        mask = visible[:, None]
    prefix = prefix_of(mode, heads)
    got = call(prefix, query, key, value, mask, softcap=softcap)
    want = reference(query, key, value, visible, prefix, softcap)
    assert got.shape == (B, queries, H, D)
    real = visible.any(-1)  # a query that is padding sees no text; it only must not spread
    torch.testing.assert_close(got[real], want[real].float(), **TOLERANCE)
    assert got.isfinite().all()


@pytest.mark.parametrize("mode", [*MODES, "joint, before the text"])
@pytest.mark.parametrize("queries", [T, 1])
def test_attention_with_alibi(mode: str, queries: int) -> None:
    """The text's positions differ by row, as behind left padding."""
    query, key, value = (
        draw(B, H, queries, D, seed=1),
        draw(B, H, T, D, seed=2),
        draw(B, H, T, D, seed=3),
    )
    starts = torch.tensor([0, 2, 4])[:, None]
    positions = (torch.arange(T) - starts).clamp_min(0)
    visible = torch.ones(T, T, dtype=torch.bool).tril() & (torch.arange(T) >= starts)[:, None]
    visible = visible[:, -queries:]
    bias = SLOPES[None, :, None, None] * positions[:, None, None]
    bias = torch.where(visible[:, None], bias, torch.finfo(torch.float32).min)
    prefix = prefix_of(mode, H)
    got = call(prefix, query, key, value, bias, alibi_slopes=SLOPES)
    want = reference(query, key, value, visible, prefix, positions=positions)
    real = visible.any(-1)
    torch.testing.assert_close(got[real], want[real].float(), **TOLERANCE)


@modes
def test_scaling_is_the_callers(mode: str) -> None:
    """Gemma 2 scales by another number than the head's size."""
    query, key, value = (draw(B, H, T, D, seed=seed) for seed in (1, 2, 3))
    visible = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)
    prefix = prefix_of(mode, H)
    got = call(prefix, query, key, value, None, scaling=0.7)
    want = reference(query * 0.7 * D**0.5, key, value, visible, prefix)
    torch.testing.assert_close(got, want.float(), **TOLERANCE)


def test_rows_with_different_prefixes() -> None:
    """Lengths, with and without a factor on the mass, beside, and none, in one batch."""
    rows = [0, 1, -1, 2, 3, 0]
    query, key, value = (draw(len(rows), H, T, D, seed=seed) for seed in (1, 2, 3))
    prefixes = {
        0: prefix_of("joint", H, 2, seed=20),
        1: prefix_of("mass", H, 5, seed=30),
        2: prefix_of("additive", H, 4, seed=40),
        3: prefix_of("additive", H, 1, seed=50),
        9: prefix_of("joint", H, 1, seed=60),  # there, but no row's
    }
    module = nn.Module()
    for index, prefix in prefixes.items():
        slot_of(module).prefixes[index] = lambda prefix=prefix: prefix
    context = CallContext.of_rows(rows, torch.device("cpu"))
    with calling(context):
        got, _ = prefix_attention(module, query, key, value, None)
    visible = torch.ones(1, T, T, dtype=torch.bool).tril()
    for number, row in enumerate(rows):
        each = slice(number, number + 1)
        want = reference(query[each], key[each], value[each], visible, prefixes.get(row))
        torch.testing.assert_close(got[each], want.float(), **TOLERANCE)


# The factor on the prefix's mass ------------------------------------------------------------------


def with_mass(gate: torch.Tensor | None, softcap: float | None = None) -> torch.Tensor:
    query, key, value = (draw(B, H, T, D, seed=seed) for seed in (1, 2, 3))
    key_, value_ = draw(H, P, D, seed=4), draw(H, P, D, seed=5)
    return call(LayerPrefix(key_, value_, gate=gate), query, key, value, None, softcap=softcap)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_mass_of_one_and_of_zero(softcap: float | None) -> None:
    query, key, value = (draw(B, H, T, D, seed=seed) for seed in (1, 2, 3))
    joint = with_mass(None, softcap)
    without = call(None, query, key, value, None, softcap=softcap)
    torch.testing.assert_close(with_mass(torch.ones(H), softcap), joint, **TOLERANCE)
    torch.testing.assert_close(with_mass(torch.zeros(H), softcap), without, **TOLERANCE)
    assert not torch.allclose(joint, without, atol=1e-2)


def test_gradient_at_no_mass() -> None:
    """Finite, not zero, and that of the formula: training can leave the start."""
    gate = torch.zeros(H, requires_grad=True)
    weights = draw(B, T, H, D, seed=6)
    (got,) = torch.autograd.grad((with_mass(gate) * weights).sum(), gate)
    query, key, value = (draw(B, H, T, D, seed=seed) for seed in (1, 2, 3))
    prefix = LayerPrefix(draw(H, P, D, seed=4), draw(H, P, D, seed=5), gate=gate)
    visible = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)
    formula = reference(query, key, value, visible, prefix)
    (want,) = torch.autograd.grad((formula * weights).sum(), gate)
    assert (got.abs() > 0.1).all()
    torch.testing.assert_close(got, want.float(), atol=1e-4, rtol=1e-4)


@modes
def test_gradients_of_padded_rows_are_finite(mode: str) -> None:
    """Queries that are padding see no text at all, and no gradient comes from them."""
    query, key, value = (draw(B, H, T, D, seed=seed).requires_grad_() for seed in (1, 2, 3))
    visible = torch.ones(T, T, dtype=torch.bool).tril()
    visible = visible & (torch.arange(T) >= torch.tensor([0, 2, 4])[:, None])[:, None]
    prefix = prefix_of(mode, H)
    leaves = [query, key, value]
    if prefix is not None:
        tensors = [prefix.key, prefix.value, *([] if prefix.gate is None else [prefix.gate])]
        leaves += [tensor.requires_grad_() for tensor in tensors]
    output = call(prefix, query, key, value, visible[:, None])
    loss = output[visible.any(-1)].square().sum()
    for gradient in torch.autograd.grad(loss, leaves):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


# On whole models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_backbone_computes_what_transformers_computes(kind: str, side: str) -> None:
    """transformers' own eager attention, given the positions that padding calls for; its BLOOM
    finds them itself."""
    ids, mask = padded(texts(), side)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    own = tiny_model(kind)
    places = {} if get_family(own.config.model_type).alibi else {"position_ids": positions}
    with torch.no_grad():
        want = own(input_ids=ids, attention_mask=mask, **places).logits
        got = AdaptedModel(backbone(kind))(ids, mask).logits
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()], **TOLERANCE)


@pytest.mark.parametrize(
    "scaled", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}]
)
def test_gpt2_scales_as_its_configuration_says(scaled: dict[str, bool]) -> None:
    config = AutoConfig.for_model("gpt2", **get_family("gpt2").tiny | scaled)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.weight.mul_(20)  # scores far from uniform
        ids = torch.tensor([texts(1)[0]])
        want = model(input_ids=ids).logits
        got = AdaptedModel(Backbone(model))(ids).logits
    torch.testing.assert_close(got, want, **TOLERANCE)


STATIC = {
    "none": {"name": "none"},
    "joint": {"name": "prefix_tuning", "length": 3},
    "mass": {"name": "prefix_tuning", "length": 3, "initialization": "zero"},
    "additive": {"name": "llama_adapter", "length": 3},
}


def decoded(
    model: AdaptedModel, ids: torch.Tensor, mask: torch.Tensor, cache: Any, prompt: int
) -> torch.Tensor:
    """``[B, T, V]``: a prompt, then token after token."""
    with torch.no_grad():
        output = model(ids[:, :prompt], mask[:, :prompt], past_key_values=cache, use_cache=True)
        logits = [output.logits]
        for step in range(prompt, ids.shape[1]):
            output = model(
                ids[:, step : step + 1],
                mask[:, : step + 1],
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            logits.append(output.logits)
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", STATIC)
def test_a_static_cache_changes_nothing(kind: str, mode: str) -> None:
    """Its length is fixed: most of its keys are not there yet, and must not be attended to."""
    model = AdaptedModel(backbone(kind))
    scramble(model.attach(STATIC[mode], text=TEXT))
    for rows, prompt in ((texts(), 10), (texts(1), 6), (texts(1), 1)):
        ids, mask = padded(rows, "left")
        cache = StaticCache(config=model.backbone.config, max_cache_len=ids.shape[1] + 5)
        got = decoded(model, ids, mask, cache, prompt)
        want = decoded(model, ids, mask, None, prompt)
        torch.testing.assert_close(got[mask.bool()], want[mask.bool()], **TOLERANCE)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
def test_a_static_cache_without_a_mask(kind: str) -> None:
    model = AdaptedModel(backbone(kind))
    scramble(model.attach(STATIC["joint"], text=TEXT))
    ids = torch.tensor([texts(1)[0]])
    cache = StaticCache(config=model.backbone.config, max_cache_len=20)
    with torch.no_grad():
        want = model(ids).logits
        first = model(ids[:, :5], past_key_values=cache, use_cache=True)
        second = model(ids[:, 5:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), want, **TOLERANCE)


# Models that cannot work --------------------------------------------------------------------------

OBSTACLES: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("xglm", {"add_cross_attention": True}, "add_cross_attention"),
    ("xglm", {"layerdrop": 0.1}, "layerdrop"),
    ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact"),
]


@pytest.mark.parametrize(("family", "values", "says"), OBSTACLES, ids=str)
def test_a_configuration_that_cannot_work(
    family: str, values: dict[str, Any], says: str, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(family, **get_family(family).tiny | values)
    with pytest.raises(UnsupportedModel, match=f"{family}.*{says}"):
        Backbone(AutoModelForCausalLM.from_config(config))
    # and before any weight is read: the folder holds none
    config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=says):
        load_backbone(ModelConfig(name=str(tmp_path)))


@pytest.mark.parametrize("values", [{"slow_but_exact": True}, {"pretraining_tp": 2}], ids=str)
def test_half_of_blooms_obstacle_is_none(values: dict[str, Any]) -> None:
    """BLOOM's published configurations have one of the two."""
    config = AutoConfig.for_model("bloom", **get_family("bloom").tiny | values)
    Backbone(AutoModelForCausalLM.from_config(config))


def test_a_family_that_is_not_known(tmp_path: Path) -> None:
    values = {
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "attention_types": [[["global"], 1]],
    }
    config = AutoConfig.for_model("gpt_neo", vocab_size=32, **values)
    with pytest.raises(UnsupportedModel) as caught:
        Backbone(AutoModelForCausalLM.from_config(config))
    said = str(caught.value)
    assert "unknown model family 'gpt_neo'. Did you mean 'gpt_neox'?" in said
    assert all(family in said for family in families())
    config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="gpt_neo"):
        load_backbone(ModelConfig(name=str(tmp_path)))
