"""Which models and which methods the conformance suite runs on: all that are registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from polyprefix.methods import AdaptedModel, MethodConfig, get_method, method_config, methods
from polyprefix.models import Backbone, families
from polyprefix.models.tiny import VARIANTS, tiny_backbone

KINDS = sorted([*families(), *VARIANTS])
SLIDING = [kind for kind in KINDS if tiny_backbone(kind).sliding_window is not None]
TEXT = "a text to start from"


class StubTokenizer:
    """Enough of a tokenizer for initialisation: every text is the same few ids."""

    all_special_ids = (0, 1, 2)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [5 + (7 * i) % 90 for i in range(len(text))]}


@dataclass(frozen=True)
class MethodCase:
    """A method with one configuration, small enough for a tiny model."""

    method: str
    options: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return "-".join([self.method, *(f"{k}={v}" for k, v in self.options)])

    def config(self, **more: Any) -> MethodConfig:
        values: dict[str, Any] = {"name": self.method, **dict(self.options), **more}
        fields = get_method(self.method).Config.model_fields
        values |= {k: v for k, v in {"length": 3, "size": 4}.items() if k in fields}
        return method_config(values)

    @property
    def type(self) -> Any:
        return get_method(self.method)


METHODS = [
    MethodCase(name, tuple(options.items()))
    for name, method in methods().items()
    for options in ({}, *method.conformance)
]


def backbone(kind: str, seed: int = 0) -> Backbone:
    made = tiny_backbone(kind, seed)
    made.tokenizer = StubTokenizer()
    return made


def supported(kind: str, case: MethodCase) -> bool:
    """PEFT's positions are not defined for a model with sliding windows (see its test)."""
    return not (kind in SLIDING and ("positions", "peft") in case.options)


PAIRS = [(kind, case) for kind in KINDS for case in METHODS if supported(kind, case)]


def adapted(kind: str, case: MethodCase, seed: int = 0) -> AdaptedModel:
    """A tiny model with a trained-looking adapter: every trainable tensor moved from its start."""
    model = AdaptedModel(backbone(kind))
    adapter = model.attach(case.config(), seed=seed, text=TEXT)
    scramble(adapter, seed)
    return model


def scramble(adapter: Any, seed: int = 0) -> None:
    """Move every trainable tensor, so that gates are open and nothing is at its initial value."""
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        for name, value in adapter.trainable().items():
            noise = torch.randn(value.shape, generator=generator)
            # the backbone's own weights are wide already
            spread = 0.03 if name.startswith("backbone.") else 0.3
            value.add_((spread * noise).to(value.device, value.dtype))


def texts(count: int = 3, seed: int = 0) -> list[list[int]]:
    """Token ids of texts of different lengths, longer than the tiny models' windows."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 120, (8 + 3 * i,), generator=generator).tolist() for i in range(count)]


def padded(rows: list[list[int]], side: str, pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, T]`` ids and mask."""
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        fill = [pad] * (longest - len(row))
        ids.append(fill + row if side == "left" else row + fill)
        mask.append(
            [0] * len(fill) + [1] * len(row) if side == "left" else [1] * len(row) + [0] * len(fill)
        )
    return torch.tensor(ids), torch.tensor(mask)


def alone(model: AdaptedModel, row: list[int]) -> torch.Tensor:
    """``[T, V]``: the logits of one text by itself, the reference for all else."""
    with torch.no_grad():
        return model(torch.tensor([row])).logits[0]
