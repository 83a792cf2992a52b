"""PEFT loads what Polyprefix writes for it, Polyprefix loads what PEFT writes, and both compute the
same; what PEFT cannot express is not written for it.

PEFT is the installed one and runs beside: nothing here is a recorded number. Its known faults are
kept out of the way: no padding, no sliding window under a prefix, eager attention.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaptionPromptConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file

from polyprefix.config import UnsupportedModel
from polyprefix.methods import AdaptedModel, NotInPeft, load_adapter, save_adapter
from polyprefix.models.tiny import VARIANTS, tiny_model
from tests.conformance.cases import KINDS, SLIDING, TEXT, backbone, scramble, texts

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out:UserWarning"),
]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
UNDER_PREFIX = [kind for kind in KINDS if kind not in SLIDING]
ROTARY = [kind for kind in UNDER_PREFIX if backbone(kind).rotary is not None]
LLAMAS = [kind for kind in KINDS if backbone(kind).family.model_type in {"llama", "mistral"}]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
ROWS = torch.tensor([texts(1, seed)[0] for seed in (0, 1)])


def roped(monkeypatch: pytest.MonkeyPatch, **rope: Any) -> str:
    """A tiny Llama with another kind of rotary embedding."""
    rope |= {"rope_theta": 10000.0}
    monkeypatch.setitem(VARIANTS, "roped", {"model_type": "llama", "rope_parameters": rope})
    return "roped"


def ours(model: AdaptedModel) -> torch.Tensor:
    """``[B, T, V]``: logits at the text's positions, soft tokens left out."""
    rows = torch.tensor([model.wrap(row) for row in ROWS.tolist()])
    with torch.no_grad():
        return model(rows).logits[:, -ROWS.shape[1] :]


def theirs(model: Any) -> torch.Tensor:
    """The same from PEFT, or from a model without adapter."""
    with torch.no_grad():
        output = model.eval()(input_ids=ROWS, attention_mask=torch.ones_like(ROWS))
    return output.logits[:, -ROWS.shape[1] :]


# Ours -> PEFT (and back from PEFT's files alone) --------------------------------------------------


