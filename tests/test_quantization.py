"""Frozen weights in 8 or 4 bits: whatever holds without, holds on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from polyprefix.config import ConfigError, ModelConfig, RunConfig, UnsupportedModel
from polyprefix.export import export
from polyprefix.methods import AdaptedModel, load_adapter, save_adapter
from polyprefix.models import Backbone, load_backbone
from polyprefix.models.batching import lay_out
from polyprefix.models.families import get_family
from polyprefix.models.quantization import (
    dequantised,
    is_quantised,
    quantised_maps,
    stored,
    stored_bytes,
)
from polyprefix.models.tiny import tiny_model
from polyprefix.results import RunFolder, Silent
from polyprefix.study import load_run, plan_run, run
from polyprefix.study.prepare import prepare
from tests.conformance.cases import (
    METHODS,
    TEXT,
    MethodCase,
    StubTokenizer,
    padded,
    scramble,
    texts,
)
from tests.conformance.test_invariants import branching, loss_of, packed_logits, wrapped
from tests.conftest import Cli, with_model

pytest.importorskip("torchao", reason="the extra 'quantization'")

CPU = torch.device("cpu")
KINDS = ["llama", "bloom"]
FROZEN = [case for case in METHODS if case.type.mixes(case.config())]
TRAINED = [case for case in FROZEN if case.type.trains]
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}
every = pytest.mark.parametrize("quantization", ["int8", "nf4"])
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models, as wide as blocks need."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp(kind)
        wide = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 150}
        config = AutoConfig.for_model(kind, **get_family(kind).tiny | wide, initializer_range=0.1)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(made[kind])
    return made


class _Tokenizer(StubTokenizer):
    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> StubTokenizer:
        return cls()


@pytest.fixture
def quantised(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backbone]:
    monkeypatch.setattr("polyprefix.models.backbone.AutoTokenizer", _Tokenizer)

    def load(kind: str, quantization: str | None, **more: Any) -> Backbone:
        values = {"name": str(folders[kind]), "quantization": quantization, **more}
        return load_backbone(ModelConfig.read(values))

    return load


def with_the_same_numbers(narrow: Backbone, wide: Backbone) -> None:
    """Give an ordinary model the weights that a quantised one has, without torchao's products."""
    maps = quantised_maps(narrow.model)
    assert maps
    for name, module in maps.items():
        wide.model.get_submodule(name).weight.data = dequantised(module.weight)


def frozen_numbers(model: AdaptedModel) -> dict[str, list[torch.Tensor]]:
    ours = {id(value) for value in model.adapter().trainable().values()}
    return {
        name: [inner.detach().clone() for inner in stored(value)]
        for name, value in model.named_parameters()
        if id(value) not in ours
    }


# What is quantised --------------------------------------------------------------------------------


