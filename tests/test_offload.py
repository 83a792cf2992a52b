"""Layers whose weights wait in main memory. A CPU stands for the device: weights are taken away
from the modules and brought back all the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polyprefix.config import ConfigError, RunConfig, TrainConfig
from polyprefix.methods import AdaptedModel, load_adapter, save_adapter
from polyprefix.models import load_backbone
from polyprefix.results import RunFolder, Silent
from polyprefix.study import load_run, plan_run, run
from polyprefix.study.fit import Fitting
from polyprefix.study.prepare import prepare
from tests.conformance.cases import METHODS, TEXT, MethodCase, backbone, scramble, texts
from tests.conformance.test_invariants import branching, loss_of, packed_logits, wrapped
from tests.conftest import with_model

CPU, META = torch.device("cpu"), torch.device("meta")
KINDS = ["llama", "gpt2", "bloom", "gpt_neox"]
FROZEN = [case for case in METHODS if case.type.mixes(case.config()) and case.type.trains]


def own_weights(model: Any) -> dict[str, torch.Tensor]:
    """Parameters of the backbone's layers, not those of adapters in them."""
    return {
        name: value
        for layer in model.layers
        for name, value in layer.named_parameters(prefix=str(id(layer)))
        if "lora_" not in name
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_are_where_accelerate_says(kind: str) -> None:
    plain, offloaded = backbone(kind), backbone(kind)
    before = {name: value.clone() for name, value in offloaded.model.state_dict().items()}
    offloaded.offload_layers(CPU)
    assert own_weights(offloaded)
    assert {value.device for value in own_weights(offloaded).values()} == {META}
    assert {value.device for value in own_weights(plain).values()} == {CPU}
    hooked = 0
    for path, module in offloaded.model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        hook: Any = getattr(module, "_hf_hook", None)
        in_a_layer = f"{path}.".startswith(f"{offloaded.family.layers}.")
        if not in_a_layer:
            assert hook is None
            assert all(value.device == CPU for value in own.values())
        elif own:
            hooked += 1
            assert (hook.offload, hook.execution_device) == (True, CPU)
            for name in own:
                waiting = hook.weights_map[name]
                assert waiting.device == CPU
                assert torch.equal(waiting, before[f"{path}.{name}"])
    assert hooked >= 4 * offloaded.num_layers
    head, table = offloaded.model.get_output_embeddings(), offloaded.embedding
    tied = plain.model.get_output_embeddings().weight is plain.embedding.weight
    assert (head.weight is table.weight) == tied
    assert (offloaded.device, offloaded.offload) == (CPU, "cpu")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_losses_gradients_and_logits_are_the_same(kind: str, case: MethodCase) -> None:
    found = []
    for offload in (False, True):
        made = backbone(kind)
        if offload:
            made.offload_layers(CPU)
        model = AdaptedModel(made)
        adapter = model.attach(case.config(), text=TEXT)
        scramble(adapter)
        made.gradient_checkpointing(True)
        model.train()
        torch.manual_seed(0)  # of dropout
        loss = loss_of(model, texts())
        loss.backward()
        made.gradient_checkpointing(False)
        model.eval()
        values = adapter.trainable()
        with torch.no_grad():
            rows = [model(torch.tensor([row])).logits for row in wrapped(model, texts())]
        assert all(value.device == CPU for value in values.values())
        found.append([loss.detach(), *rows, *(value.grad for value in values.values())])
        if offload:
            assert {value.device for value in own_weights(made).values()} == {META}
    for got, want in zip(*found, strict=True):
        assert torch.equal(got, want)


def test_packed_rows() -> None:
    from polyprefix.models.batching import lay_out

    found = []
    for offload in (False, True):
        made = backbone("llama")
        if offload:
            made.offload_layers(CPU)
        model = AdaptedModel(made)
        scramble(model.attach({"name": "prefix_tuning"}, text=TEXT))
        with torch.no_grad():
            batches = lay_out(branching(model), 10_000, 0, CPU)
            found.append(torch.cat([packed_logits(model, batch) for batch in batches]))
    assert torch.equal(*found)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_training_keeps_of_the_weights(checkpointing: bool) -> None:
    """Why gradient checkpointing is asked for: without, weights are kept that were brought."""
    made = backbone("llama")
    made.offload_layers(CPU)
    model = AdaptedModel(made)
    model.attach({"name": "prefix_tuning", "layers": "all"}, text=TEXT)
    maps = [module for module in made.model.modules() if isinstance(module, nn.Linear)]
    shapes = {tuple(module.weight.shape) for module in maps if hasattr(module, "_hf_hook")}
    shapes |= {shape[::-1] for shape in shapes}
    kept: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept.append(value)
        return value

    made.gradient_checkpointing(checkpointing)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss_of(model, texts())
    weights = [value for value in kept if tuple(value.shape) in shapes]
    assert bool(weights) is not checkpointing


def test_a_training_and_its_predictions(make: Callable[..., RunConfig], tmp_path: Path) -> None:
    """The loop, the dev score and the predictions of a run."""
    config = make("lora", runtime={"gradient_checkpointing": True})
    found = []
    for offload in (False, True):
        prepared = prepare(config, Silent())
        made = load_backbone(config.model)
        if offload:
            made.offload_layers(CPU)
        model = AdaptedModel(made)
        model.attach(prepared.method, text="People talk about")
        fitting = Fitting(model, prepared.data, config.task.max_length, config.runtime)
        fitting.train(TrainConfig(steps=4, batch_size=8), tmp_path / str(offload))
        save_adapter(model.adapter(), tmp_path / str(offload) / "adapter")
        again = AdaptedModel(made)
        model.detach()
        load_adapter(again, tmp_path / str(offload) / "adapter")
        fitting = Fitting(again, prepared.data, config.task.max_length, config.runtime)
        rows = fitting.predict("deu_Latn", prepared.data.test["deu_Latn"])
        log = (tmp_path / str(offload) / "log.jsonl").read_text().splitlines()
        found.append((rows, [line.split('"seconds"')[0] for line in log]))
    assert found[0][1]
    assert found[0] == found[1]


def test_where_it_saves_nothing(make: Callable[..., RunConfig]) -> None:
    config = with_model(make(), name="nowhere/at-all", offload="cpu")
    for ask in (lambda: prepare(config, Silent()), lambda: plan_run(config)):
        with pytest.raises(ConfigError, match=r"'model\.offload' has no effect on a CPU"):
            ask()


def test_where_weights_wait_is_not_in_the_identity(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[prepare.__module__]  # the package has the function by that name
    monkeypatch.setattr(module, "check_offload", lambda *_, **__: None)
    plain, offloaded = (
        prepare(config, Silent()) for config in (make(), with_model(make(), offload="cpu"))
    )
    assert plain.identity == offloaded.identity
    assert offloaded.config.model.offload == "cpu"
    assert offloaded.backbone.offload == "none"  # all is in main memory


def test_a_plan_for_a_gpu(make: Callable[..., RunConfig]) -> None:
    """One layer's weights are on the device, of two, and what is in no layer."""
    config = make(runtime={"device": "cuda", "gradient_checkpointing": True})
    whole, offloaded = (
        {part.name: part.size for part in plan_run(asked, available=1 << 30).training}
        for asked in (config, with_model(config, offload="cpu"))
    )
    layer = load_backbone(config.model).layers[0]
    weights = sum(value.numel() * 4 for value in layer.parameters())
    assert whole["frozen weights"] - offloaded["frozen weights"] == weights
    unchecked = with_model(config, offload="cpu").model_dump(mode="json")
    unchecked["runtime"]["gradient_checkpointing"] = False
    with pytest.raises(ConfigError, match=r"set runtime\.gradient_checkpointing to true"):
        plan_run(RunConfig.read(unchecked), available=1 << 30)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["prefix_tuning", "lora", "bottleneck"])
def test_a_run_on_a_gpu(make: Callable[..., RunConfig], method: str) -> None:
    """Not run where there is no CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    runtime = {"device": "cuda", "gradient_checkpointing": True}
    plain = make(method, runtime=runtime)
    offloaded = with_model(plain, offload="cpu")
    records = [run(plain, again=True), run(offloaded, again=True)]
    assert records[0]["id"] == records[1]["id"]  # where weights wait changes no result
    assert records[0]["scores"] == records[1]["scores"]
    model, _ = load_run(RunFolder(Path(plain.output) / records[1]["id"]))
    assert {value.device for value in own_weights(model.backbone).values()} == {META}
    assert model.backbone.device.type == "cuda"
