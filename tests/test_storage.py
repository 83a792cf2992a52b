"""Adapters on disk: loaded in a new process they compute the same; a damaged or foreign one is an
error that names the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from polyprefix.config import ConfigError, PolyprefixError, RunError
from polyprefix.methods import AdaptedModel, load_adapter, save_adapter, storage
from tests.conformance.cases import (
    PAIRS,
    TEXT,
    MethodCase,
    adapted,
    alone,
    backbone,
    scramble,
    texts,
)

ROOT = Path(__file__).parents[1]


def logits(model: AdaptedModel) -> torch.Tensor:
    return alone(model, model.wrap(texts(1)[0]))


def load_all(folder: Path) -> None:
    """What the new process does: every adapter onto a fresh backbone, logits into one file."""
    found = {}
    for number, (kind, _) in enumerate(PAIRS):
        model = AdaptedModel(backbone(kind))
        load_adapter(model, folder / str(number))
        found[str(number)] = logits(model)
    save_file(found, folder / "logits.safetensors")


@pytest.fixture(scope="module")
def saved_and_loaded(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Logits of all pairs before they were saved, and in another process that loaded them."""
    folder = tmp_path_factory.mktemp("adapters")
    before = {}
    for number, (kind, case) in enumerate(PAIRS):
        model = adapted(kind, case)
        before[str(number)] = logits(model)
        save_adapter(model.adapter(), folder / str(number))
    paths = [str(ROOT), str(ROOT / "tests" / "plugins"), os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, tests.test_storage as t; t.load_all(pathlib.Path(sys.argv[1]))",
            str(folder),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        check=True,
        timeout=240,
    )
    return before, load_file(folder / "logits.safetensors")


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=lambda n: f"{PAIRS[n][0]}-{PAIRS[n][1]}")
def test_same_logits_in_a_new_process(number: int, saved_and_loaded: Any) -> None:
    before, after = saved_and_loaded
    torch.testing.assert_close(after[str(number)], before[str(number)], atol=1e-6, rtol=0)
    kind, case = PAIRS[number]
    if case.method != "none":
        # an adapter that changes nothing would load as well as one that was lost
        plain = alone(AdaptedModel(backbone(kind)), texts(1)[0])
        assert (after[str(number)][-1] - plain[-1]).abs().max() > 1e-4


# Damage -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter on ``llama``."""
    save_adapter(adapted("llama", MethodCase("prefix_tuning", ())).adapter(), tmp_path)
    return tmp_path


def refuses(folder: Path, kind: str = "llama") -> PolyprefixError:
    """The error of loading; the model is left as it was, the adapter it had in use."""
    model = AdaptedModel(backbone(kind))
    model.attach({"name": "lora"}, "mine")
    with pytest.raises(PolyprefixError) as caught:
        load_adapter(model, folder)
    assert list(model.adapters) == ["mine"]
    assert model.active == "mine"
    assert all(value.requires_grad for value in model.adapter("mine").trainable().values())
    return caught.value


def test_a_sound_adapter_is_not_refused(folder: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refuses(folder)


@pytest.mark.parametrize("kept", [0, 4, 40, 600])
def test_truncated_weights(folder: Path, kept: int) -> None:
    path = folder / "polyprefix.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    error = refuses(folder)
    assert isinstance(error, RunError)
    assert str(path) in str(error)


def test_missing_weights(folder: Path) -> None:
    path = folder / "polyprefix.safetensors"
    path.unlink()
    error = refuses(folder)
    assert isinstance(error, RunError)
    assert str(path) in str(error)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"format": 1, "meth',
        "[1, 2]",
        "{}",
        '{"format": 1}',
        "null",
        '{"format": 1, "method": 3}',
    ],
)
def test_broken_configuration(folder: Path, content: str) -> None:
    path = folder / "polyprefix.json"
    path.write_text(content)
    error = refuses(folder)
    assert isinstance(error, RunError)
    assert str(path) in str(error)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"peft_type": "PREFIX_TUNING"}'])
def test_broken_configuration_of_peft(folder: Path, content: str) -> None:
    (folder / "polyprefix.json").unlink()
    path = folder / "adapter_config.json"
    path.write_text(content)
    save_file({}, folder / "adapter_model.safetensors")
    error = refuses(folder)
    assert isinstance(error, RunError)
    assert str(path) in str(error)


def changed(folder: Path, **values: Any) -> Path:
    path = folder / "polyprefix.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path


def test_a_format_of_the_future(folder: Path) -> None:
    path = changed(folder, format=99)
    error = refuses(folder)
    assert isinstance(error, RunError)
    assert str(path) in str(error)
    assert "format 99" in str(error)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"name": "prefix_tunning"}, "Did you mean 'prefix_tuning'"),
        ({"name": "prefix_tuning", "lenght": 3}, "Did you mean 'length'"),
        ({"name": "prefix_tuning", "length": 0}, "greater than 0"),
        ({"name": "prefix_tuning", "layers": "last:9"}, "the model has 2 layers"),
    ],
    ids=str,
)
def test_a_method_that_this_installation_does_not_know(
    folder: Path, method: dict[str, Any], says: str
) -> None:
    path = changed(folder, method=method)
    error = refuses(folder)
    assert isinstance(error, ConfigError)
    assert str(path) in str(error)
    assert says in str(error)


