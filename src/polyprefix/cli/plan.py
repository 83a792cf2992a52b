"""``polyprefix plan``: what a run will take of memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.text import Text

from polyprefix.cli import options
from polyprefix.cli.output import console, progress_on
from polyprefix.config import ConfigError, RunConfig, UnsupportedModel, put

if TYPE_CHECKING:
    from polyprefix.study import Plan

PLAN_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix plan examples/xnli-llama-adapter.yaml

  polyprefix plan --model polyprefix/nano --method full --task polytopics

  polyprefix plan examples/xnli-llama-adapter.yaml --memory 24GiB --set runtime.device=cuda \\
      --set runtime.gradient_checkpointing=true

Weights are not loaded. Where the run does not fit, changes are tried, and what each comes to is
shown. Exit status 1: it does not fit.
"""


def plan(
    config: options.Config = None,
    model: options.Model = None,
    method: options.Method = None,
    task: options.Task = None,
    data: options.Data = None,
    train_data: options.TrainData = None,
    languages: options.Languages = None,
    settings: options.Settings = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Of the device, where the run will not be on this machine: 24GiB."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Say what a run will take of memory, part by part, and whether it fits."""
    values = options.run_values(
        config,
        {
            "model.name": model,
            "method.name": method,
            "task.name": task,
            "task.data": data,
            "task.train_data": train_data,
            "task.languages": languages,
        },
        settings,
    )
    spec = RunConfig.read(values, where=str(config) if config else "")
    available = None if memory is None else _bytes(memory)

    from polyprefix.study import plan_run

    planned = plan_run(spec, available=available, progress=progress_on(quiet or as_json))
    others: list[tuple[str, Plan]] = []
    if planned.fits is False:
        for setting, changed in _changes(spec, trains=bool(planned.training)):
            with suppress(ConfigError, UnsupportedModel):  # not with this model, method or device
                others.append((setting, plan_run(changed, available=available)))
    if as_json:
        tried = [{"change": change, **other.as_dict()} for change, other in others]
        typer.echo(json.dumps(planned.as_dict() | {"changes": tried}, indent=2))
    else:
        show(planned, others, console())
    if planned.fits is False:
        raise typer.Exit(1)


def _bytes(text: str) -> int:
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size <= 0 or not text.strip()[-1].isalpha():  # a bare number would be bytes
        raise ConfigError(f"--memory {text!r}: give a number with its unit, such as 24GiB")
    return size


SMALL = 512
"""Tokens of a forward pass that are tried where more do not fit."""

ELSEWHERE = (
    ("model.quantization", "int8"),
    ("model.quantization", "nf4"),
    ("model.offload", "cpu"),
)
"""What takes weights out of the device's memory; one of these."""


def _changes(spec: RunConfig, *, trains: bool) -> list[tuple[str, RunConfig]]:
    """What takes less memory and is not so yet, each with those before it."""
    steps: list[dict[str, Any]] = []
    if trains and not spec.runtime.gradient_checkpointing:
        steps.append({"runtime.gradient_checkpointing": True})
    sizes = {"runtime.evaluation_batch_tokens": spec.runtime.evaluation_batch_tokens}
    if trains:
        sizes["runtime.micro_batch_tokens"] = spec.runtime.micro_batch_tokens or 2 * SMALL
    steps.append({key: SMALL for key, tokens in sizes.items() if tokens > SMALL})
    if spec.model.dtype == "float32":
        steps.append({"model.dtype": "bfloat16"})
    found: list[tuple[str, RunConfig]] = []
    values = spec.model_dump(mode="json")
    for step in filter(None, steps):
        for key, value in step.items():
            put(values, key, value)
        text = ", ".join(f"{key}={str(value).lower()}" for key, value in step.items())
        found.append(("... and " * bool(found) + text, RunConfig.read(values)))
    if spec.model.quantization is None and spec.model.offload == "none":
        before = "... and " * bool(found)
        for number, (key, value) in enumerate(ELSEWHERE):
            other = deepcopy(values)
            put(other, key, value)
            text = f"{before}{key}={value}{' in its place' * bool(number)}"
            found.append((text, RunConfig.read(other)))
    return found


def show(planned: Plan, others: Sequence[tuple[str, Plan]], out: Console) -> None:
    """Print a plan, and what changes come to."""
    from polyprefix.report import new_table, plain

    out.print(plain(f"{planned.method} on {planned.model}, {planned.device}", style="bold"))
    share = planned.trainable / planned.parameters
    out.print(
        Text(f"{planned.parameters:,} parameters; {planned.trainable:,} are trained ({share:.3%})")
    )
    phases = [("training", planned.training, planned.micro_batch_tokens)] * bool(planned.training)
    phases.append(("evaluation", planned.evaluation, planned.evaluation_batch_tokens))
    names = list(dict.fromkeys(part.name for _, parts, _ in phases for part in parts))
    table = new_table("", *(name for name, _, _ in phases))
    table.add_row("tokens of a forward pass", *(f"{tokens:,}" for _, _, tokens in phases))
    for name in names:
        sizes = [{part.name: part.size for part in parts}.get(name) for _, parts, _ in phases]
        table.add_row(name, *("" if size is None else amount(size) for size in sizes))
    table.add_section()
    totals = [sum(part.size for part in parts) for _, parts, _ in phases]
    table.add_row("at the most", *(amount(total) for total in totals), style="bold")
    out.print(table)
    out.print(Text(_verdict(planned)))
    if others:
        out.print(Text("With"))
    for change, other in others:
        fits = "fits" if other.fits else "does not fit either"
        out.print(Text(f"  {change}: {amount(other.total)}, {fits}"))


def _verdict(planned: Plan) -> str:
    if planned.available is None:
        return "How much memory the device has is not known: --memory 24GiB says it."
    there = f"{amount(planned.total)} of {amount(planned.available)}"
    if planned.fits:
        return f"It fits: {there}."
    return f"It does not fit: {there} that the process can have."


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
