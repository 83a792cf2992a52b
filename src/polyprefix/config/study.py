"""A study: a grid of runs over anything that a run's configuration has.

::

    name: layers-and-length
    title: Adapted layers and prefix length
    base:                                   # what all runs have
      model: {name: meta-llama/Llama-3.1-8B, dtype: bfloat16}
      task: {name: belebele}
    grid:                                   # what varies: every combination is a run
      method: [{name: soft_prompt, length: 20}, {name: lora}]
      train.learning_rate: [3.0e-3, 1.0e-3]
      seed: [0, 1, 2]
    select: [train.learning_rate]           # of these the best on source-language dev is reported

A value that is a mapping is laid over what the base has there, so keys that go together stand
together. ``cases`` is an axis whose mappings are laid over the whole configuration. A grid may be a
list of grids, whose runs come one after another; a run that comes twice is one run.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from polyprefix.config.errors import ConfigError
from polyprefix.config.files import Place, override, parse_values, put, read_yaml, yaml_lines
from polyprefix.config.identity import digest
from polyprefix.config.run import RunConfig
from polyprefix.config.spec import Spec
from polyprefix.config.text import Line

CASES = "cases"
"""The axis whose mappings are laid over the whole configuration."""

Axes = dict[str, Annotated[list[Any], Field(min_length=1)]]
Change = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From a run's values to others, or ``None``: the run is left out."""


class StudyConfig(Spec):
    """A study, as its file says it. ``paper``, ``reports``, ``unknown`` and ``chosen`` are shown by
    the report."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the folder of its runs: letters, digits, ``.``, ``_`` and ``-``."""
    title: Line
    """For people."""
    paper: str = ""
    """Whose experiment it is."""
    reports: str = ""
    """What the paper reports."""
    unknown: str = ""
    """What it would take to repeat it and is not known."""
    chosen: str = ""
    """What was chosen instead."""
    base: dict[str, Any] = Field(default_factory=dict)
    """What all runs have: any part of a run's configuration."""
    grid: tuple[Axes, ...]
    """What varies: a key, dotted, and its values; every combination is a run. A list of grids is
    one after another. The axis ``cases`` lays mappings over the whole configuration."""
    select: tuple[str, ...] = ()
    """Keys that vary and of whose values the best on the source language's dev split is
    reported."""

    @model_validator(mode="before")
    @classmethod
    def _one_grid(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("grid"), dict):
            return values | {"grid": [values["grid"]]}
        return values

    @model_validator(mode="after")
    def _select_varies(self) -> Self:
        leaves = {leaf for axes in self.grid for leaf in _leaves(axes)}
        for key in self.select:
            if key not in leaves:
                raise ValueError(
                    f"key 'select': {key!r} does not vary; the grid has {', '.join(sorted(leaves))}"
                )
        return self


def _leaves(axes: Axes) -> Iterator[str]:
    """The dotted keys that a grid sets."""
    for name, values in axes.items():
        for value in values:
            yield from (path for path, _, _ in _flat("" if name == CASES else name, value, ()))


def _flat(path: str, value: Any, source: Place) -> Iterator[tuple[str, Any, Place]]:
    """The dotted keys of a value, what they are set to, and where they stand in the file."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner, (*source, str(key)))
    else:
        yield path, value, source


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of a study.

    Attributes:
        config: its configuration.
        labels: of the dotted keys that vary in the study, those that this run has.
        key: names the configuration; where runs are written and ``runtime`` are not in it.
    """

    config: RunConfig
    labels: dict[str, Any]
    key: str

    @property
    def label(self) -> str:
        """The labels in one line."""
        return ", ".join(f"{key}={value}" for key, value in self.labels.items())

    @property
    def name(self) -> str:
        """The label, or what to call a run that has none."""
        return self.label or "the only run"

    @property
    def short_label(self) -> str:
        """The same for a column of a table: keys without their sections."""
        return ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in self.labels.items())


@dataclass(frozen=True)
class Study:
    """A study and its runs, in the order of the grid.

    Attributes:
        config: what the file says.
        where: the file.
        runs: without those that came twice or were left out.
    """

    config: StudyConfig
    where: str
    runs: list[StudyRun]


@dataclass(frozen=True)
class StudyFile:
    """A study's file, read. ``lines``: of its keys, for messages."""

    config: StudyConfig
    where: str
    lines: Mapping[Place, int]


def read_study(path: Path) -> StudyFile:
    """Read a study's file.

    Raises:
        ConfigError: with file and line: it is not YAML, a key is unknown, missing or there twice,
            or a value is wrong.
    """
    values = read_yaml(path)
    lines = yaml_lines(path)
    if isinstance(values.get("grid"), dict):  # as the model reads it: a list of one grid
        lines |= {("grid", 0, *key[1:]): line for key, line in lines.items() if key[0] == "grid"}
    return StudyFile(StudyConfig.read(values, str(path), lines), str(path), lines)


