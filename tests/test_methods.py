"""The methods one by one: layers, configuration, sizes, initialisation, attaching and detaching."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from polyprefix.config import ConfigError
from polyprefix.methods import (
    AdaptedModel,
    Adapter,
    MethodConfig,
    get_method,
    method_config,
    method_of,
    methods,
    parse_layers,
    register_method,
)
from polyprefix.models import Backbone
from polyprefix.models.tiny import tiny_model
from tests.conformance.cases import (
    KINDS,
    METHODS,
    TEXT,
    MethodCase,
    StubTokenizer,
    alone,
    backbone,
    scramble,
    texts,
)

# Layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("upper", [2, 3, 4, 5]),
        ("first:1", [0]),
        ("first:6", [0, 1, 2, 3, 4, 5]),
        ("last:2", [4, 5]),
        ("every:2", [0, 2, 4]),
        ("every:4", [0, 4]),
        ("every:9", [0]),
        ("3", [3]),
        ("5, 0,-2", [0, 4, 5]),
        ((3, 1), [1, 3]),
        ((-1, 0), [0, 5]),
    ],
    ids=str,
)
def test_layers(layers: Any, expected: list[int]) -> None:
    assert parse_layers(layers, 6) == expected


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (4, [2, 3])])
def test_upper_layers_of_a_shallow_model(count: int, expected: list[int]) -> None:
    assert parse_layers("upper", count) == expected


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("", "expected all, upper, first:n"),
        ("top:3", "expected all, upper, first:n"),
        ("last", "expected all, upper, first:n"),
        ("last:", "expected all, upper, first:n"),
        ("last:0", "must be positive"),
        ("last:-1", "expected all, upper, first:n"),
        ("last:two", "expected all, upper, first:n"),
        ("1,,2", "expected all, upper, first:n"),
        ("--1", "expected all, upper, first:n"),
        ("²", "expected all, upper, first:n"),
        ("last:²", "expected all, upper, first:n"),
        ("last:7", "the model has 6 layers"),
        ("first:7", "the model has 6 layers"),
        ("0,6", "no layer 6; the model has 6"),
        ((0, -7), "no layer -7"),
        ((), "the list is empty"),
        ((5, -1), "named twice"),
        ("2,2", "named twice"),
    ],
    ids=str,
)
def test_layers_that_are_not_there(layers: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_layers(layers, 6)


@pytest.mark.parametrize("method", ["prefix_tuning", "llama_adapter", "lora", "bottleneck"])
def test_layers_are_taken_as_text_or_list(method: str) -> None:
    for layers in ("last:1", [1], (1,), "1"):
        adapter: Any = AdaptedModel(backbone("llama")).attach(
            {"name": method, "layers": layers}, text=TEXT
        )
        chosen = (
            {place[0] for place in adapter.places} if method == "bottleneck" else adapter.layers
        )
        assert list(chosen) == [1]


# Configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"name": "prefix_tunning"},
            "unknown method 'prefix_tunning'. Did you mean 'prefix_tuning'",
        ),
        ({"name": "LoRA"}, "unknown method 'LoRA'"),
        ({}, "method.name"),
        ({"name": "prefix_tuning", "lenght": 3}, "unknown key 'lenght'. Did you mean 'length'"),
        ({"name": "lora", "length": 3}, "unknown key 'length'"),
        ({"name": "prefix_tuning", "length": 0}, "'length': Input should be greater than 0"),
        ({"name": "prefix_tuning", "length": 2.5}, "'length'"),
        ({"name": "prefix_tuning", "length": "many"}, "'length'"),
        ({"name": "prefix_tuning", "init_std": 0, "initialization": "random"}, "'init_std'"),
        ({"name": "prefix_tuning", "parameterization": "vk"}, "'kv', 'projected' or 'mlp'"),
        ({"name": "soft_prompt", "position": "middle"}, "'start' or 'end'"),
        ({"name": "llama_adapter", "gate": "token"}, "'head' or 'layer'"),
        ({"name": "lora", "rank": 0}, "'rank'"),
        ({"name": "lora", "dropout": 1}, "'dropout': Input should be less than 1"),
        ({"name": "bottleneck", "size": -1}, "'size'"),
        ({"name": "bottleneck", "placement": "pfeifer"}, "'houlsby' or 'pfeiffer'"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_used(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        method_config(options)
    assert says in str(caught.value)


def test_every_problem_of_a_configuration_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        method_config({"name": "prefix_tuning", "length": 0, "gate": "head"})
    assert "'length'" in str(caught.value)
    assert "'gate'" in str(caught.value)
    assert "method prefix_tuning" in str(caught.value)


def test_targets_of_lora_must_all_be_there() -> None:
    """PEFT is content with one of them; the other would silently have no effect."""
    model = AdaptedModel(backbone("llama"))
    for targets in (["q_porj"], ["q_proj", "v_porj"]):
        with pytest.raises(ConfigError, match="_porj"):
            model.attach({"name": "lora", "targets": targets})
    assert not model.adapters
    plain = AdaptedModel(backbone("llama"))
    assert torch.equal(alone(model, texts(1)[0]), alone(plain, texts(1)[0]))


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_what_every_method_says_of_itself(case: MethodCase) -> None:
    method, config = case.type, case.config()
    assert method_of(config) is method
    assert get_method(case.method) is method
    assert method.title
    assert method.paper
    assert method.reference_learning_rate(config) > 0 or case.method == "none"
    narrow, wide = (method.default_learning_rate(config, width) for width in (256, 4096))
    assert narrow == method.reference_learning_rate(config) == 16 * wide


def test_the_documented_methods_are_there() -> None:
    ours = {
        name for name, method in methods().items() if method.__module__.startswith("polyprefix")
    }
    assert ours == {
        *("soft_prompt", "prefix_tuning", "llama_adapter"),
        *("lora", "bottleneck", "full", "none"),
    }


def test_a_method_has_one_name() -> None:
    class Impostor(Adapter):
        method = "lora"
        title = "another"
        Config = MethodConfig

    with pytest.raises(ValueError, match="'lora' is registered already"):
        register_method(Impostor)


# Sizes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_8b() -> Any:
    """Llama 3.1 8B without its weights."""
    config = LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        intermediate_size=14336,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def size(model: Any, **options: Any) -> int:
    adapted = AdaptedModel(Backbone(model))
    try:
        adapter = adapted.attach(options)
        assert all(value.is_meta for value in adapter.trainable().values())
        return adapter.num_trainable()
    finally:
        adapted.detach()


D, KV, L = 4096, 8 * 128, 32


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # the figures of arXiv 2510.24619
        ({"name": "prefix_tuning", "parameterization": "kv", "length": 20}, 1_228_800),
        ({"name": "prefix_tuning", "parameterization": "projected", "length": 10}, 1_228_800),
        ({"name": "llama_adapter", "length": 10}, 1_228_800 + 30 * 32),
        ({"name": "llama_adapter", "length": 10, "gate": "layer"}, 1_228_800 + 30),
    ],
    ids=str,
)
def test_trainable_parameters_of_prefixes(
    options: dict[str, Any], expected: int, llama_8b: Any
) -> None:
    assert size(llama_8b, layers="last:30", initialization="random", **options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "lora", "rank": 4, "layers": "all"}, L * (4 * (D + D) + 4 * (D + KV))),
        ({"name": "lora", "rank": 8, "layers": "last:2", "targets": ["k_proj"]}, 2 * 8 * (D + KV)),
        ({"name": "soft_prompt", "length": 7, "initialization": "uniform"}, 7 * D),
        ({"name": "bottleneck", "size": 16, "layers": "all"}, L * 2 * (2 * 16 * D + 16 + D)),
        (
            {"name": "bottleneck", "size": 16, "placement": "pfeiffer", "layers": "all"},
            L * (2 * 16 * D + 16 + D),
        ),
        ({"name": "full"}, 8_030_261_248),
    ],
    ids=str,
)
def test_trainable_parameters(options: dict[str, Any], expected: int, llama_8b: Any) -> None:
    assert size(llama_8b, **options) == expected


def test_trainable_parameters_of_a_network(llama_8b: Any) -> None:
    """An embedding a token, a map that the layers share, and one for each layer."""
    options = {"length": 10, "network_size": 8, "layers": "last:3"}
    expected = 10 * D + (D * 8 + 8) + 3 * (8 * 2 * KV + 2 * KV)
    assert size(llama_8b, name="prefix_tuning", parameterization="mlp", **options) == expected


# Initialisation -----------------------------------------------------------------------------------


def start(kind: str, config: Any, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed + 50)  # the global generator has no say
    return AdaptedModel(backbone(kind)).attach(config, seed=seed, text=TEXT).state()


RANDOM = [
    {"name": "soft_prompt"},
    {"name": "soft_prompt", "initialization": "uniform"},
    {"name": "soft_prompt", "initialization": "uniform", "reparameterization": "mlp"},
    {"name": "prefix_tuning", "initialization": "random"},
    {"name": "prefix_tuning", "initialization": "zero"},
    {"name": "prefix_tuning", "initialization": "random", "parameterization": "projected"},
    {"name": "prefix_tuning", "parameterization": "mlp"},
    {"name": "llama_adapter", "initialization": "random"},
    {"name": "lora"},
    {"name": "bottleneck"},
]


@pytest.mark.parametrize("options", RANDOM, ids=str)
def test_initialisation_follows_from_the_seed(options: dict[str, Any]) -> None:
    first, again, other = (start("llama", options, seed) for seed in (3, 3, 4))
    assert first.keys() == again.keys() == other.keys()
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize("options", RANDOM, ids=str)
def test_initialisation_leaves_the_global_generator_alone(options: dict[str, Any]) -> None:
    """Else the order of the training data would depend on the method."""
    model = AdaptedModel(backbone("llama"))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model.attach(options)
    assert torch.equal(torch.rand(3), expected)


def inputs_of_attention(kind: str, ids: list[int]) -> list[torch.Tensor]:
    """``L x [T, d]``: what transformers' own model, untouched, hands to each attention."""
    model = tiny_model(kind)
    seen: list[torch.Tensor] = []
    family = backbone(kind).family
    for layer in model.get_submodule(family.layers).children():
        layer.get_submodule(family.attention).register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(
                (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])[0]
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    return seen


