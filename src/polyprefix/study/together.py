"""Several runs in one process: what they share is loaded once, and their adapters are trained at
once.

Runs of ``full``, and of other methods that tune the backbone itself, have no backbone to share:
they run after the others, one by one, each on a backbone that is loaded anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyprefix.config import ConfigError, PolyprefixError, RunConfig, RunLocked
from polyprefix.distributed import joined, world
from polyprefix.methods import method_config
from polyprefix.results import Progress, RunFolder, Silent
from polyprefix.study.kept import Kept
from polyprefix.study.prepare import Prepared, prepare
from polyprefix.study.run import execute_together

OWN = {"method", "seed", "train"}
"""Sections of the configuration in which runs that go together may differ."""


def run_together(
    configs: Sequence[RunConfig], *, again: bool = False, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Execute runs that differ in method, seed or ``train`` only, or continue them.

    Each leaves the files it would leave by itself; ``together`` in its record names the runs it was
    trained with. Up to ``runtime.together`` are trained at once, those of one
    ``train.mixed_precision``. What is finished is left as it is.

    Args:
        configs: what to run. Those that come to the same run are run once.
        again: remove what earlier runs of these configurations left, and run anew.
        progress: shown what is going on.

    Returns:
        The runs' records, in the order of ``configs``. A run that failed has a record that says so
        and why; the others go on.

    Raises:
        ConfigError: they differ in something else, or a method's keys are wrong.
        RunLocked: another process is working on one; the others are done.
        PolyprefixError: data or model cannot be loaded, or nothing can be written.
    """
    with joined() as here:
        progress = progress if progress is not None and here.main else Silent()
        return _run_together(configs, again, progress)


def _run_together(
    configs: Sequence[RunConfig], again: bool, progress: Progress
) -> list[dict[str, Any]]:
    _check(configs)
    kept = Kept()
    runs = [
        _plan(config, Silent() if number else progress, kept)
        for number, config in enumerate(configs)
    ]
    locked: list[RunLocked] = []
    records: dict[str, dict[str, Any]] = {}
    for group in _groups(runs, again):
        if len(group) > 1:
            progress.say(f"{len(group)} runs together")
        outcomes = execute_together(
            [_prepared(run.config, Silent(), kept) for run in group], again=again, progress=progress
        )
        for run, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, RunLocked):
                locked.append(outcome)
            elif isinstance(outcome, PolyprefixError):
                records[run.folder.id] = run.folder.record()  # it says why
            else:
                records[run.folder.id] = outcome
    if locked:
        raise locked[0]
    return [records[run.folder.id] for run in runs]


@dataclass(frozen=True)
class _Planned:
    """A run, where it is written, and whether its adapter can share a backbone with others. It
    holds no backbone: one that has been tuned is loaded anew, and two may not fit."""

    config: RunConfig
    folder: RunFolder
    mixes: bool


def _plan(config: RunConfig, progress: Progress, kept: Kept) -> _Planned:
    prepared = _prepared(config, progress, kept)
    return _Planned(config, prepared.folder, prepared.adapter_type.mixes(prepared.method))


def _prepared(config: RunConfig, progress: Progress, kept: Kept) -> Prepared:
    return world().each(lambda: prepare(config, progress, kept))


def _check(configs: Sequence[RunConfig]) -> None:
    for config in configs:
        method_config(config.method)  # before anything is loaded
    dumps = [config.model_dump(mode="json", exclude=OWN) for config in configs]
    for number, dump in enumerate(dumps[1:], start=2):
        for section, values in dump.items():
            first = dumps[0][section]
            nested = isinstance(values, dict)
            for key, value in values.items() if nested else [("", values)]:
                expected = first[key] if nested else first
                if value != expected:
                    raise ConfigError(
                        f"key {f'{section}.{key}' if nested else section!r}: {expected!r} in the "
                        f"first run and {value!r} in run {number}. Runs that go together differ in "
                        "method, seed and train only; 'polyprefix study run' takes any"
                    )


def _groups(runs: Sequence[_Planned], again: bool) -> list[list[_Planned]]:
    """Each run once: the finished ones, then those that are trained together, then the rest."""
    unique = list({run.folder.id: run for run in runs}.values())
    finished, alone = [], []
    by_precision: dict[str, list[_Planned]] = {}
    for run in unique:
        if not again and run.folder.finished():
            finished.append(run)
        elif run.mixes:
            by_precision.setdefault(run.config.train.mixed_precision, []).append(run)
        else:
            alone.append([run])
    most = runs[0].config.runtime.together if runs else 1
    if world().shards:  # all processes must differentiate a micro-batch down to the same layer
        most = 1
    together = [
        group[first : first + most]
        for group in by_precision.values()
        for first in range(0, len(group), most)
    ]
    return [*([finished] if finished else []), *together, *alone]
