"""The commands of studies: ``polyprefix study run|status|report|list``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from polyprefix.cli.output import console, progress_on, resumable
from polyprefix.config import ConfigError, Study, expand, read_study
from polyprefix.results import StudyFolder

Notes = list[tuple[str, str]]
"""Texts with what each is about."""

NANO = (
    "nano: the packaged model stands in for every other, and a few examples and steps for all of "
    "them. It shows that the study runs; to its question the scores are no answer."
)

PAGE = "index.html"
"""The page of a study, in its folder's ``report``."""

app = typer.Typer(
    name="study",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Grids of runs: plan, run what is missing, report.",
)


class ScaleName(StrEnum):
    """How large a study's runs are."""

    full = "full"
    nano = "nano"


StudyName = Annotated[
    str, typer.Argument(help="A YAML file, or the name of one of 'polyprefix study list'.")
]
ScaleOption = Annotated[
    ScaleName,
    typer.Option(help="nano: the packaged model and a few examples, to see that all of it works."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="A folder with one folder a task, named like it; without it, the hub."),
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Folder of the runs (by default: runs/<name of the study>).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any key of all runs: --set seed=0. May be repeated."),
]
ExamplesOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Test examples of a language in the page, to look at (by default 20; 0: none)."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]

RUN_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix study run less-is-more/lengths --plan

  polyprefix study run less-is-more/lengths --scale nano --data my-data/

  polyprefix study run my-study.yaml --set train.steps=200 --output /tmp/study

A study that was stopped goes on with the same command; several processes, with the same command,
share the work. A finished run is known by its configuration: --again where files have changed.
Estimates are of training and scoring, and leave out loading models and data.

[bold]On a cluster[/bold]

  pip install 'polyprefix\\[ray]'

  polyprefix study run my-study.yaml --on ray --engine-set address=head:6379 \\
      --engine-set gpus=1

  polyprefix study run my-study.yaml --on ray --engine-set address=local

  pip install 'polyprefix\\[slurm]'

  polyprefix study run my-study.yaml --on slurm --engine-set partition=gpu \\
      --engine-set gpus=1 --engine-set time=4:00:00

The study's folder and the data must be where all machines see them, under the same path. Ctrl-C
stops Ray's runs, which write checkpoints, and leaves SLURM's jobs in their queue; the same command
goes on. 'polyprefix list engines' has the keys of --engine-set.
"""


@app.command(epilog=RUN_EXAMPLES)
def run(
    study: StudyName,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and stop.")] = False,
    on: Annotated[
        str, typer.Option(help="What executes the runs: local, ray or slurm.", metavar="ENGINE")
    ] = "local",
    engine_settings: Annotated[
        list[str] | None,
        typer.Option("--engine-set", help="A key of the engine: gpus=1. May be repeated."),
    ] = None,
    estimates: Annotated[
        bool | None,
        typer.Option(
            "--estimates/--no-estimates",
            help="Probe each model, method and task for time and memory, on this machine, first "
            "(by default: with --on local).",
            show_default=False,
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that have failed.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run anew what is finished or was begun already.")
    ] = False,
    scale: ScaleOption = ScaleName.full,
    data: DataOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Show the plan, then run what is missing. Exit status 1: a run has failed."""
    from polyprefix.cli.study_tables import show_plan, show_states
    from polyprefix.study import Kept, make_engine, plan_study, run_study

    engine = make_engine(on, engine_settings or [])
    probing = on == "local" if estimates is None else estimates
    progress = progress_on(quiet)
    found, folder, said = _open(study, scale, data, output, settings, progress.say)
    kept = Kept()
    with resumable():
        planned = plan_study(found, folder, probing=probing, kept=kept, progress=progress)
        show_plan(found, planned, console())
        if plan:
            return
        states = run_study(
            found,
            folder,
            engine=engine,
            again=again,
            retry_failed=retry_failed,
            kept=kept,
            progress=progress,
        )
    show_states(found, folder, console())
    _report(found, folder, said, console())
    if states["failed"]:
        typer.echo("runs that have failed are tried again with --retry-failed", err=True)
        raise typer.Exit(1)