def test_an_adapter_of_another_shape_of_model(folder: Path) -> None:
    error = refuses(folder, "llama-multihead")
    assert isinstance(error, ConfigError)
    assert str(folder / "polyprefix.json") in str(error)
    assert "trained on another backbone" in str(error)


def test_an_adapter_of_another_family(folder: Path) -> None:
    """Mistral's shapes are the same here; what the adapter learned is not about it."""
    error = refuses(folder, "mistral")
    assert isinstance(error, ConfigError)
    assert "trained on a llama model" in str(error)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_other_tensors_than_expected(folder: Path, change: str) -> None:
    path = folder / "polyprefix.safetensors"
    tensors = load_file(path)
    if change == "missing":
        del tensors["parameters_.value"]
    else:
        tensors["parameters_.more"] = torch.zeros(2)
    save_file(tensors, path)
    error = refuses(folder)
    assert isinstance(error, ConfigError)
    assert "parameters_." in str(error)


def test_a_refused_full_adapter_leaves_the_backbone_alone(tmp_path: Path) -> None:
    """Its tensors are the backbone's own: all are checked before one is set."""
    save_adapter(adapted("llama", MethodCase("full", ())).adapter(), tmp_path)
    model = AdaptedModel(backbone("llama-multihead"))
    before = {name: value.clone() for name, value in model.backbone.model.state_dict().items()}
    with pytest.raises(ConfigError, match="another backbone"):
        load_adapter(model, tmp_path)
    for name, value in model.backbone.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("there", [True, False])
def test_no_adapter(tmp_path: Path, there: bool) -> None:
    error = refuses(tmp_path if there else tmp_path / "absent")
    assert isinstance(error, RunError)
    assert "no adapter" in str(error)
    assert str(tmp_path) in str(error)


# Saving over and being interrupted ----------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("over", [False, True], ids=["into nothing", "over an adapter"])
def test_an_interrupted_save_is_no_adapter(
    tmp_path: Path, over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the old configuration with the new weights either."""
    options = {"name": "prefix_tuning", "length": 3, "positions": "peft"}
    model = AdaptedModel(backbone("llama"))
    adapter = model.attach(options, text=TEXT)
    if over:
        save_adapter(adapter, tmp_path)

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(storage, "write_json", killed)
    with pytest.raises(Killed):
        save_adapter(adapter, tmp_path)
    assert (tmp_path / "polyprefix.safetensors").is_file()
    assert "no adapter" in str(refuses(tmp_path))


def test_saving_over_an_adapter_that_peft_could_read(tmp_path: Path) -> None:
    """PEFT would go on to load the old one."""
    options = {"name": "prefix_tuning", "length": 3}
    model = AdaptedModel(backbone("llama"))
    assert save_adapter(model.attach(options, "first", text=TEXT), tmp_path) is None
    assert (tmp_path / "adapter_config.json").is_file()
    second = model.attach(options | {"layers": "last:1"}, "second", text=TEXT)
    scramble(second)
    assert save_adapter(second, tmp_path) is not None
    assert not list(tmp_path.glob("adapter_*"))
    fresh = AdaptedModel(backbone("llama"))
    load_adapter(fresh, tmp_path)
    assert torch.equal(logits(fresh), logits(model))


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    adapter = AdaptedModel(backbone("llama")).attach({"name": "lora"})
    with pytest.raises(RunError, match="file"):
        save_adapter(adapter, tmp_path / "file")


def test_several_adapters_are_loaded_by_name(tmp_path: Path) -> None:
    case = MethodCase("prefix_tuning", ())
    for seed in (0, 1):
        save_adapter(adapted("llama", case, seed).adapter(), tmp_path / str(seed))
    model = AdaptedModel(backbone("llama"))
    for seed in (0, 1):
        load_adapter(model, tmp_path / str(seed), f"a{seed}")
    for seed in (0, 1):
        model.use(f"a{seed}")
        assert torch.equal(logits(model), logits(adapted("llama", case, seed)))
    with pytest.raises(ConfigError, match="has an adapter 'a0' already"):
        load_adapter(model, tmp_path / "0", "a0")


def test_a_lora_that_was_there_before_is_not_in_the_names(tmp_path: Path) -> None:
    """PEFT's wrapper stays on the backbone when a LoRA is taken off."""
    model = AdaptedModel(backbone("llama"))
    model.attach({"name": "lora"})
    model.detach()
    scramble(model.attach({"name": "full"}))
    save_adapter(model.adapter(), tmp_path)
    fresh = AdaptedModel(backbone("llama"))
    load_adapter(fresh, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(model), atol=1e-6, rtol=0)
