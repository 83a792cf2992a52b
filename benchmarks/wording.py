"""How figures are said, on the console and on the page."""

from __future__ import annotations

from typing import Any

MEMORY = "peak MiB beyond the libraries"
"""Where a result keeps the peak memory of each side."""


def named(case: dict[str, Any]) -> str:
    """Texts as they are, numbers with what they are of."""
    return " ".join(v if isinstance(v, str) else f"{k}={v}" for k, v in case.items())


def short(value: Any) -> str:
    """Three digits of a number; everything of a dictionary."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def said(values: dict[str, Any]) -> str:
    """A dictionary in one line."""
    return "; ".join(f"{key} {short(value)}" for key, value in values.items())