@every
@every_kind
def test_the_layers_linear_maps_are_quantised(
    quantised: Callable[..., Backbone], kind: str, quantization: str
) -> None:
    wide, narrow = quantised(kind, None), quantised(kind, quantization)
    maps = quantised_maps(narrow.model)
    plain = [
        name
        for name, module in wide.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    assert sorted(maps) == sorted(plain)
    assert len(maps) >= 4 * narrow.num_layers
    assert not quantised_maps(wide.model)
    assert narrow.num_parameters == wide.num_parameters
    assert (narrow.dtype, narrow.quantization) == (torch.float32, quantization)
    assert type(narrow.model.get_output_embeddings().weight) is torch.nn.Parameter
    assert not any(value.requires_grad for value in narrow.model.parameters())
    for module in maps.values():
        count, outputs = module.weight.numel(), module.weight.shape[0]
        bits = {
            # numbers, a factor and a zero for each output
            "int8": 8 * count + (32 + 8) * outputs,
            # numbers, a factor in 8 bits for 64, one in 32 for 16 of these; mean, the 16 values
            "nf4": 4 * count + 8 * count // 64 + 32 * count // 1024 + 32 * 17,
        }
        assert stored_bytes([module.weight]) * 8 == bits[quantization]
    ids = torch.tensor([texts(1)[0]])
    with torch.no_grad():
        logits, want = (AdaptedModel(model)(ids).logits for model in (narrow, wide))
    assert not torch.allclose(logits, want, atol=1e-3)  # it does something
    near = F.cosine_similarity(logits.flatten(), want.flatten(), dim=0)
    assert near > {"int8": 0.999, "nf4": 0.9}[quantization]


# The invariants -----------------------------------------------------------------------------------


@every
@every_kind
@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_no_effect_at_the_start(
    quantised: Callable[..., Backbone], kind: str, case: MethodCase, quantization: str
) -> None:
    model = AdaptedModel(quantised(kind, quantization))
    ids = torch.tensor([texts(1)[0]])
    with torch.no_grad():
        before = model(ids).logits
        adapter = model.attach(case.config(), text=TEXT)
        if case.type.claims_no_op(case.config()):
            torch.testing.assert_close(model(ids).logits, before, **TOLERANCE)
        if not case.type.trains:
            return
        scramble(adapter)
        moved = model(torch.tensor([model.wrap(ids[0].tolist())])).logits[:, -1]
    assert not torch.allclose(moved, before[:, -1], atol=1e-3)


@every
@every_kind
@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_layout_changes_nothing(
    quantised: Callable[..., Backbone], kind: str, case: MethodCase, quantization: str
) -> None:
    """Padding, packing and shared context: as one text by itself."""
    model = AdaptedModel(quantised(kind, quantization))
    scramble(model.attach(case.config(), text=TEXT))
    rows, packed = wrapped(model, texts()), branching(model)
    with torch.no_grad():
        alone = [model(torch.tensor([row])).logits[0] for row in rows]
        for side in ("left", "right"):
            tokens, mask = padded(rows, side)
            logits = model(tokens, mask).logits
            for want, got, visible in zip(alone, logits, mask.bool(), strict=True):
                torch.testing.assert_close(got[visible], want, **TOLERANCE)
        batches = list(lay_out(packed, 10_000, 0, CPU))
        assert any(batch.until is not None for batch in batches)
        for batch in batches:
            each = [
                model(torch.tensor([packed[i].ids])).logits[0][list(packed[i].reads)]
                for i in batch.texts
            ]
            torch.testing.assert_close(packed_logits(model, batch), torch.cat(each), **TOLERANCE)


@every
@every_kind
@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_gradients_are_those_of_the_numbers_in_full(
    quantised: Callable[..., Backbone], kind: str, case: MethodCase, quantization: str
) -> None:
    narrow, wide = quantised(kind, quantization), quantised(kind, None)
    with_the_same_numbers(narrow, wide)
    found = []
    for backbone, checkpointing in ((wide, False), (narrow, False), (narrow, True)):
        model = AdaptedModel(backbone)
        adapter = model.attach(case.config(), text=TEXT)
        scramble(adapter)
        backbone.gradient_checkpointing(checkpointing)
        model.train()
        loss = loss_of(model, texts())
        loss.backward()
        gradients = {name: value.grad for name, value in adapter.trainable().items()}
        found.append((loss.detach(), gradients))
        backbone.gradient_checkpointing(False)
        model.detach()
    want_loss, want = found[0]
    assert max(float(value.abs().max()) for value in want.values()) > 1e-4
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, want_loss, **TOLERANCE)
        for name, value in want.items():
            largest = float(value.abs().max().clamp_min(1e-3))
            torch.testing.assert_close(gradients[name] / largest, value / largest, **TOLERANCE)


@every
@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_training_leaves_every_stored_bit_alone(
    quantised: Callable[..., Backbone], case: MethodCase, quantization: str
) -> None:
    model = AdaptedModel(quantised("llama", quantization))
    adapter = model.attach(case.config(), text=TEXT)
    trained = adapter.trainable()
    assert {value.dtype for value in trained.values()} == {torch.float32}
    start = {name: value.detach().clone() for name, value in trained.items()}
    before = frozen_numbers(model)
    model.train()
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, texts()).backward()
        optimizer.step()
    model.eval()
    for name, value in trained.items():
        assert not torch.equal(value, start[name]), f"{name} did not move"
    after = frozen_numbers(model)
    assert before.keys() == after.keys()
    for name, values in after.items():
        for got, want in zip(values, before[name], strict=True):
            assert torch.equal(got, want), f"{name} moved"


@every
@pytest.mark.parametrize("name", ["soft_prompt", "prefix_tuning", "llama_adapter", "lora"])
def test_saved_and_loaded_is_the_same(
    quantised: Callable[..., Backbone], tmp_path: Path, name: str, quantization: str
) -> None:
    model = AdaptedModel(quantised("llama", quantization))
    scramble(model.attach({"name": name}, text=TEXT))
    row = torch.tensor([model.wrap(texts(1)[0])])
    with torch.no_grad():
        want = model(row).logits
    save_adapter(model.adapter(), tmp_path)
    again = AdaptedModel(quantised("llama", quantization))
    load_adapter(again, tmp_path)
    with torch.no_grad():
        assert torch.equal(again(row).logits, want)