def check_written(kind: str, options: dict[str, Any], folder: Path) -> None:
    model = AdaptedModel(backbone(kind))
    adapter = model.attach(options, text=TEXT)
    scramble(adapter)
    want = ours(model)
    assert save_adapter(adapter, folder) is None
    plain = tiny_model(kind)
    # an adapter that neither side applied would pass for one that both did
    assert not torch.allclose(theirs(plain), want, atol=1e-2)
    torch.testing.assert_close(theirs(PeftModel.from_pretrained(plain, folder)), want, **TOLERANCE)

    for own in ("polyprefix.json", "polyprefix.safetensors"):
        (folder / own).unlink()
    back = AdaptedModel(backbone(kind))
    load_adapter(back, folder)
    torch.testing.assert_close(ours(back), want, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more",
    [{"initialization": "uniform"}, {"reparameterization": "mlp", "network_size": 8}],
    ids=["plain", "mlp"],
)
def test_peft_loads_our_soft_prompt(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    options = {"name": "soft_prompt", "length": 3, "position": "start", **more}
    check_written(kind, options, tmp_path)


@pytest.mark.parametrize("kind", UNDER_PREFIX)
@pytest.mark.parametrize("parameterization", ["kv", "projected", "mlp"])
def test_peft_loads_our_prefix(kind: str, parameterization: str, tmp_path: Path) -> None:
    options = {"name": "prefix_tuning", "length": 3, "positions": "peft"}
    check_written(kind, options | {"parameterization": parameterization}, tmp_path)


@pytest.mark.parametrize("kind", ROTARY)
@pytest.mark.parametrize("parameterization", ["kv", "projected", "mlp"])
def test_peft_loads_our_prefix_that_left_positions_alone(
    kind: str, parameterization: str, tmp_path: Path
) -> None:
    """Its keys are turned by P positions, as the text is in PEFT."""
    options = {"name": "prefix_tuning", "length": 3, "positions": "text"}
    check_written(kind, options | {"parameterization": parameterization}, tmp_path)


@pytest.mark.parametrize("rope", [YARN, LLAMA3], ids=["yarn", "llama3"])
def test_keys_turn_by_the_models_own_frequencies(
    rope: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_written(roped(monkeypatch, **rope), {"name": "prefix_tuning", "length": 5}, tmp_path)


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize("layers", ["all", "last:1"])
def test_peft_loads_our_llama_adapter(kind: str, layers: str, tmp_path: Path) -> None:
    options = {"name": "llama_adapter", "length": 3, "gate": "layer", "layers": layers}
    check_written(kind, options, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_our_lora(kind: str, tmp_path: Path) -> None:
    check_written(kind, {"name": "lora"}, tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"layers": "last:1", "rank": 3, "alpha": 5.0}),
        ("llama", {"targets": ["k_proj", "o_proj", "down_proj"]}),
        ("gpt2", {"layers": "first:1", "targets": ["c_attn", "c_fc"]}),
        ("gpt2", {"targets": ["attn.c_proj"]}),
    ],
    ids=str,
)
def test_peft_loads_our_lora_elsewhere(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    check_written(kind, {"name": "lora", **options}, tmp_path)


# PEFT -> ours -------------------------------------------------------------------------------------


def written_by_peft(kind: str, config: Any, folder: Path) -> torch.Tensor:
    """Let PEFT write an adapter that looks trained; PEFT's logits."""
    model = get_peft_model(tiny_model(kind), config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.3 * torch.randn(value.shape, generator=generator))
    logits = theirs(model)
    assert not torch.allclose(theirs(tiny_model(kind)), logits, atol=1e-2)
    model.save_pretrained(folder, save_embedding_layers=False)
    return logits


def check_read(kind: str, config: Any, folder: Path) -> None:
    want = written_by_peft(kind, config, folder)
    model = AdaptedModel(backbone(kind))
    load_adapter(model, folder)
    torch.testing.assert_close(ours(model), want, **TOLERANCE)


def virtual_tokens(kind: str) -> dict[str, Any]:
    """Three. PEFT does not find XGLM's number of heads by itself."""
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    return common | ({"num_attention_heads": 4} if kind == "xglm" else {})


@pytest.mark.parametrize("kind", KINDS)
def test_we_load_a_soft_prompt_of_peft(kind: str, tmp_path: Path) -> None:
    check_read(kind, PromptTuningConfig(**virtual_tokens(kind)), tmp_path)


@pytest.mark.parametrize("kind", UNDER_PREFIX)
@pytest.mark.parametrize("projection", [False, True])
def test_we_load_a_prefix_of_peft(kind: str, projection: bool, tmp_path: Path) -> None:
    """With a projection PEFT saves the keys and values that it makes, not the network."""
    config = PrefixTuningConfig(
        prefix_projection=projection, encoder_hidden_size=8, **virtual_tokens(kind)
    )
    check_read(kind, config, tmp_path)


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize("layers", [1, 2])
def test_we_load_an_adaption_prompt_of_peft(kind: str, layers: int, tmp_path: Path) -> None:
    config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=layers)
    check_read(kind, config, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_we_load_a_lora_of_peft(kind: str, tmp_path: Path) -> None:
    targets = list(backbone(kind).family.lora_targets)
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=targets)
    check_read(kind, config, tmp_path)


def test_we_load_a_lora_of_peft_in_one_layer(tmp_path: Path) -> None:
    config = LoraConfig(
        target_modules=["q_proj", "up_proj"], layers_to_transform=1, init_lora_weights="gaussian"
    )
    check_read("llama", config, tmp_path)


