"""Frozen weights in 8 or 4 bits: what else holds, and to what tolerance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from polyprefix.config import ConfigError, ModelConfig, RunConfig, UnsupportedModel
from polyprefix.methods import AdaptedModel, load_adapter, method_config, save_adapter
from polyprefix.models import Backbone, load_backbone
from polyprefix.models.batching import lay_out
from polyprefix.models.families import get_family
from polyprefix.results import RunFolder, Silent
from polyprefix.study import load_run, plan_run, run
from polyprefix.study.prepare import prepare
from tests.conformance.cases import METHODS, StubTokenizer, padded, scramble, texts
from tests.conformance.test_invariants import branching, loss_of, packed_logits, wrapped

KINDS = ["llama", "gpt2", "bloom"]
FROZEN = [case for case in METHODS if case.type.mixes(case.config())]
TOLERANCE = {"nf4": {"atol": 1e-4, "rtol": 1e-4}, "int8": {"atol": 0.5, "rtol": 0.1}}
"""Rows of ``nf4`` do not depend on each other; those of ``int8`` do, see the module."""

bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra 'quantization'")

every = pytest.mark.parametrize("quantization", ["nf4", "int8"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models, wide enough for blocks of 64 weights."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp(kind)
        wide = {"hidden_size": 128, "intermediate_size": 256, "n_embd": 128, "vocab_size": 130}
        values = get_family(kind).tiny | {
            key: value for key, value in wide.items() if key in get_family(kind).tiny
        }
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **values, initializer_range=0.1)
        AutoModelForCausalLM.from_config(config).save_pretrained(made[kind])
    return made


def quantised(folder: Path, quantization: str | None) -> Backbone:
    from polyprefix.models.quantization import quantization_config

    more: dict[str, Any] = {}
    if quantization is not None:
        more = {
            "quantization_config": quantization_config(quantization, torch.float32),
            "device_map": {"": "cpu"},
        }
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)
    backbone = Backbone(model, StubTokenizer())
    backbone.quantization = quantization
    return backbone


def linear_maps(backbone: Backbone) -> list[nn.Module]:
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    return [module for module in backbone.model.modules() if isinstance(module, kinds)]


@every
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_quantised(folders: dict[str, Path], kind: str, quantization: str) -> None:
    wide, narrow = quantised(folders[kind], None), quantised(folders[kind], quantization)
    assert len(linear_maps(narrow)) >= 4 * narrow.num_layers
    assert narrow.num_parameters == wide.num_parameters
    assert narrow.dtype == torch.float32
    assert narrow.model.get_output_embeddings().weight.dtype == torch.float32
    ids = torch.tensor([texts(1)[0]])
    with torch.no_grad():
        logits, want = (AdaptedModel(model)(ids).logits for model in (narrow, wide))
    assert not torch.allclose(logits, want, atol=1e-4)  # it does something
    near = torch.nn.functional.cosine_similarity(logits.flatten(), want.flatten(), dim=0)
    assert near > 0.8


@every
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_invariants(folders: dict[str, Path], kind: str, case: Any, quantization: str) -> None:
    backbone = quantised(folders[kind], quantization)
    if case.options and ("positions", "peft") in case.options and backbone.sliding_window:
        pytest.skip("not defined")
    model = AdaptedModel(backbone)
    ids = torch.tensor([texts(1)[0]])
    with torch.no_grad():
        before = model(ids).logits
        adapter = model.attach(case.config(), text="a text to start from")
        after = model(ids).logits
    if case.type.claims_no_op(case.config()):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    scramble(adapter)
    rows = wrapped(model, texts())
    tolerance = TOLERANCE[quantization]
    with torch.no_grad():
        alone = [model(torch.tensor([row])).logits[0] for row in rows]
        for side in ("left", "right"):
            tokens, mask = padded(rows, side)
            for want, got, visible in zip(
                alone, model(tokens, mask).logits, mask.bool(), strict=True
            ):
                torch.testing.assert_close(got[visible], want, **tolerance)
        packed = branching(model)
        for batch in lay_out(packed, 10_000, 0, torch.device("cpu")):
            want = [
                model(torch.tensor([packed[i].ids])).logits[0][list(packed[i].reads)]
                for i in batch.texts
            ]
            torch.testing.assert_close(packed_logits(model, batch), torch.cat(want), **tolerance)
    if not adapter.trainable():
        return
    trained = adapter.trainable()
    assert {value.dtype for value in trained.values()} == {torch.float32}
    start = {name: value.detach().clone() for name, value in trained.items()}
    ours = {id(value) for value in trained.values()}
    others = {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if id(value) not in ours
    }
    for checkpointing in (False, True):
        model.backbone.gradient_checkpointing(checkpointing)
        model.train()
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(model, texts()).backward()
            optimizer.step()
    for name, value in trained.items():
        assert not torch.equal(value, start[name]), f"{name} did not move"
    for name, value in model.named_parameters():
        if name in others:
            assert torch.equal(value, others[name]), f"{name} moved"
            assert value.grad is None


@every
def test_an_adapter_is_saved_and_loaded(
    folders: dict[str, Path], tmp_path: Path, quantization: str
) -> None:
    ids = torch.tensor([texts(1)[0]])
    for name in ("prefix_tuning", "lora", "llama_adapter"):
        model = AdaptedModel(quantised(folders["llama"], quantization))
        scramble(model.attach({"name": name}, text="a text to start from"))
        with torch.no_grad():
            want = model(ids).logits
        save_adapter(model.adapter(), tmp_path / name)
        again = AdaptedModel(quantised(folders["llama"], quantization))
        load_adapter(again, tmp_path / name)
        with torch.no_grad():
            assert torch.equal(again(ids).logits, want)


def test_gradients_of_nf4_are_those_of_its_weights_made_wide(folders: dict[str, Path]) -> None:
    """An oracle without bitsandbytes' products: the same numbers in ordinary linear maps."""
    narrow = quantised(folders["llama"], "nf4")
    wide = quantised(folders["llama"], None)
    for name, module in wide.model.named_modules():
        other = narrow.model.get_submodule(name)
        if isinstance(other, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(
                other.weight.data, other.weight.quant_state
            )
            module.weight.data = weight.to(torch.float32)
    found = []
    for backbone in (narrow, wide):
        model = AdaptedModel(backbone)
        config = {"name": "prefix_tuning", "parameterization": "projected", "length": 3}
        adapter = model.attach(config | {"initialization": "random"})
        loss_of(model, texts()).backward()
        found.append({name: value.grad for name, value in adapter.trainable().items()})
    for name, want in found[1].items():
        torch.testing.assert_close(found[0][name], want, atol=1e-4, rtol=1e-3)


# A run -------------------------------------------------------------------------------------------


def with_(config: RunConfig, **model: Any) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


def test_a_run(make: Callable[..., RunConfig]) -> None:
    plain = prepare(make(), Silent()).identity
    config = with_(make(), quantization="nf4")
    record = run(config)
    assert record["status"] == "finished"
    assert record["identity"]["model"]["quantization"] == "nf4"
    assert "quantization" not in plain["model"]  # runs of before have the id that they had
    assert record["model"]["parameters"] == run(make())["model"]["parameters"]
    assert record["versions"]["bitsandbytes"]
    model, _ = load_run(RunFolder(Path(config.output) / record["id"]))
    assert model.backbone.quantization == "nf4"
    assert len(linear_maps(model.backbone)) == 14


@every
def test_the_plan_counts_bits(make: Callable[..., RunConfig], quantization: str) -> None:
    config = with_(make(), quantization=quantization)
    backbone = load_backbone(config.model)
    found = plan_run(config)
    kept = sum(v.numel() * v.element_size() for v in backbone.model.parameters())
    kept += sum(v.numel() * v.element_size() for v in backbone.model.buffers())
    for module in linear_maps(backbone):
        state = getattr(module.weight, "quant_state", None)
        factors = module.weight.SCB if state is None else state.absmax
        kept += factors.numel() * 4
    [planned] = [part.size for part in found.training if part.name == "frozen weights"]
    assert planned == pytest.approx(kept, rel=0.02)
    assert found.parameters == backbone.num_parameters


@pytest.mark.parametrize(
    ("method", "options"),
    [("full", {}), ("soft_prompt", {"tune_backbone": True})],
)
def test_what_trains_the_weights_themselves_is_refused(
    make: Callable[..., RunConfig], method: str, options: dict[str, Any]
) -> None:
    config = with_(make(method=method, options=options), quantization="int8", name="nowhere/at-all")
    with pytest.raises(UnsupportedModel, match="cannot be moved by a gradient"):
        prepare(config, Silent())  # before anything is loaded
    backbone = load_backbone(ModelConfig(name=make().model.name, quantization="int8"))
    with pytest.raises(UnsupportedModel, match=r"model\.quantization=int8"):
        AdaptedModel(backbone).attach(method_config({"name": method, **options}))


def test_without_bitsandbytes(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedModel, match=r"pip install 'polyprefix\[quantization\]'"):
        load_backbone(with_(make(), quantization="nf4").model)


def test_a_quantisation_that_there_is_not(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.quantization|'quantization'"):
        ModelConfig.read({"name": str(tiny_folder), "quantization": "int3"})
