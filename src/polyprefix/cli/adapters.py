"""``polyprefix evaluate`` and ``polyprefix export``: adapters that come in and that go out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyprefix.cli.output import console, progress_on, resumable
from polyprefix.config import ConfigError, RunConfig, override, put, read_yaml

EVALUATE_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix evaluate my-peft-adapter/ --model polyprefix/nano --task sib200 \\
      --data sib200/ --languages sw,tr,hi

  polyprefix evaluate runs/sib200-lora-1f0c2a9b7d3e --task polytopics

The adapter is a folder that PEFT's save_pretrained wrote (prompt tuning,
prefix tuning, LoRA or adaption prompt), an adapter of Polyprefix, or a run's
folder. Without --model it is put on the model that it says it was trained
on. In a configuration of a run or a study the same is

  method: {name: saved, folder: my-peft-adapter/}
"""


def evaluate(
    adapter: Annotated[Path, typer.Argument(help="The adapter's folder, or a run's.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A YAML configuration of a run; options go over it."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hub name or folder (by default: what the adapter names).")
    ] = None,
    task: Annotated[str | None, typer.Option(help="See 'polyprefix list tasks'.")] = None,
    data: Annotated[
        str | None, typer.Option(help="The task's folder; without it, the hub is read.")
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option(help="all, or names and groups: sw,tr,family:Uralic,script:Cyrl,-en"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder of runs (by default: runs).")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any key: --set task.max_length=1024. May be repeated."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Evaluate anew what is finished or was begun.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score every language with an adapter that was trained elsewhere, and record the scores."""
    values = override({} if config is None else read_yaml(config), [])
    for key in ("method", "train"):
        if key in values:
            raise ConfigError(f"{config}: section {key!r} has no effect: the adapter is there")
    given = {
        "model.name": model,
        "task.name": task,
        "task.data": data,
        "task.languages": languages,
        "output": output,
    }
    for path, value in given.items():
        if value is not None:
            put(values, path, value)
    values = override(values, settings or [])
    values["method"] = {"name": "saved", "folder": str(adapter)}
    if "task" not in values:
        raise ConfigError("no task: give --task, or a configuration file that has one")
    if "model" not in values or "name" not in values["model"]:
        put(values, "model.name", _model_of(adapter))
    spec = RunConfig.read(values, where=str(config) if config else "")

    from polyprefix.report import show_record
    from polyprefix.study import run as execute

    with resumable():
        record = execute(spec, again=again, progress=progress_on(quiet))
    show_record(record, console())
    typer.echo(f"{Path(spec.output) / record['id']}")


def _model_of(adapter: Path) -> str:
    from polyprefix.methods import described

    name = described(adapter)[1]
    if name is None:
        raise ConfigError(
            f"the adapter in {str(adapter)!r} does not say on which model it was trained: give "
            "--model"
        )
    return name


EXPORT_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix export runs/sib200-lora-... --to peft --output my-adapter/

  polyprefix export runs/sib200-lora-... --to merged --output my-model/

  polyprefix export runs/sib200-soft_prompt-... --to vocabulary --output new/

  polyprefix export runs/sib200-prefix_tuning-... --to hub --output card/ \\
      --base-model meta-llama/Llama-3.2-1B --license apache-2.0

[bold]Targets[/bold]

peft: what PeftModel.from_pretrained loads: soft prompts at the start,
prefixes in all layers, LLaMA-Adapters with a gate a layer, LoRA.

merged: a model with LoRA's updates in its weights, or as full fine-tuning
left it.

vocabulary: a model and a tokenizer of which a soft prompt is new tokens, put
into every text by the tokenizer and its chat template: any server serves it.

hub: the adapter with a model card and the record, to be uploaded.

What a target cannot hold without computing something else is refused, with
the reason. What was written is loaded once and its logits are compared with
the run's.
"""


def export(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    to: Annotated[str, typer.Option(help="peft, merged, vocabulary or hub.")],
    output: Annotated[Path, typer.Option(help="The folder to be made.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="merged, vocabulary: float32, bfloat16 or float16 (by default: the run's)."
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="peft, hub: the hub's name of the model, where the run's is a folder."),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="hub: the adapter's licence, as the hub names it."),
    ] = None,
    gguf: Annotated[
        bool,
        typer.Option(
            "--gguf",
            help="vocabulary: to be converted for llama.cpp; prompts have to hold the tokens.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            help="Load what was written and compare logits; needs memory for a second model."
        ),
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write a finished run's adapter for other programs."""
    given: dict[str, Any] = {
        "dtype": dtype,
        "base_model": base_model,
        "license": license_,
        "gguf": gguf or None,
    }

    from polyprefix.export import export as execute

    try:
        told = execute(
            run,
            to,
            output,
            options={name: value for name, value in given.items() if value is not None},
            check=check,
            overwrite=overwrite,
            progress=progress_on(quiet),
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    for note in told.notes:
        typer.echo(note)
    if told.difference is not None:
        typer.echo(f"largest difference of logits from the run's: {told.difference:.2g}")
    typer.echo(f"{output}")
