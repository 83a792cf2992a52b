"""Registries and revisions."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polyprefix.config import ConfigError, Registry
from polyprefix.config import registry as registry_module
from polyprefix.methods import AdaptedModel
from polyprefix.models.backbone import folder_revision
from tests.conformance.cases import TEXT, backbone


def registry() -> Registry[Any]:
    made: Registry[Any] = Registry(
        "thing", "polyprefix.things", lambda t: made.add(t.name, t), ConfigError
    )
    return made


def test_a_name_is_given_once() -> None:
    things = registry()
    first = things.add("a", SimpleNamespace())
    assert things.add("a", first) is first
    with pytest.raises(ValueError, match="thing 'a' is registered already"):
        things.add("a", SimpleNamespace(other=True))
    with pytest.raises(ConfigError, match="unknown thing 'b'"):
        things.get("b")


@pytest.mark.parametrize("registers_itself", [False, True])
def test_entry_points_are_found_once(
    monkeypatch: pytest.MonkeyPatch, registers_itself: bool
) -> None:
    things = registry()
    thing = SimpleNamespace(name="announced")
    loads = 0

    def load() -> Any:
        nonlocal loads
        loads += 1
        if registers_itself:
            things.add(thing.name, thing)
        return thing

    monkeypatch.setattr(registry_module, "entry_points", lambda group: [SimpleNamespace(load=load)])
    assert things.get("announced") is thing
    assert things.all() == {"announced": thing}
    assert loads == 1


def test_a_revision_is_of_the_contents(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = folder_revision(tiny_folder)
    assert before is not None
    assert folder_revision(folder) == before
    (folder / "notes.md").write_text("not part of the model")
    assert folder_revision(folder) == before
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        content = bytearray((folder / name).read_bytes())
        kept = bytes(content)
        place = 2 * len(content) // 3
        content[place] ^= 1
        (folder / name).write_bytes(bytes(content))
        assert folder_revision(folder) != before
        (folder / name).write_bytes(kept)
    assert folder_revision(folder) == before
    assert folder_revision(tmp_path / "nowhere") is None


@pytest.mark.parametrize("method", ["full", "soft_prompt"])
def test_a_tuned_backbone_is_not_used_for_another(method: str) -> None:
    model = AdaptedModel(backbone("llama"))
    options = {"tune_backbone": True} if method == "soft_prompt" else {}
    model.attach({"name": method, **options}, text=TEXT)
    model.detach()
    with pytest.raises(ConfigError, match="load the backbone again"):
        model.attach({"name": "lora"})
