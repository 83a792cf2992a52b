"""Tables of a study's plan and of how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from polyprefix.config import Study, StudyRun, read_yaml
from polyprefix.report import duration, new_table, plain
from polyprefix.results import StudyFolder

if TYPE_CHECKING:
    from polyprefix.study import Planned


def show_plan(study: Study, planned: Sequence[Planned], console: Console) -> None:
    """A row a run: what varies, its state, trainable parameters, time and memory."""
    keys = _keys(study)
    columns = ("state", "parameters", "time", "memory")
    table = new_table("run", *keys, *columns, left=1 + len(keys))
    for number, item in enumerate(planned, start=1):
        probe = item.probe
        table.add_row(
            str(number),
            *_values(item.run, keys),
            item.state,
            "" if probe is None else f"{probe.parameters:,}",
            "" if item.seconds is None else duration(item.seconds),
            "" if probe is None or probe.memory is None else f"{probe.memory / 2**30:.2f} GiB",
        )
    console.print(table)
    waiting = [item for item in planned if item.state not in ("finished", "failed")]
    known = [item.seconds for item in waiting if item.seconds is not None]
    text = f"{len(planned)} runs, {len(waiting)} to do"
    if known:
        text += f": about {duration(sum(known))}, loading of models and data not counted"
        text += "" if len(known) == len(waiting) else f" ({len(known)} of them estimated)"
    console.print(plain(f"{text}."))
    _show_errors([(item.run, item.error) for item in planned if item.error], console)


def show_states(study: Study, folder: StudyFolder, console: Console) -> None:
    """A row a run: what varies, its state, its folder; then why some have failed."""
    keys = _keys(study)
    table = new_table("run", *keys, "state", "folder", left=3 + len(keys))
    states = [folder.state(run.key) for run in study.runs]
    for number, (run, state) in enumerate(zip(study.runs, states, strict=True), start=1):
        at = folder.run(run.key)
        table.add_row(str(number), *_values(run, keys), state, "" if at is None else at.id)
    console.print(table)
    counts = Counter(states)
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    console.print(plain(f"{len(study.runs)} runs in {folder.path}: {text}."))
    failed = [
        (run, folder.error(run.key) or "")
        for run, state in zip(study.runs, states, strict=True)
        if state == "failed"
    ]
    _show_errors(failed, console)


def show_studies(paths: dict[str, Path], console: Console) -> None:
    """Name and title of studies."""
    table = new_table("study", "title", left=2)
    for name, path in paths.items():
        table.add_row(name, str(read_yaml(path).get("title", "")))
    console.print(table)


def _show_errors(failed: Sequence[tuple[StudyRun, str]], console: Console) -> None:
    """Each error once, with the runs that have it."""
    together: dict[str, list[StudyRun]] = {}
    for run, error in failed:
        together.setdefault(error, []).append(run)
    for error, runs in together.items():
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        console.print(plain(f"{runs[0].name}{more}: {error}", style="red", keep="\n"))


def _keys(study: Study) -> list[str]:
    return list(dict.fromkeys(key for run in study.runs for key in run.labels))


def _values(run: StudyRun, keys: Sequence[str]) -> list[str]:
    def text(value: Any) -> str:
        return "" if value is None else str(value)

    return [text(run.labels.get(key)) for key in keys]
