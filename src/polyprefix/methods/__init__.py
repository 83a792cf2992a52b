"""Adaptation methods, one file each, and the model they are attached to."""

from polyprefix.methods import (
    bottleneck,
    full,
    llama_adapter,
    lora,
    none,
    prefix_tuning,
    soft_prompt,
)
from polyprefix.methods.adapted import AdaptedModel, Output
from polyprefix.methods.base import (
    REFERENCE_WIDTH,
    Adapter,
    MethodConfig,
    NotInPeft,
    Setting,
    check_frozen,
    get_method,
    method_config,
    method_of,
    methods,
    register_method,
)
from polyprefix.methods.layers import parse_layers
from polyprefix.methods.saved import SavedConfig
from polyprefix.methods.storage import (
    described,
    find_adapter,
    for_peft,
    load_adapter,
    save_adapter,
    save_for_peft,
)

__all__ = [
    "REFERENCE_WIDTH",
    "AdaptedModel",
    "Adapter",
    "MethodConfig",
    "NotInPeft",
    "Output",
    "SavedConfig",
    "Setting",
    "bottleneck",
    "check_frozen",
    "described",
    "find_adapter",
    "for_peft",
    "full",
    "get_method",
    "llama_adapter",
    "load_adapter",
    "lora",
    "method_config",
    "method_of",
    "methods",
    "none",
    "parse_layers",
    "prefix_tuning",
    "register_method",
    "save_adapter",
    "save_for_peft",
    "soft_prompt",
]
