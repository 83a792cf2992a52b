"""Arguments that name a run, for all commands that take one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from polyprefix.config import ConfigError, override, put, read_yaml

Config = Annotated[Path | None, typer.Argument(help="A YAML configuration; options go over it.")]
Model = Annotated[str | None, typer.Option(help="Hub name or folder; polyprefix/nano is packaged.")]
Method = Annotated[str | None, typer.Option(help="See 'polyprefix list methods'.")]
Task = Annotated[str | None, typer.Option(help="See 'polyprefix list tasks'.")]
Data = Annotated[str | None, typer.Option(help="The task's folder; without it, the hub is read.")]
TrainData = Annotated[
    str | None, typer.Option(help="A file to train on, instead of the task's own.")
]
Languages = Annotated[
    str | None,
    typer.Option(help="all, or names and groups: sw,tr,family:Uralic,script:Cyrl,-en"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any key: --set train.steps=200. May be repeated."),
]


def run_values(
    config: Path | None,
    given: Mapping[str, Any],
    settings: Sequence[str] | None,
    swept: Sequence[str] = (),
) -> dict[str, Any]:
    """The values of a run's configuration.

    Args:
        config: a file, or none.
        given: values by the path of their key, ``None`` where there is none; they go over the
            file's.
        settings: ``key=value``; they go over all.
        swept: sections that a sweep gives.

    Raises:
        ConfigError: there is no model, method or task; or a setting is wrong.
    """
    values = override({} if config is None else read_yaml(config), [])
    for path, value in given.items():
        if value is not None:
            put(values, path, value)
    values = override(values, settings or [])
    for section, option in (("model", "--model"), ("method", "--method"), ("task", "--task")):
        if section not in values and section not in swept:
            raise ConfigError(f"no {section}: give {option}, or a configuration file that has one")
    return values
