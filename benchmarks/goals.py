"""What the benchmarks are to reach, and whether a line did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TRAINING: dict[tuple[str, int], dict[str, float]] = {
    ("train_shared", 32000): {"ratio": 8, "memory": 1 / 2},
    ("train_shared", 128000): {"ratio": 18, "memory": 1 / 5},
    ("train_short", 32000): {"ratio": 3},
    ("train_short", 128000): {"ratio": 6},
}
"""Of prefix tuning and LLaMA-Adapter, by benchmark and vocabulary: how many times as many examples
a second as PEFT, and which share of its peak memory at most."""

PREFIXES = ("prefix_tuning", "llama_adapter")

OTHERS = 3 / 4
"""LoRA and soft prompts: this share of the ratio that prefix tuning has in the same measurement."""

EVALUATION = {
    ("score", "xnli"): 5.0,
    ("score", "sib200"): 5.0,
    ("score", "belebele"): 5.0,
    ("generate", "xquad"): 5.0,
    ("generate", "mgsm"): 2.0,
}
"""Examples a second as a multiple of the harness's, by benchmark and task."""

FLOOR = 1 / 1.1
"""A training step takes a tenth longer than its floor at most."""


def with_goals(benchmark: str, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summaries of results with their ``goal``: the least ``ratio``, the largest share of
    ``memory`` where there is such a goal, and whether both were ``met`` by sides that agree.
    ``None``: no goal was set for that case, as for models of users."""
    return [line | {"goal": _goal(benchmark, line, lines)} for line in lines]


def _goal(
    benchmark: str, line: dict[str, Any], lines: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    case = line["case"]
    if "V" not in case:
        return None
    wanted: dict[str, float] = {}
    if benchmark == "floor":
        wanted = {"ratio": FLOOR}
    elif (benchmark, case.get("task")) in EVALUATION:
        wanted = {"ratio": EVALUATION[benchmark, case["task"]]}
    elif (benchmark, case["V"]) in TRAINING:
        wanted = TRAINING[benchmark, case["V"]]
        if case["method"] not in PREFIXES:
            alike = case | {"method": "prefix_tuning"}
            prefix = [other["ratio"] for other in lines if other["case"] == alike]
            wanted = {"ratio": OTHERS * prefix[0]} if prefix else {}
    if not wanted:
        return None
    met = bool(line["agrees"]) and line["ratio"] >= wanted["ratio"]
    if "memory" in wanted:
        measured = line["memory_ratio"]
        met = met and measured is not None and measured <= wanted["memory"]
    return {**wanted, "met": met}