def test_activations_of_llama_by_hand() -> None:
    """One token after the first: its key is W_k of the normalised hidden state, not rotated."""
    adapter: Any = AdaptedModel(backbone("llama")).attach(
        {"name": "prefix_tuning", "length": 1, "initialization": "activations"}, text=TEXT
    )
    ids = StubTokenizer()(TEXT)["input_ids"][:2]
    model = tiny_model("llama")
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for number, layer in enumerate(model.model.layers):
            normal = layer.input_layernorm(states[number][0, 1])
            key = layer.self_attn.k_proj(normal).view(2, 1, 8)
            value = layer.self_attn.v_proj(normal).view(2, 1, 8)
            torch.testing.assert_close(adapter.parameters_.key[number], key, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                adapter.parameters_.value[number], value, atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_what_the_backbone_computes(kind: str) -> None:
    """Five tokens after the first; the prompts of LLaMA-Adapter are the inputs themselves."""
    options = {"length": 5, "initialization": "activations"}
    model = AdaptedModel(backbone(kind))
    prompts: Any = model.attach({"name": "llama_adapter", **options}, text=TEXT)
    prefix: Any = model.attach({"name": "prefix_tuning", **options}, "second", text=TEXT)
    expected = inputs_of_attention(kind, StubTokenizer()(TEXT)["input_ids"][:6])
    for number, hidden in enumerate(expected):
        torch.testing.assert_close(prompts.prompt.hidden[number], hidden[1:], atol=1e-5, rtol=1e-5)
        key, value = model.backbone.project(number, hidden[1:])
        torch.testing.assert_close(prefix.parameters_.key[number], key, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(prefix.parameters_.value[number], value, atol=1e-5, rtol=1e-5)


def test_activations_of_the_given_text() -> None:
    """``init_text`` comes before the run's text; both are repeated up to the length."""
    base: dict[str, Any] = {"name": "prefix_tuning", "length": 12}
    by_config = start("llama", base | {"init_text": "abc"}, 0)
    by_run = AdaptedModel(backbone("llama")).attach(base, text="abc").state()
    other = start("llama", base, 0)
    for name, value in by_config.items():
        assert torch.equal(value, by_run[name])
        assert not torch.equal(value, other[name])


def test_activations_do_not_see_the_adapter_in_use() -> None:
    """A second adapter starts from the backbone, not from what the first made of it."""
    options = {"name": "prefix_tuning", "length": 3}
    alone_ = AdaptedModel(backbone("llama")).attach(options, text=TEXT).state()
    model = AdaptedModel(backbone("llama"))
    for name in ("prefix_tuning", "lora", "bottleneck"):
        scramble(model.attach({"name": name}, name, text=TEXT))
    beside = model.attach(options, "last", text=TEXT).state()
    for name, value in beside.items():
        torch.testing.assert_close(value, alone_[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["prefix_tuning", "llama_adapter"])
def test_activations_need_a_text(method: str) -> None:
    with pytest.raises(ConfigError, match="needs a text"):
        AdaptedModel(backbone("llama")).attach({"name": method, "initialization": "activations"})


@pytest.mark.parametrize("method", ["prefix_tuning", "soft_prompt"])
def test_an_empty_text(method: str) -> None:
    options = {"name": method, "init_text": ""}
    if method == "soft_prompt":
        options["initialization"] = "text"
    with pytest.raises(ConfigError, match="init_text"):
        AdaptedModel(backbone("llama")).attach(options)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "xglm"])
def test_a_soft_prompt_starts_from_rows_of_the_embedding(kind: str) -> None:
    """As the embedding module returns them: Gemma and XGLM scale them. A prompt as long as the
    vocabulary without its special tokens has each of the others once."""
    base = backbone(kind)
    special = set(StubTokenizer.all_special_ids)
    ordinary = set(range(base.vocab_size)) - special
    options = {"name": "soft_prompt", "length": len(ordinary)}
    prompt = AdaptedModel(base).attach(options).state()["embedding"]
    rows = base.embedding(torch.arange(base.vocab_size)).detach()
    chosen = [int((rows - vector).abs().sum(-1).argmin()) for vector in prompt]
    assert torch.equal(rows[chosen], prompt)
    assert set(chosen) == ordinary
    assert chosen != sorted(chosen)


@pytest.mark.parametrize("given", ["config", "run"])
def test_a_soft_prompt_starts_from_a_text(given: str) -> None:
    base = backbone("llama")
    options: dict[str, Any] = {"name": "soft_prompt", "length": 5, "initialization": "text"}
    model = AdaptedModel(base)
    if given == "config":
        adapter = model.attach(options | {"init_text": "abc"}, text="not this one")
    else:
        adapter = model.attach(options, text="abc")
    first, second, third = StubTokenizer()("abc")["input_ids"]
    expected = base.embedding(torch.tensor([first, second, third, first, second]))
    assert torch.equal(adapter.state()["embedding"], expected)


def test_a_uniform_soft_prompt_is_as_large_as_tokens() -> None:
    base = backbone("llama")
    options = {"name": "soft_prompt", "length": 100, "initialization": "uniform"}
    made = AdaptedModel(base).attach(options).state()["embedding"]
    assert float(made.std() / base.embedding.weight.std()) == pytest.approx(1, rel=0.05)


# Attaching and detaching --------------------------------------------------------------------------


def test_soft_prompts_have_ids_of_their_own() -> None:
    model = AdaptedModel(backbone("llama"))
    vocabulary = model.backbone.vocab_size
    for name, length in (("first", 3), ("second", 4)):
        options = {"name": "soft_prompt", "length": length, "position": "end"}
        scramble(model.attach(options, name), length)
    assert model.wrap([9], "first") == [9, vocabulary, vocabulary + 1, vocabulary + 2]
    assert model.wrap([9], "second") == [9, *range(vocabulary + 3, vocabulary + 7)]
    # a detached one's ids are not given to the next: texts may hold them still
    model.detach("second")
    model.attach({"name": "soft_prompt", "length": 2, "position": "start"}, "third")
    assert model.wrap([9], "third") == [vocabulary + 7, vocabulary + 8, 9]


def test_soft_prompts_do_not_meet() -> None:
    """The first prompt's logits are the same with a second one on the model."""
    model = AdaptedModel(backbone("llama"))
    scramble(model.attach({"name": "soft_prompt", "length": 3}, "first"), 1)
    row = model.wrap(texts(1)[0])
    before = alone(model, row)
    scramble(model.attach({"name": "soft_prompt", "length": 3}, "second"), 2)
    assert torch.equal(alone(model, row), before)
    assert not torch.equal(alone(model, model.wrap(texts(1)[0])), before)


def test_a_name_that_is_taken() -> None:
    model = AdaptedModel(backbone("llama"))
    model.attach({"name": "lora"}, "a")
    with pytest.raises(ConfigError, match="'a' already"):
        model.attach({"name": "bottleneck"}, "a")
    assert model.adapter("a").method == "lora"


MIXING = [case for case in METHODS if case.type.mixes(case.config())]
TUNES = [{"name": "full"}, {"name": "soft_prompt", "tune_backbone": True}]


@pytest.mark.parametrize("tunes", TUNES, ids=str)
@pytest.mark.parametrize("tunes_first", [True, False])
def test_what_tunes_the_backbone_stands_alone(tunes: dict[str, Any], tunes_first: bool) -> None:
    model = AdaptedModel(backbone("llama"))
    first, second = (tunes, {"name": "lora"}) if tunes_first else ({"name": "lora"}, tunes)
    kept = model.attach(first, "first")
    before = {name for name, value in model.named_parameters() if value.requires_grad}
    with pytest.raises(ConfigError, match="must be the only one"):
        model.attach(second, "second")
    assert list(model.adapters) == ["first"]
    assert model.adapter() is kept
    assert {name for name, value in model.named_parameters() if value.requires_grad} == before


def test_an_adapter_that_is_not_there() -> None:
    model = AdaptedModel(backbone("llama"))
    model.attach({"name": "lora"}, "english")
    calls: list[Callable[[], Any]] = [
        lambda: model.use("englisch"),
        lambda: model.detach("englisch"),
        lambda: model.wrap([1], "englisch"),
        lambda: model(torch.tensor([[5]]), adapters=["englisch"]),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="Did you mean 'english'"):
            call()
    assert model.active == "english"


@pytest.mark.parametrize("case", MIXING, ids=str)
def test_only_the_adapter_in_use_is_trained(case: MethodCase) -> None:
    model = AdaptedModel(backbone("llama"))
    first = model.attach(case.config(), "first", text=TEXT)
    second = model.attach(case.config(), "second", seed=1, text=TEXT)
    for used, other in ((second, first), (first, second)):
        model.use("first" if used is first else "second")
        assert all(value.requires_grad for value in used.trainable().values())
        assert not any(value.requires_grad for value in other.trainable().values())
    model.use(None)
    assert not any(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("case", MIXING, ids=str)
def test_detaching_one_leaves_the_other(case: MethodCase) -> None:
    model = AdaptedModel(backbone("llama"))
    for seed, name in enumerate(("first", "second")):
        scramble(model.attach(case.config(), name, seed=seed, text=TEXT), seed)
    row = model.wrap(texts(1)[0], "first")
    model.use("first")
    want = alone(model, row)
    model.detach("second")
    assert model.active == "first"
    assert torch.equal(alone(model, row), want)
    model.detach("first")
    assert model.active is None
    plain = AdaptedModel(backbone("llama"))
    assert torch.equal(alone(model, texts(1)[0]), alone(plain, texts(1)[0]))
    # and the name is free again
    model.attach(case.config(), "first", text=TEXT)


def test_methods_of_other_packages_come_by_entry_point() -> None:
    """The toy plugin of the tests is imported by nobody here."""
    assert "value_shift" in methods()
    assert sys.modules[methods()["value_shift"].__module__].__name__ == "toy_plugin.methods"
