"""The commands. They read arguments and print; what they do is elsewhere.

Whatever imports torch is imported inside the command that needs it, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from polyprefix.cli import adapters, options, study
from polyprefix.cli.output import console, progress_on, resumable
from polyprefix.cli.plan import PLAN_EXAMPLES, plan
from polyprefix.cli.processes import first_process, several_processes, started_alone
from polyprefix.cli.serve import SERVE_EXAMPLES, serve
from polyprefix.config import ConfigError, RunConfig, StudyRun, sweep

app = typer.Typer(
    name="polyprefix",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Adapt a language model to a task with English data only, and measure how the skill "
    "carries to other languages.",
)


app.add_typer(study.app)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version as installed

        typer.echo(f"polyprefix {installed('polyprefix')}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Refuse, before a command, what several processes would each do."""
    if several_processes() and context.invoked_subcommand != "run":
        raise ConfigError(
            f"polyprefix {context.invoked_subcommand} is for one process; of several, as "
            "accelerate launch starts them, only 'run' makes use"
        )


RUN_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix run --model polyprefix/nano --method prefix_tuning --task sib200 \\
      --data sib200/ --languages all

  polyprefix run examples/xnli-llama-adapter.yaml --set train.learning_rate=1e-3 \\
      --set method.layers=last:4

  polyprefix run examples/xnli-llama-adapter.yaml --sweep seed=0,1,2 \\
      --sweep train.learning_rate=1e-3,3e-3

The runs of a sweep are trained together, up to runtime.together (by default 8) at once, and each is
the run it would be by itself. Keys of method and train can be swept, and the seed; method.name=full
runs after the others.

  accelerate launch --multi_gpu --num_processes 4 -m polyprefix run examples/xnli-llama-adapter.yaml

The last one shares the run among four processes, each with a GPU of its own (docs/distributed.md).

A run that was stopped goes on where it was with the same command.
"""


@app.command(epilog=RUN_EXAMPLES)
def run(
    config: options.Config = None,
    model: options.Model = None,
    method: options.Method = None,
    task: options.Task = None,
    data: options.Data = None,
    train_data: options.TrainData = None,
    languages: options.Languages = None,
    output: Annotated[str | None, typer.Option(help="Folder of runs (by default: runs).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random (by default: 0).")] = None,
    settings: options.Settings = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="A run for each value: --sweep seed=0,1,2. May be repeated: every combination.",
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Run anew what is finished or was begun already.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train on the source language, score every language, print and record the scores."""
    given = {
        "model.name": model,
        "method.name": method,
        "task.name": task,
        "task.data": data,
        "task.train_data": train_data,
        "task.languages": languages,
        "output": output,
        "seed": seed,
    }
    swept = [item.partition("=")[0].partition(".")[0] for item in sweeps or []]
    values = options.run_values(config, given, settings, swept)
    where = str(config) if config else ""
    if sweeps:
        run_sweep(sweep(values, sweeps, where), again=again, quiet=quiet)
        return
    spec = RunConfig.read(values, where=where)
    if note := started_alone():
        typer.echo(note, err=True)

    from polyprefix.report import show_record
    from polyprefix.study import run as execute

    with resumable():
        record = execute(spec, again=again, progress=progress_on(quiet))
    show_record(record, console())
    if first_process():
        typer.echo(f"{Path(spec.output) / record['id']}")


def run_sweep(runs: Sequence[StudyRun], *, again: bool, quiet: bool) -> None:
    """Execute the runs of a sweep, print them side by side, then a line for each."""
    from polyprefix.analysis import compare
    from polyprefix.report import show_comparison
    from polyprefix.study import run_together

    with resumable():
        records = run_together(
            [run.config for run in runs], again=again, progress=progress_on(quiet)
        )
    if not first_process():
        raise typer.Exit(0 if all(record["status"] == "finished" for record in records) else 2)
    names = [run.short_label or run.config.method["name"] for run in runs]
    pairs = list(zip(names, records, strict=True))
    if done := [(name, record) for name, record in pairs if record["status"] == "finished"]:
        show_comparison(compare([record for _, record in done], [n for n, _ in done]), console())
    for run, (name, record) in zip(runs, pairs, strict=True):
        typer.echo(f"{Path(run.config.output) / record['id']}  {name}")
        if record["status"] != "finished":
            typer.echo(f"error: {name}: {record['error']}", err=True)
    if len(done) < len(records):
        raise typer.Exit(2)


app.command(epilog=PLAN_EXAMPLES)(plan)
app.command(epilog=adapters.EVALUATE_EXAMPLES)(adapters.evaluate)
app.command(epilog=adapters.EXPORT_EXAMPLES)(adapters.export)


