"""Weights that lie otherwise in memory are the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from polyprefix.config import ModelConfig
from polyprefix.models import load_backbone
from polyprefix.models.layout import outputs_together
from polyprefix.models.tiny import tiny_model
from tests.conformance.cases import KINDS

IDS = torch.arange(3, 43).reshape(4, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_computes_the_same(kind: str) -> None:
    model = tiny_model(kind, 0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        want = model(IDS).logits
    outputs_together(model)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, want, rtol=1e-5, atol=1e-5)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_loaded_model_has_them_so_and_its_embedding_as_it_was(
    tiny_folder: Path, tmp_path: Path
) -> None:
    model = load_backbone(ModelConfig(name=str(tiny_folder))).model
    embedding = model.get_input_embeddings().weight
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in linear:
        if module.weight is not embedding:
            assert module.weight.stride() == (1, module.out_features)
    assert embedding.is_contiguous()
    assert len(linear) > 2
    model.save_pretrained(tmp_path)
    saved, stored = (load_file(path / "model.safetensors") for path in (tmp_path, tiny_folder))
    assert saved.keys() == stored.keys()
    assert all(torch.equal(saved[name], value) for name, value in stored.items())


def test_other_types_are_left_alone() -> None:
    model = tiny_model("llama", 0).to(torch.bfloat16)
    outputs_together(model)
    assert all(value.is_contiguous() for value in model.parameters())
