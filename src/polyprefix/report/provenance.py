"""What runs cost, and what they came from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from statistics import mean
from typing import Any

from polyprefix.analysis import Setting, language_scores, mean_calibrated
from polyprefix.report.console import number, signed
from polyprefix.report.group import Group


@dataclass(frozen=True, slots=True)
class Cost:
    """A setting's row of the cost table; times and scores are means over its seeds.

    ``label``: its name in configurations, where that is not ``name``.
    """

    name: str
    label: str
    parameters: str
    share: str
    training: str
    evaluation: str
    memory: str
    dev: str
    source: str
    target: str
    spread: str
    calibrated: str
    gap: str
    best: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting's configuration, with its runs."""

    name: str
    runs: list[tuple[int, str, str]]
    config: str


def costs(group: Group) -> list[Cost]:
    """The cost table, in the order of the settings."""
    found = [s.target for s in group.settings if s.target is not None]
    # Of one method, and where all are the same, none is best.
    top = max(found) if len(set(found)) > 1 else None
    return [
        _cost(
            setting, group.shown[name], name, setting.target is not None and setting.target == top
        )
        for setting, name in zip(group.settings, group.names, strict=True)
    ]


def _cost(setting: Setting, name: str, label: str, best: bool) -> Cost:
    records = [run.record for run in setting.runs]
    parameters = records[0]["trainable_parameters"]
    training = [r["training"]["seconds"] for r in records if "training" in r]
    memory = [r["peak_memory_bytes"] for r in records if r.get("peak_memory_bytes") is not None]
    calibrated = [
        value
        for r in records
        if (value := mean_calibrated([w for w in language_scores(r) if not w.source])) is not None
    ]
    return Cost(
        name=name,
        label=label if label != name else "",
        parameters=f"{parameters:,}",
        share=_percent(parameters / records[0]["model"]["parameters"]),
        training=f"{mean(training):,.1f}" if training else "",
        evaluation=f"{mean(r['evaluation']['seconds'] for r in records):,.1f}",
        memory=f"{max(memory) / 2**20:,.0f}" if memory else "",
        dev=number(setting.dev),
        source=number(setting.source),
        target=number(setting.target),
        spread=number(setting.spread) if training else "",
        calibrated=number(mean(calibrated)) if calibrated else "",
        gap="" if setting.gap is None else signed(setting.gap),
        best=best,
    )


def _percent(share: float) -> str:
    """Two digits of what is small: ``0.0016%``, ``2.5%``, ``100%``."""
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 10 else f"{Decimal(f'{percent:.2g}'):f}%"


def partly_scored(group: Group) -> bool:
    """Whether a run was interrupted while it scored: its seconds are then those of a part."""
    return any(
        r["evaluation"]["examples_scored"] < sum(scores["n"] for scores in r["scores"].values())
        for r in group.records
    )


def together(group: Group) -> bool:
    """Whether runs were trained together: each then has its share of the time, and all memory."""
    return any("together" in record for record in group.records)


def facts(group: Group) -> list[tuple[str, str]]:
    """What the runs of a group have in common, or all values where they differ."""
    records = group.records
    task = records[0]["task"]
    sizes = task["sizes"]["test"].values()
    return [
        ("Task", f"{task['title']} ({task['name']})"),
        ("Score", group.headline),
        ("Data", _all(r["task"]["data_revision"] for r in records)),
        ("Test examples of a language", _all(sorted({*sizes}))),
        ("Prompt", _all(f"{r['task']['prompt']['version']}" for r in records)),
        ("Prompt's template", _all(r["task"]["prompt"]["template"] for r in records)),
        ("Model", _all(r["model"]["name"] for r in records)),
        ("Model's revision", _all(r["model"]["revision"] for r in records)),
        ("Model's parameters", _all(f"{r['model']['parameters']:,}" for r in records)),
        ("Precision", _all(r["model"]["dtype"] for r in records)),
        ("Device", _all(r["model"]["device"] for r in records)),
        ("Commit", _all(r["commit"] or "an installed package" for r in records)),
        ("System", _all(r["machine"]["system"] for r in records)),
        ("Processors", _all(r["machine"]["cpus"] for r in records)),
        *((f"Note: {note.partition(':')[0]}", note) for note in task.get("notes", [])),
    ]


def versions(group: Group) -> list[tuple[str, str]]:
    """Of the packages."""
    found = [record["versions"] for record in group.records]
    names = dict.fromkeys(name for each in found for name in each)
    return [(name, _all(each.get(name) or "not installed" for each in found)) for name in names]


def origins(group: Group) -> list[Origin]:
    """Configurations without their seeds, which are those of the runs."""
    found = []
    for setting, name in zip(group.settings, group.names, strict=True):
        runs = [run.record for run in setting.runs]
        config = {key: value for key, value in runs[0]["config"].items() if key != "seed"}
        found.append(
            Origin(
                group.shown[name],
                [(r["identity"]["seed"], r["id"], r.get("started", "")) for r in runs],
                json.dumps(config, indent=2, ensure_ascii=False),
            )
        )
    return found


def _all(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