@every
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_no_wide_weight_is_kept_for_the_backward_pass(
    quantised: Callable[..., Backbone], quantization: str, dtype: str, autocast: bool
) -> None:
    backbone = quantised("llama", quantization, dtype=dtype)
    model = AdaptedModel(backbone)
    adapter = model.attach({"name": "prefix_tuning", "layers": "all"}, text=TEXT)
    shapes = {tuple(m.weight.shape) for m in quantised_maps(backbone.model).values()}
    shapes |= {shape[::-1] for shape in shapes}
    kept: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept.append(value)
        return value

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        loss = loss_of(model, texts())
    assert kept
    assert not [
        value.shape for value in kept if tuple(value.shape) in shapes and not is_quantised(value)
    ]
    loss.backward()
    assert all(value.grad is not None for value in adapter.trainable().values())


@every
def test_autocast_computes_what_it_computes_on_the_numbers_in_full(
    quantised: Callable[..., Backbone], quantization: str
) -> None:
    """In bfloat16, of which 1 in 128 is the precision."""
    narrow, wide = quantised("llama", quantization), quantised("llama", None)
    with_the_same_numbers(narrow, wide)
    found = []
    for backbone in (narrow, wide):
        model = AdaptedModel(backbone)
        adapter = model.attach({"name": "lora", "layers": "all"})
        scramble(adapter)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, texts())
        loss.backward()
        found.append(torch.cat([v.grad.flatten() for v in adapter.trainable().values()]))
    assert F.cosine_similarity(*found, dim=0) > 0.995


# A run --------------------------------------------------------------------------------------------


def test_a_run(make: Callable[..., RunConfig]) -> None:
    plain, config = prepare(make(), Silent()).identity, with_model(make(), quantization="int8")
    record = run(config)
    assert record["status"] == "finished"
    assert record["config"]["model"]["quantization"] == "int8"
    assert record["identity"]["model"]["quantization"] == "int8"
    assert "quantization" not in plain["model"]  # runs of before have the id that they had
    assert record["versions"]["torchao"]
    assert record["model"]["dtype"] == "float32"
    model, _ = load_run(RunFolder(Path(config.output) / record["id"]))
    assert model.backbone.quantization == "int8"
    assert len(quantised_maps(model.backbone.model)) == 14
    assert run(config)["finished"] == record["finished"]  # the same run


def test_lora_is_merged_into_the_numbers_in_full(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = with_model(make("lora", train={"learning_rate": 0.05}), quantization="int8")
    folder = Path(config.output) / run(config)["id"]
    told = export(folder, "merged", tmp_path / "merged")
    assert told.difference is not None
    assert told.difference < 1e-4
    assert "weights in int8" in " ".join(told.notes)
    model, _ = load_run(RunFolder(folder))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)
        model.use(None)  # the comparison above could pass because nothing was learned
        assert not torch.allclose(merged(ids).logits, model(ids).logits, atol=1e-2)
    told = export(folder, "peft", tmp_path / "peft")
    assert told.difference is not None
    assert told.difference < 1e-4


@pytest.mark.parametrize(("quantization", "method"), [("int8", "lora"), ("nf4", "prefix_tuning")])
def test_the_plan_counts_the_bits(
    make: Callable[..., RunConfig], quantization: str, method: str
) -> None:
    narrow = with_model(make(method), name="polyprefix/nano", quantization=quantization)
    wide = with_model(make(method), name="polyprefix/nano")
    backbone = load_backbone(narrow.model)
    want = stored_bytes([*backbone.model.parameters(), *backbone.model.buffers()])
    plans = [plan_run(config) for config in (narrow, wide)]
    parts = [{part.name: part.size for part in plan.training} for plan in plans]
    assert parts[0]["frozen weights"] == want
    assert plans[0].parameters == plans[1].parameters == backbone.num_parameters
    # wide weights, one at a time, are in the backward pass and not among what is kept
    activations = [part["activations"] for part in parts]
    assert activations[0] == pytest.approx(activations[1], rel=0.1)


