"""Adapt a language model with English data only, by prefix methods, and measure how the skill
carries to other languages.

The names below are loaded on first use: ``import polyprefix`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyprefix.api import evaluate, load, load_data, train
    from polyprefix.config import PolyprefixError, RunConfig
    from polyprefix.methods import AdaptedModel, load_adapter, save_adapter
    from polyprefix.study.run import run
    from polyprefix.study.together import run_together

_WHERE = {
    "AdaptedModel": "polyprefix.methods",
    "PolyprefixError": "polyprefix.config",
    "RunConfig": "polyprefix.config",
    "evaluate": "polyprefix.api",
    "load": "polyprefix.api",
    "load_adapter": "polyprefix.methods",
    "load_data": "polyprefix.api",
    "run": "polyprefix.study",
    "run_together": "polyprefix.study",
    "save_adapter": "polyprefix.methods",
    "train": "polyprefix.api",
}

__all__ = [
    "AdaptedModel",
    "PolyprefixError",
    "RunConfig",
    "evaluate",
    "load",
    "load_adapter",
    "load_data",
    "run",
    "run_together",
    "save_adapter",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'polyprefix' has no attribute {name!r}")
