"""The model families, from their registry."""

from __future__ import annotations

from docs.generate.text import code, table
from polyprefix.models import Family, families

EXAMPLES = {
    "llama": "Llama 2 to 3.2, `polyprefix/nano`",
    "mistral": "Mistral 7B, Mistral Small",
    "qwen2": "Qwen 2, Qwen 2.5",
    "qwen3": "Qwen 3",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3, text only",
    "gpt2": "GPT-2",
    "gpt_neox": "Pythia, GPT-NeoX",
    "xglm": "XGLM",
    "bloom": "BLOOM",
}
"""Models of a family, for people who know those. A test asks that every family is here."""


def documented() -> dict[str, Family]:
    """The families of this package."""
    return {k: v for k, v in families().items() if v.project.__module__.startswith("polyprefix.")}


def table_of() -> str:
    """A row a family."""
    rows = []
    for name, family in documented().items():
        if family.rotary is not None:
            positions = "rotary"
        else:
            positions = "ALiBi" if family.alibi else POSITIONS[name]
        sliding = "some layers" if family.tiny.get("sliding_window") else ""
        rows.append(
            (
                code(name),
                EXAMPLES[name],
                positions,
                sliding,
                ", ".join(map(code, family.lora_targets)),
            )
        )
    columns = (
        "`model_type`",
        "for instance",
        "positions",
        "sliding windows",
        "LoRA's default targets",
    )
    return table(columns, rows)


POSITIONS = {
    "gemma3_text": "rotary, one for each kind of layer",
    "gpt2": "learned",
    "xglm": "sinusoidal",
}
"""Where a family has no rotary embedding that all layers share, and no ALiBi."""