@pytest.mark.slow
@every
def test_nano_learns_as_it_does_without(cli: Cli, tmp_path: Path, quantization: str) -> None:
    """Prefix tuning on the packaged task, 150 steps: the mean accuracy of all languages."""
    scores = []
    for given in (quantization, "null"):
        code, _, err = cli(
            *("run", "--model", "polyprefix/nano", "--method", "prefix_tuning"),
            *("--task", "polytopics", "--set", "train.steps=150", "--output", str(tmp_path)),
            *("--set", f"model.quantization={given}", "--quiet"),
        )
        assert code == 0, err
    for folder in tmp_path.glob("polytopics-*"):
        record = RunFolder(folder).record()
        each = [float(score["accuracy"]) for score in record["scores"].values()]
        scores.append(sum(each) / len(each))
    assert len(scores) == 2
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"), [("full", {}), ("soft_prompt", {"tune_backbone": True})]
)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"quantization": "int8"}, "rounded to few bits"),
        ({"offload": "cpu"}, "what is done to a copy is lost"),
    ],
)
def test_what_trains_the_weights_themselves(
    make: Callable[..., RunConfig],
    method: str,
    options: dict[str, Any],
    model: dict[str, Any],
    reason: str,
) -> None:
    config = with_model(make(method, options=options), name="nowhere/at-all", **model)
    for ask in (lambda: prepare(config, Silent()), lambda: plan_run(config)):
        with pytest.raises(UnsupportedModel, match=reason) as error:  # before anything is loaded
            ask()
    [(key, value)] = model.items()
    assert f"model.{key}: {value}" in str(error.value)


def test_full_fine_tuning_from_python(quantised: Callable[..., Backbone]) -> None:
    model = AdaptedModel(quantised("llama", "int8"))
    with pytest.raises(UnsupportedModel, match=r"'model\.quantization: int8'"):
        model.attach({"name": "full"})
    model.attach({"name": "none"})


def test_without_torchao(make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyprefix.models.quantization.find_spec", lambda name: None)
    with pytest.raises(
        UnsupportedModel, match=r"'model\.quantization'.*pip install 'polyprefix\[quantization\]'"
    ):
        load_backbone(with_model(make(), quantization="nf4").model)


def test_weights_that_do_not_come_in_blocks(make: Callable[..., RunConfig]) -> None:
    with pytest.raises(UnsupportedModel, match=r"k_proj has 16 times 32: take int8"):
        load_backbone(with_model(make(), quantization="nf4").model)
    with pytest.raises(UnsupportedModel, match=r"k_proj has 16 times 32: take int8"):
        plan_run(with_model(make(), quantization="nf4"))


def test_a_family_without_linear_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyprefix.models.backbone.AutoTokenizer", _Tokenizer)
    tiny_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="'gpt2' has no linear maps that torchao knows"):
        load_backbone(ModelConfig(name=str(tmp_path), quantization="int8"))


def test_keys(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"key 'quantization': Input should be 'int8' or 'nf4'"):
        ModelConfig.read({"name": str(tiny_folder), "quantization": "int3"})
    with pytest.raises(ConfigError, match="cannot move quantised ones"):
        ModelConfig.read({"name": "x", "quantization": "int8", "offload": "cpu"})


@pytest.mark.slow
def test_torchao_says_nothing_of_its_cuda_libraries() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import polyprefix.models, torchao; print(torchao.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip()
    assert done.stderr == ""


@pytest.mark.gpu
@every
@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_gradients_on_a_gpu(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    case: MethodCase,
    quantization: str,
) -> None:
    """Not run where there is no CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr("polyprefix.models.backbone.AutoTokenizer", _Tokenizer)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    name = str(folders["llama"])
    narrow = load_backbone(ModelConfig(name=name, quantization=quantization), "cuda")
    wide = load_backbone(ModelConfig(name=name), "cuda")
    with_the_same_numbers(narrow, wide)
    found = []
    for backbone in (narrow, wide):
        model = AdaptedModel(backbone)
        adapter = model.attach(case.config(), text=TEXT)
        scramble(adapter)
        ids, mask = (value.cuda() for value in padded(wrapped(model, texts()), "right"))
        model(ids, mask).logits.float().logsumexp(-1).mean().backward()
        found.append({name: value.grad for name, value in adapter.trainable().items()})
    for key, want in found[1].items():
        largest = float(want.abs().max().clamp_min(1e-3))
        torch.testing.assert_close(found[0][key] / largest, want / largest, atol=1e-4, rtol=1e-4)
