"""What a run has left, without what differs from one time to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load

VOLATILE = ("started", "finished", "evaluation", "peak_memory_bytes")


def outcome(folder: Path) -> dict[str, Any]:
    """Every file of a run by its name: weights and predictions as bytes, the record and the log
    without times. Two runs of one configuration have the same, whatever happened on the way."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    record = json.loads(found["record.json"])
    for key in VOLATILE:
        record.pop(key)
    record.get("training", {}).pop("seconds", None)
    config = json.loads(found["config.json"])
    for values in (record["config"], config):
        del values["output"]
    found["record.json"], found["config.json"] = record, config
    if "log.jsonl" in found:
        entries = [json.loads(line) for line in found["log.jsonl"].splitlines()]
        for entry in entries:
            del entry["seconds"]
        found["log.jsonl"] = entries
    return found


def runs_in(output: Path) -> list[Path]:
    """The folders of runs."""
    return sorted(path.parent for path in output.glob("*/record.json"))


def outcomes(output: Path) -> dict[str, dict[str, Any]]:
    """Of all runs in a folder, by their names."""
    return {path.name: outcome(path) for path in runs_in(output)}


def marks(output: Path) -> dict[str, int]:
    """When each file that is not to be made again was written: predictions, finished records."""
    found = list(output.glob("*/predictions/*.jsonl"))
    found += [
        path
        for path in output.glob("*/record.json")
        if json.loads(path.read_text())["status"] == "finished"
    ]
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in found}


def close(found: Any, expected: Any) -> bool:
    """Whether outcomes are the same but for rounding: runs that are trained together are laid out
    in other batches when one of them is some steps behind. ``together`` may differ, too: what was
    finished is not trained with again."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = (found.keys() | expected.keys()) - {"together"}
        missing = object()
        return all(close(found.get(n, missing), expected.get(n, missing)) for n in names)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) < 1e-4
    if isinstance(found, bytes) and isinstance(expected, bytes) and found != expected:
        return close(_parsed(found), _parsed(expected))
    return bool(found == expected)


def _parsed(content: bytes) -> Any:
    if content.startswith(b"{"):
        return [json.loads(line) for line in content.splitlines()]
    return {name: tensor.tolist() for name, tensor in load(content).items()}


def steps_kept(output: Path) -> dict[str, list[bytes]]:
    """The lines of each run's log, with their times, of the steps that are behind its newest
    checkpoint: these are not to be done again."""
    found = {}
    for log in output.glob("*/log.jsonl"):
        steps = [int(path.name) for path in log.parent.glob("checkpoints/[0-9]*")]
        found[log.parent.name] = log.read_bytes().splitlines()[: max(steps, default=0)]
    return found