QUICKSTART_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix quickstart

  polyprefix quickstart --method prefix_tuning --method lora --output /tmp/runs
"""


@app.command(epilog=QUICKSTART_EXAMPLES)
def quickstart(
    method: Annotated[
        list[str] | None,
        typer.Option(help="See 'polyprefix list methods'. May be repeated; by default all."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="Run anew what is finished or was begun already.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """All methods on the packaged model and 22 languages: no network, no GPU, three minutes."""
    from polyprefix.analysis import compare
    from polyprefix.quickstart import PAGE, next_step
    from polyprefix.quickstart import quickstart as execute
    from polyprefix.report import settings_by_method, show_comparison, write_page

    with resumable():
        records = execute(output, method, seed, again=again, progress=progress_on(quiet))
    show_comparison(compare(records), console())
    found = settings_by_method(records)
    write_page(output / PAGE, found, output, title="Quickstart: methods side by side")
    typer.echo(f"The same with colours: {output / PAGE}\n")
    typer.echo(next_step(records))


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="The record as JSON.")] = False,
) -> None:
    """Print a run's scores again: per language, by family and by script."""
    from polyprefix.report import show_record
    from polyprefix.results import RunFolder

    record = RunFolder(folder).record()
    if as_json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        show_record(record, console())


PREDICT_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix predict runs/sib200-... --text "Timu ilishinda mechi."

  polyprefix predict runs/xnli-... --field premise="He left." --field hypothesis="He stayed."

  polyprefix predict runs/sib200-... --input texts.jsonl > answers.jsonl
"""


@app.command(epilog=PREDICT_EXAMPLES)
def predict(
    folder: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    text: Annotated[
        list[str] | None, typer.Option(help="A text, for tasks of one field. May be repeated.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="A field of one example: name=text.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", help="A file of JSON objects, one a line, with the task's fields."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1... (by default: as the run).")
    ] = None,
) -> None:
    """Answer for new texts; one JSON object a line. Without texts, reads standard input."""
    from polyprefix.study.predict import CHUNK, answers, parse_field, read_examples

    chunk_size = CHUNK

    if sum(option is not None for option in (text, field, source)) > 1:
        raise ConfigError("give one of --text, --field and --input")
    if text:
        examples: Iterable[dict[str, Any] | str] = list(text)
    elif field:
        examples = [dict(parse_field(item) for item in field)]
    elif source is not None:
        examples = read_examples(source)
    else:
        if sys.stdin.isatty():
            typer.echo("reading standard input: a text, or a JSON object, a line", err=True)
            chunk_size = 1  # somebody waits for each answer
        examples = read_examples(None)
    for answer in answers(folder, examples, device=device, chunk_size=chunk_size):
        typer.echo(json.dumps(answer, ensure_ascii=False))


app.command(epilog=SERVE_EXAMPLES)(serve)


HARNESS_EXAMPLES = """
[bold]Examples[/bold]

  pip install 'polyprefix\\[harness]'

  polyprefix harness runs/xnli-... --tasks belebele_swh_Latn,xnli_sw

  polyprefix harness runs/xnli-... --tasks "belebele_*" --limit 100 --samples

  polyprefix harness runs/xnli-... --tasks my_task --include-path my_tasks/
"""


@app.command(epilog=HARNESS_EXAMPLES)
def harness(
    folder: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    tasks: Annotated[
        str, typer.Option(help="Its tasks, groups or patterns, with commas: 'lm_eval ls tasks'.")
    ],
    include_path: Annotated[
        Path | None, typer.Option(help="A folder of further task configurations (YAML).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples of each task.")] = None,
    fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt (by default: as the tasks).")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a text (by default: what the model has).")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Keep every prompt and answer in the output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="A JSON file (by default: in the run's folder).")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1... (by default: as the run).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Evaluate a run's adapter with lm-evaluation-harness: its tasks, prompts and metrics."""
    from polyprefix.results import write_json
    from polyprefix.study.harness_run import evaluate_run, results_path, results_table

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    path = output or results_path(folder, names, limit=limit, fewshot=fewshot)
    results = evaluate_run(
        folder,
        names,
        include_path=include_path,
        limit=limit,
        fewshot=fewshot,
        max_length=max_length,
        samples=samples,
        device=device,
        progress=progress_on(quiet),
    )
    write_json(path, results)
    typer.echo(results_table(results))
    typer.echo(f"{path}")


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    tasks = "tasks"
    models = "models"
    languages = "languages"
    engines = "engines"


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List methods, tasks, models, languages, or what can execute a study."""
    from polyprefix.cli import listing

    getattr(listing, kind.value)(console())
