"""The learning rate as a factor on its peak."""

from __future__ import annotations

import math


def factor(kind: str, step: int, steps: int, warmup: float) -> float:
    """Factor at optimizer step ``step`` (from 0) of ``steps``.

    Rises linearly over the first ``warmup`` share of the steps, then stays (``constant``), falls to
    zero along a line (``linear``) or half a cosine (``cosine``)."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if kind == "constant":
        return 1.0
    done = (step - rising) / max(steps - rising, 1)
    return 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