def expand(
    file: StudyFile,
    *,
    output: str,
    settings: Iterable[str] = (),
    change: Change = lambda values: values,
) -> Study:
    """The runs of a study: every combination of its grid, without those that come twice.

    Args:
        file: the study.
        output: folder of its runs.
        settings: ``key=value``, laid over every run in the end.
        change: what is done before to the values of every run, which are valid.

    Raises:
        ConfigError: with file and line: an unknown key of a run, a wrong value, or a key that would
            be laid over something that holds no keys.
    """
    settings = list(settings)
    runs: dict[str, RunConfig] = {}
    for values, origins in _combinations(file):
        lines: dict[Place, int] = {
            tuple(key.split(".")): file.lines[at] for key, at in origins.items() if at in file.lines
        }
        RunConfig.read(values, file.where, lines)
        changed = change(values)
        if changed is not None:
            final = override(changed, settings) | {"output": output}
            run = RunConfig.read(final, file.where, lines)
            runs.setdefault(run_key(run), run)
    return Study(file.config, file.where, _labelled(file.config, runs))


def sweep(values: Mapping[str, Any], sweeps: Iterable[str], where: str = "") -> list[StudyRun]:
    """The runs of ``key=value,value...``, every combination, without a study's file.

    Args:
        values: what all runs have.
        sweeps: keys with their values.
        where: the file that ``values`` are of.

    Raises:
        ConfigError: a sweep of another form, a key that comes twice, or a run that cannot be.
    """
    axes: Axes = {}
    for text in sweeps:
        path, separator, given = text.partition("=")
        if not separator or not path:
            raise ConfigError(f"--sweep {text!r}: expected key=values, as in seed=0,1,2")
        if path in axes:
            raise ConfigError(f"--sweep {text!r}: there is a sweep of {path!r} already")
        axes[path] = parse_values(given)
        put(override(values, []), path, axes[path][0])
    config = StudyConfig(name="sweep", title="Sweep", base=dict(values), grid=(axes,))
    return expand(StudyFile(config, where, {}), output=values.get("output", "runs")).runs


def run_key(config: RunConfig) -> str:
    """Names a configuration, whatever it is computed with and wherever it is written."""
    # Without what is left out, a version that knows more keys finds the runs of this one.
    exclude: Any = {"output": True, "runtime": True, "model": {"offload"}}
    return digest(config.model_dump(mode="json", exclude=exclude, exclude_none=True))[:12]


def _combinations(
    file: StudyFile,
) -> Iterator[tuple[dict[str, Any], dict[str, Place]]]:
    """The values of each run, and for each of their dotted keys the place it has in the file."""
    base = list(_flat("", file.config.base, ("base",))) if file.config.base else []
    for number, axes in enumerate(file.config.grid):
        choices = [
            [
                list(_flat("" if name == CASES else name, value, ("grid", number, name, place)))
                for place, value in enumerate(values)
            ]
            for name, values in axes.items()
        ]
        for combination in itertools.product(*choices):
            values: dict[str, Any] = {}
            origins: dict[str, Place] = {}
            for path, value, source in [*base, *itertools.chain.from_iterable(combination)]:
                try:
                    if any(key.startswith(f"{path}.") for key in origins):
                        raise ConfigError("keys below it would be lost")
                    put(values, path, value)
                except ConfigError:
                    line = file.lines.get(source)  # a sweep has none, nor what a merge (<<) adds
                    place = file.where if line is None else f"{file.where}, line {line}"
                    raise ConfigError(
                        f"{place or 'sweep'}: key {path!r}: a value and keys below it exclude each "
                        "other"
                    ) from None
                origins[path] = source
            yield values, origins


def _labelled(config: StudyConfig, runs: Mapping[str, RunConfig]) -> list[StudyRun]:
    """Runs with the keys that vary among them."""
    keys = dict.fromkeys(leaf for axes in config.grid for leaf in _leaves(axes))
    found = {key: {leaf: _value(run, leaf) for leaf in keys} for key, run in runs.items()}
    varying = [leaf for leaf in keys if len({json.dumps(own[leaf]) for own in found.values()}) > 1]
    return [
        StudyRun(run, {leaf: own for leaf in varying if (own := found[key][leaf]) is not None}, key)
        for key, run in runs.items()
    ]


def _value(config: RunConfig, path: str) -> Any:
    """The value at a dotted key, ``None`` where the run has no such key."""
    value: Any = config.model_dump(mode="json")
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
