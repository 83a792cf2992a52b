"""What the pages of methods show of the code: keys, sizes, rates, what PEFT can hold."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from docs.generate import configuration
from docs.generate.text import ROOT, code, linked, table
from polyprefix.methods import REFERENCE_WIDTH, AdaptedModel, Adapter, get_method, methods
from polyprefix.models import PACKAGED, Backbone

SHAPES: dict[str, dict[str, Any]] = {
    "Llama 3.2 1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "Llama 3.1 8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
"""Sizes of models whose trainable parameters are counted, beside the packaged one's."""

ORDER = ("soft_prompt", "prefix_tuning", "llama_adapter", "lora", "bottleneck", "full", "none")
"""In tables: the methods that the package is about, then what they are compared with."""

PREFIX_OF_OURS = "polyprefix."


def documented() -> dict[str, type[Adapter]]:
    """The methods of this package, without those of others that are installed beside it."""
    ours = {k: v for k, v in methods().items() if v.__module__.startswith(PREFIX_OF_OURS)}
    return dict(sorted(ours.items(), key=lambda item: (*ORDER, item[0]).index(item[0])))


def diagram(name: str) -> str:
    """The drawing of a method, as part of the page: it takes the page's colours."""
    path = ROOT / "docs" / "assets" / "methods" / f"{name}.svg"
    return f'<figure class="diagram" markdown="0">\n{_drawing(path)}\n</figure>'


def _drawing(path: Path) -> str:
    return re.sub(r"<!--.*?-->\s*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL).strip()


def facts(name: str, formula: str) -> str:
    """What a method is, in a table."""
    method = get_method(name)
    config = method.Config()
    rate = method.reference_learning_rate(config)
    rows = [
        ("Name in configurations", code(name)),
        ("Paper", linked(method.paper)),
        ("Trainable parameters", formula if formula == "all" else code(formula)),
        *((f"— {model}, defaults", f"{count:,}") for model, count in counts(name).items()),
        ("Logits at the start are the backbone's", _no_op(method)),
        ("Default learning rate", _rate(rate) if rate else "—"),
        ("PEFT's name", code(method.peft_type) if method.peft_type else "none"),
        ("Rows of one batch may carry different ones", "yes" if method.mixes(config) else "no"),
    ]
    return table(("", ""), rows)


def _no_op(method: type[Adapter]) -> str:
    """For the defaults, and for the other configurations that the conformance suite covers."""
    by_default = method.claims_no_op(method.Config())
    others = [
        options
        for options in method.conformance
        if method.claims_no_op(method.Config(**options)) != by_default
    ]
    text = "yes, exactly" if by_default else "no"
    if others:
        start = others[0].get("initialization")
        text += f"; with `initialization: {start}` {'no' if by_default else 'yes, exactly'}"
    return text


def _rate(rate: float) -> str:
    return f"{rate:g} · {REFERENCE_WIDTH}/d"


def keys(name: str) -> str:
    """A method's keys with their defaults."""
    method = get_method(name)
    if not method.Config.model_fields:
        return f"`{name}` has no keys.\n"
    return configuration.keys(method.Config, "method.")


@cache
def _backbones() -> dict[str, Backbone]:
    """Models without weights."""
    configs = {"polyprefix/nano": AutoConfig.from_pretrained(PACKAGED["polyprefix/nano"])}
    configs |= {name: AutoConfig.for_model("llama", **shape) for name, shape in SHAPES.items()}
    with torch.device("meta"):
        models = {
            name: AutoModelForCausalLM.from_config(config) for name, config in configs.items()
        }
    return {name: Backbone(model, name=name) for name, model in models.items()}


@cache
def _counted() -> dict[str, dict[str, int]]:
    """Trainable parameters with defaults, by method and model. What tunes the backbone comes last:
    nothing else can be attached to it afterwards."""
    names = sorted(documented(), key=lambda name: name == "full")
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    for name in names:
        for model, backbone in _backbones().items():
            adapted = AdaptedModel(backbone)
            found[name][model] = adapted.attach({"name": name}, restore=True).num_trainable()
            adapted.detach()
    return found


def counts(name: str) -> dict[str, int]:
    """Trainable parameters of a method with its defaults, by model."""
    return _counted()[name]


def table_of_rates() -> list[tuple[str, ...]]:
    """Of every method that trains: the rule, and what it gives for some widths."""
    return [
        (
            f"[`{name}`](../methods/{name}.md)",
            _rate(method.reference_learning_rate(config)),
            *(f"{method.default_learning_rate(config, width):.2g}" for width in WIDTHS),
        )
        for name, method in documented().items()
        if method.trains
        for config in [method.Config()]
    ]


WIDTHS = (192, 1024, 2048, 4096)


def rates() -> str:
    """Default learning rates by width."""
    return table(("method", "rule", *(f"d = {width:,}" for width in WIDTHS)), table_of_rates())


def parameters() -> str:
    """Trainable parameters with defaults, by model."""
    rows = [
        (f"[`{name}`](../methods/{name}.md)", *(f"{count:,}" for count in counts(name).values()))
        for name in documented()
    ]
    return table(("method", *_backbones()), rows)


def overview() -> str:
    """All methods, for the page that leads to theirs."""
    rows = [
        (
            f"[`{name}`]({name}.md)",
            method.title,
            ", ".join(code(key) for key in method.Config.model_fields) or "none",
            linked(method.paper),
        )
        for name, method in documented().items()
    ]
    return table(("name", "method", "keys", "paper"), rows)
