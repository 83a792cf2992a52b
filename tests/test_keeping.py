"""Trainings that keep hidden states: the same weights, what is said, what is cleaned up, and when
``auto`` keeps any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from polyprefix.config import ConfigError, RunError, RuntimeConfig, TrainConfig
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import Text
from polyprefix.models.hidden_states import HiddenStates
from polyprefix.results import Silent, environment, free_memory
from polyprefix.training import keeping, read_log, train
from polyprefix.training.keeping import FILE, amount, keep_hidden_states
from tests.conformance.cases import MethodCase
from tests.test_training import checkpointed, examples, fit, fresh

UPPER = MethodCase("prefix_tuning", (("layers", "last:1"),))
TEXTS = [
    Text([1, 5, 6, 7], [3]),
    Text([1, 5, 6, 8, 9], [4]),
    Text([1, 5, 6, 7], [2]),
    Text([2], []),
]
BEGINNINGS = 4 + 2 + 1
SIZE = BEGINNINGS * 32 * 4


class Recorder(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def layer_calls(model: AdaptedModel) -> list[tuple[int, bool]]:
    """Receives the number of each layer that is computed, and whether with gradients."""
    computed: list[tuple[int, bool]] = []
    for number, attention in enumerate(model.backbone.attentions):
        attention.register_forward_pre_hook(
            lambda *_, number=number: computed.append((number, torch.is_grad_enabled()))
        )
    return computed


def keep(
    model: AdaptedModel,
    folder: Path,
    where: str,
    passes: float = 9,
    progress: Recorder | None = None,
) -> HiddenStates | None:
    runtime = RuntimeConfig.read({"keep_hidden_states": where})
    return keep_hidden_states(
        model, [model.adapter()], TEXTS, passes, runtime, folder, progress or Recorder()
    )


@pytest.mark.parametrize("method", ["prefix_tuning", "llama_adapter", "lora", "bottleneck"])
def test_the_weights_are_the_same(tiny_folder: Path, tmp_path: Path, method: str) -> None:
    """And a training of three epochs computes the lower layer once, before it."""
    case = MethodCase(method, (("layers", "last:1"),))
    found = {}
    for where in ("never", "memory", "disk"):
        model = fresh(tiny_folder, case)
        computed = layer_calls(model)
        fit(model, tmp_path / where, runtime={"keep_hidden_states": where})
        assert ((0, True) in computed) == (where == "never")
        assert (1, True) in computed
        assert not (tmp_path / where / FILE).exists()
        found[where] = checkpointed(tmp_path / where)
    for name, value in found["never"].items():
        if name.startswith("parameter."):
            torch.testing.assert_close(found["memory"][name], value, atol=1e-5, rtol=1e-5)
        assert torch.equal(found["disk"][name], found["memory"][name])
    never, memory = (
        [entry["loss"] for entry in read_log(tmp_path / where)] for where in ("never", "memory")
    )
    assert memory == pytest.approx(never, abs=1e-5)


def test_they_are_computed_in_the_precision_of_the_training(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Weights cannot be compared there: bf16 rounds sums of another order to other numbers."""
    losses = []
    for where in ("never", "memory"):
        model = fresh(tiny_folder, UPPER)
        precise: list[bool] = []
        model.backbone.layers[0].register_forward_hook(
            lambda *_, precise=precise: precise.append(not torch.is_autocast_enabled("cpu"))
        )
        runtime = {"keep_hidden_states": where}
        fit(model, tmp_path / where, runtime=runtime, mixed_precision="bf16")
        assert precise
        assert not any(precise)
        losses.append([entry["loss"] for entry in read_log(tmp_path / where)])
    assert losses[1] == pytest.approx(losses[0], abs=3e-2)
    assert losses[0][0] - losses[0][-1] > 0.3  # they would differ, if they went another way


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_training_goes_on_to_the_same_weights(
    tiny_folder: Path, tmp_path: Path, where: str
) -> None:
    """Broken off as by a kill: to the bit."""
    runtime = {"keep_hidden_states": where}
    fit(fresh(tiny_folder, UPPER), tmp_path / "whole", runtime=runtime)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(tiny_folder, UPPER), tmp_path / "parts", stop_at=3, runtime=runtime)
    assert not (tmp_path / "parts" / FILE).exists()
    fit(fresh(tiny_folder, UPPER), tmp_path / "parts", runtime=runtime)
    whole, parts = checkpointed(tmp_path / "whole"), checkpointed(tmp_path / "parts")
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    # what has trained to its end computes nothing again
    model = fresh(tiny_folder, UPPER)
    computed = layer_calls(model)
    fit(model, tmp_path / "parts", runtime=runtime)
    assert not computed


