"""Which layers carry a prefix: ``upper``, ``all``, ``last:30``, ``first:4``, ``every:2`` or a list.

``upper``, the default of most methods, is what the papers do with prefixes: all but the lowest two
(30 of 32 in a 7B or 8B model, arXiv 2303.16199 and 2510.24619). The lowest layers see the words of
one language, the upper ones more of what was meant. On ``polyprefix/nano``, which has five, LoRA in
all layers learns English topics better (0.72 of SIB-200's dev split against 0.65) and carries less
of it to other languages (0.55 of Polytopics' sentences against 0.61; ``pretraining/LOG.md``).
LLaMA-Adapter, which adds to what is there and does not compete with it, is no worse in all layers,
its default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from polyprefix.config import ConfigError

Layers = str | tuple[int, ...]

LOWEST = 2
"""Layers below the ``upper`` ones."""


def parse_layers(layers: Layers, num_layers: int) -> list[int]:
    """Layer indices, ascending.

    Args:
        layers: ``all``; ``upper``: all but the lowest two, in a model of fewer than four all;
            ``first:n``; ``last:n``; ``every:n`` (0, n, 2n, ...); or indices from 0, negative ones
            counted from the end.
        num_layers: L.

    Raises:
        ConfigError: not of that form, or a layer the model does not have.
    """
    if isinstance(layers, str):
        return _parse_text(layers, num_layers)
    return _checked(layers, num_layers)


def _parse_text(text: str, num_layers: int) -> list[int]:
    if text == "all":
        return list(range(num_layers))
    if text == "upper":
        return list(range(LOWEST if num_layers >= 2 * LOWEST else 0, num_layers))
    if match := re.fullmatch(r"(first|last|every):([0-9]+)", text):
        kind, count = match[1], int(match[2])
        if count == 0:
            raise ConfigError(f"layers {text!r}: the number must be positive")
        if kind == "every":
            return list(range(0, num_layers, count))
        if count > num_layers:
            raise ConfigError(f"layers {text!r}: the model has {num_layers} layers")
        return (
            list(range(count)) if kind == "first" else list(range(num_layers - count, num_layers))
        )
    parts = text.split(",")
    if all(re.fullmatch(r"\s*-?[0-9]+\s*", part) for part in parts):
        return _checked([int(part) for part in parts], num_layers)
    raise ConfigError(
        f"layers {text!r}: expected all, upper, first:n, last:n, every:n, or layer numbers such as "
        "0,5,11"
    )


def _checked(indices: Sequence[int], num_layers: int) -> list[int]:
    if not indices:
        raise ConfigError("layers: the list is empty")
    for index in indices:
        if not -num_layers <= index < num_layers:
            raise ConfigError(f"layers: there is no layer {index}; the model has {num_layers}")
    chosen = sorted({index % num_layers for index in indices})
    if len(chosen) != len(indices):
        raise ConfigError(f"layers: a layer is named twice in {list(indices)}")
    return chosen