@app.command()
def status(
    study: StudyName,
    scale: ScaleOption = ScaleName.full,
    data: DataOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
) -> None:
    """How far each run is, and why those that failed did."""
    from polyprefix.cli.study_tables import show_states

    found, folder, _ = _open(study, scale, data, output, settings, _nothing)
    show_states(found, folder, console())


REPORT_EXAMPLES = """
[bold]Examples[/bold]

  polyprefix study report my-study.yaml

  polyprefix study report less-is-more/lengths --scale nano --data my-data/ --examples 0

The page, report/index.html in the study's folder, is one file that needs no network. Texts of its
examples are read from the data; --examples 0 leaves them out where they must not be passed on.
"""


@app.command(epilog=REPORT_EXAMPLES)
def report(
    study: StudyName,
    scale: ScaleOption = ScaleName.full,
    data: DataOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    examples: ExamplesOption = None,
) -> None:
    """Scores of the runs that are finished, selected on source-language dev; a page in HTML."""
    found, folder, said = _open(study, scale, data, output, settings, _nothing)
    if not _report(found, folder, said, console(), examples):
        raise ConfigError(f"no run of {found.where} is finished in {str(folder.path)!r}")


@app.command("list")
def list_() -> None:
    """The studies that come with Polyprefix: the papers' experiments."""
    from polyprefix.cli.study_tables import show_studies
    from polyprefix.studies import shipped

    show_studies(shipped(), console())


def _nothing(text: str) -> None:
    """Say nothing."""


def _open(
    name: str,
    scale: ScaleName,
    data: Path | None,
    output: Path | None,
    settings: list[str] | None,
    say: Callable[[str], None],
) -> tuple[Study, StudyFolder, Notes]:
    """A study, the folder of its runs, and what has to be said of them.

    Raises:
        PolyprefixError: there is no such study, it has a mistake, or there is no data for it.
    """
    from polyprefix.studies import find_study
    from polyprefix.tasks.scale import Scale

    file = read_study(find_study(name))
    nano = scale is ScaleName.nano
    folder = output or Path("runs") / f"{file.config.name}{'-nano' if nano else ''}"
    change = Scale(nano=nano, data=data, say=say)
    study = expand(file, output=str(folder), settings=settings or [], change=change)
    if not study.runs:
        raise ConfigError(f"{study.where}: no run is left: none of its tasks has data in {data}")
    said = [("scale", NANO)] if nano else []
    said += [("left out", text) for text in change.left_out]
    return study, StudyFolder(folder), said


def _report(
    study: Study,
    folder: StudyFolder,
    said: Notes,
    out: Console,
    examples: int | None = None,
) -> bool:
    """Print results and write the page; ``False``: there are none yet."""
    from polyprefix.analysis import LabelledRun
    from polyprefix.analysis import settings as settings_of
    from polyprefix.report import EXAMPLES, notes, plain, show_notes, show_settings, write_page

    runs = [
        LabelledRun(run.labels, record)
        for run in study.runs
        if (record := folder.record(run.key)) is not None
    ]
    if not runs:
        return False
    said = [*notes(study), *said]
    states = Counter(folder.state(run.key) for run in study.runs)
    if missing := len(study.runs) - states["finished"]:
        others = [f"{count} {state}" for state, count in states.items() if state != "finished"]
        how = "; 'polyprefix study status' says why" if states["failed"] else ""
        text = f"{missing} of {len(study.runs)} runs are not in these tables"
        said.append(("incomplete", f"{text}: {', '.join(others)}{how}."))
    show_notes(study.config.title, said, out)
    found = settings_of(runs, study.config.select)
    show_settings(found, study.config.select, out)
    page, *files = write_page(
        folder.report / PAGE,
        found,
        folder.path,
        title=study.config.title,
        notes=said,
        select=study.config.select,
        examples=EXAMPLES if examples is None else examples,
        files=True,
    )
    if files:
        out.print(Text(f"{len(files)} files of figures and tables stand beside the page:"))
    out.print(plain(f"{page}"))
    return True