# What one of them cannot express ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("llama", {"name": "soft_prompt", "position": "end"}, "position 'start'"),
        (
            "llama",
            {"name": "soft_prompt", "position": "start", "tune_backbone": True},
            "does not tune the backbone",
        ),
        ("llama", {"name": "prefix_tuning", "layers": "last:1"}, "all 2 layers, this one in 1"),
        ("llama", {"name": "prefix_tuning", "initialization": "zero"}, "factor on its mass"),
        ("gpt2", {"name": "prefix_tuning"}, "positions 'peft'"),
        ("xglm", {"name": "prefix_tuning"}, "positions 'peft'"),
        ("bloom", {"name": "prefix_tuning"}, "positions 'peft'"),
        ("mistral-sliding", {"name": "prefix_tuning"}, "slides out of sight"),
        ("gemma3_text", {"name": "prefix_tuning"}, "slides out of sight"),
        ("llama", {"name": "llama_adapter"}, "gate 'layer'"),
        ("llama", {"name": "llama_adapter", "gate": "layer", "layers": "first:1"}, "last layers"),
        ("qwen2", {"name": "llama_adapter", "gate": "layer"}, "no adaption prompt for qwen2"),
        ("gpt2", {"name": "llama_adapter", "gate": "layer"}, "no adaption prompt for gpt2"),
        ("llama", {"name": "bottleneck"}, "no method like .*'bottleneck'"),
        ("llama", {"name": "full"}, "no method like .*'full'"),
        ("llama", {"name": "none"}, "no method like .*'none'"),
    ],
    ids=str,
)
def test_what_peft_cannot_express(
    kind: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    adapter = AdaptedModel(backbone(kind)).attach(options, text=TEXT)
    with pytest.raises(NotInPeft, match=reason):
        adapter.to_peft()
    said = save_adapter(adapter, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "polyprefix.json",
        "polyprefix.safetensors",
    }
    record = json.loads((tmp_path / "polyprefix.json").read_text())
    assert record["readable_by_peft"] is False
    assert record["not_in_peft_because"] == said
    assert re.search(reason, str(said))


def test_angles_that_depend_on_the_length_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = roped(monkeypatch, rope_type="dynamic", factor=2.0)
    adapter = AdaptedModel(backbone(kind)).attach({"name": "prefix_tuning"}, text=TEXT)
    with pytest.raises(NotInPeft, match="positions 'peft'"):
        adapter.to_peft()


def test_a_biased_output_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT sends the prompt's part through it by itself, and so adds its bias a second time."""
    monkeypatch.setitem(VARIANTS, "biased", {"model_type": "llama", "attention_bias": True})
    options = {"name": "llama_adapter", "gate": "layer"}
    adapter = AdaptedModel(backbone("biased")).attach(options, text=TEXT)
    with pytest.raises(NotInPeft, match="bias"):
        adapter.to_peft()


def test_positions_of_peft_under_a_sliding_window(tmp_path: Path) -> None:
    config = PrefixTuningConfig(**virtual_tokens("llama"))
    written_by_peft("mistral", config, tmp_path)
    with pytest.raises(UnsupportedModel, match=r"adapter_config\.json.*slides out of sight"):
        load_adapter(AdaptedModel(backbone("mistral-sliding")), tmp_path)


def open_gates(folder: Path) -> None:
    """A gate that tanh cannot reach."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        if name.endswith("gate"):
            tensors[name] = torch.tensor([1.5])
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("kind", "config", "reason", "change"),
    [
        ("llama", LoraConfig(use_dora=True), "use_dora", None),
        ("llama", LoraConfig(use_rslora=True), "use_rslora", None),
        ("llama", LoraConfig(bias="all"), "bias='all'", None),
        ("llama", LoraConfig(rank_pattern={"q_proj": 2}), "rank_pattern", None),
        ("gpt2", AdaptionPromptConfig(adapter_len=3, adapter_layers=2), "gpt2", None),
        ("llama", AdaptionPromptConfig(adapter_len=3, adapter_layers=2), "outside", open_gates),
        ("llama", PromptEncoderConfig(num_virtual_tokens=3), "P_TUNING", None),
    ],
    ids=["dora", "rslora", "bias", "rank", "gpt2", "gate", "p-tuning"],
)
def test_what_we_do_not_read(
    kind: str,
    config: Any,
    reason: str,
    change: Callable[[Path], None] | None,
    tmp_path: Path,
) -> None:
    """Each would load into something that computes other logits; an error says so instead."""
    config.task_type = "CAUSAL_LM"
    written_by_peft(kind, config, tmp_path)
    if change is not None:
        change(tmp_path)
    model = AdaptedModel(backbone(kind))
    with pytest.raises(NotInPeft, match=reason) as caught:
        load_adapter(model, tmp_path)
    assert "adapter_config.json" in str(caught.value)
    assert not model.adapters


def test_a_prefix_for_another_shape_of_model(tmp_path: Path) -> None:
    config = PrefixTuningConfig(**virtual_tokens("llama"))
    written_by_peft("llama-multihead", config, tmp_path)
    with pytest.raises(NotInPeft, match="do not fit this backbone"):
        load_adapter(AdaptedModel(backbone("llama")), tmp_path)