def test_a_training_that_cannot_keep_them_says_so_before_it_begins(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Soft prompt with this configuration changes"):
        fit(
            fresh(tiny_folder, MethodCase("soft_prompt", ())),
            tmp_path,
            runtime={"keep_hidden_states": "memory"},
        )
    assert not read_log(tmp_path)


def test_the_size_is_shown_first(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of distinct beginnings, in the precision that they are computed in."""
    model = fresh(tiny_folder, UPPER)
    progress = Recorder()
    monkeypatch.setattr(keeping, "_fill", lambda *_: progress.say("computing"))
    kept = keep(model, tmp_path, "disk", progress=progress)
    assert progress.lines == [
        f"hidden states below layer 1 of 4 texts: {amount(SIZE)}, kept in {tmp_path / FILE}",
        "computing",
    ]
    assert kept is not None
    assert (tmp_path / FILE).stat().st_size == SIZE
    kept.close()
    assert not (tmp_path / FILE).exists()
    model.backbone.model.to(torch.bfloat16)
    keep(model, tmp_path, "disk")
    assert (tmp_path / FILE).stat().st_size == SIZE // 2


def test_amounts() -> None:
    assert [amount(n) for n in (896, 38_212_000, 701_000_000, 12_340_000_000)] == [
        "0.000896 MB",
        "38.2 MB",
        "701 MB",
        "12.3 GB",
    ]


@pytest.mark.parametrize("where", ["never", "auto", "memory", "disk"])
def test_what_a_killed_training_left_is_removed(
    tiny_folder: Path, tmp_path: Path, where: str
) -> None:
    (tmp_path / FILE).write_bytes(bytes(10 * SIZE))
    kept = keep(fresh(tiny_folder, UPPER), tmp_path, where)
    if where == "disk":
        assert (tmp_path / FILE).stat().st_size == SIZE
        assert kept is not None
        kept.close()
    assert not (tmp_path / FILE).exists()


def test_an_interruption_while_they_are_computed_leaves_no_file(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any) -> None:
        assert (tmp_path / FILE).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(HiddenStates, "put", pressed)
    with pytest.raises(KeyboardInterrupt):
        keep(fresh(tiny_folder, UPPER), tmp_path, "disk")
    assert not list(tmp_path.iterdir())


def test_auto_keeps_what_is_worth_it_and_fits(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(tiny_folder, UPPER)
    progress = Recorder()
    assert keep(model, tmp_path, "auto", passes=1.9) is None
    monkeypatch.setattr(keeping, "free_memory", lambda: 4 * SIZE - 1)
    assert keep(model, tmp_path, "auto", progress=progress) is None
    assert progress.lines == [
        f"hidden states below layer 1 of 4 texts: {amount(SIZE)}, computed anew in every epoch; "
        "runtime.keep_hidden_states=disk keeps them"
    ]
    assert keep(model, tmp_path, "memory") is not None
    monkeypatch.setattr(keeping, "free_memory", lambda: 4 * SIZE)
    assert keep(model, tmp_path, "auto", passes=2) is not None
    monkeypatch.setattr(keeping, "BELOW", 0.6)
    assert keep(model, tmp_path, "auto") is None
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_an_error(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(tiny_folder, UPPER)
    monkeypatch.setattr(keeping, "free_memory", lambda: SIZE - 1)
    with pytest.raises(RunError, match=r"0\.000896 MB.*are free.*=disk"):
        keep(model, tmp_path, "memory")
    full = OSError(28, "No space left on device")

    def reserve(path: Path, size: int) -> None:
        path.write_bytes(b"")
        raise full

    monkeypatch.setattr("polyprefix.models.hidden_states._reserve", reserve)
    with pytest.raises(RunError, match=r"cannot write .*hidden_states\.bin': No space left"):
        keep(model, tmp_path, "disk")
    assert not (tmp_path / FILE).exists()


def test_a_container_has_what_its_limit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "CONTROL_GROUP", tmp_path)
    without = free_memory()
    assert without > 0
    (tmp_path / "memory.current").write_text("300\n")
    for limit, free in (("1000\n", 700), ("200\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert free_memory() == free
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 1000


def test_dropout_above_falls_where_it_fell(tiny_folder: Path, tmp_path: Path) -> None:
    """Keeping states draws no random number that training would draw."""
    case = MethodCase("lora", (("layers", "last:1"), ("dropout", 0.5)))
    losses = []
    for where in ("never", "memory"):
        config = TrainConfig(steps=6, batch_size=4, evaluate_every=6, learning_rate=0.02)
        train(
            fresh(tiny_folder, case),
            examples(),
            config,
            folder=tmp_path / where,
            evaluate=lambda: (0.0, 0.0),
            runtime=RuntimeConfig.read({"keep_hidden_states": where}),
        )
        losses.append([entry["loss"] for entry in read_log(tmp_path / where)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
