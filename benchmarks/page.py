"""Write the page of results from the JSON files of the benchmarks.

    python -m benchmarks.page --input build/benchmarks --output docs/benchmarks.md --data DATA

Plots stand beside the page, in a folder of its name. Every number of the page is in one of the
files, or is a median, a smallest or a largest of numbers there. Commands name ``--data`` as
``DATA`` and other files by name alone, so that no path of the machine gets into the page.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from benchmarks.plots import draw, file_name, plots_of
from benchmarks.wording import MEMORY, named, said, short
from polyprefix.results import read_json, write_atomically

TITLES = {
    "train_shared": "Training on questions that share passages",
    "train_short": "Training on short texts",
    "score": "Scoring choices",
    "generate": "Writing answers",
    "floor": "A training step against its floor",
    "keep": "Keeping hidden states below the adapted layers",
    "adapters": "Different adapters in one batch",
    "shuffling": "Examples that share a passage in one step: the loss",
    "gpu": "Training at the shapes of real models, on a GPU",
    "growth": "How cost grows",
}
"""Sections in their order; other benchmarks follow under their own names."""

HEAD = """# Benchmarks

Polyprefix and what its users would otherwise run, on the same model, examples and precision,
measured in turn in one process. This page is written by `python -m benchmarks.page` from the files
that the benchmarks write; `benchmarks/README.md` says what each side
does, what is fair and what is not, and how to run them.

A ratio is the peer's time by ours in the same round: above 1 we are faster. *Memory* is our peak by
the peer's, beyond the libraries, weights included. Rows whose sides did not compute the same have
no speed. Goals are what the project set itself beforehand.
"""

GROWTH = """Lines are medians; bands go from the smallest to the largest round. Peak memory is of
a process of its own, measured once, without what the libraries take. The floor's memory is not
measured. In the table times are milliseconds per example.
"""

DETAILS = {
    "gpu": ("ceiling, TFLOP/s", "share of the ceiling", "tokens a second", MEMORY, "kernels"),
    "shuffling": ("loss, ours", "loss, by itself"),
}
"""Further figures that stand below the table of a benchmark."""

COLUMNS = ("case", "ours /s", "peer", "peer /s", "ratio", "min to max", "memory", "same?", "goal")
POINTS = (
    "case",
    "ours (ms)",
    "min to max",
    "peer",
    "peer (ms)",
    "min to max",
    "ratio",
    "MiB",
    "same?",
)

Report = dict[str, Any]


def read(folder: Path) -> dict[str, Report]:
    """The reports of a folder by the names of their files.

    Raises:
        RunError: a file cannot be read.
    """
    found = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    reports = {name: value for name, value in found.items() if "benchmark" in value}
    order = list(TITLES)

    def place(name: str) -> tuple[int, str]:
        kind = reports[name]["benchmark"]
        return (order.index(kind) if kind in order else len(order), name)

    return {name: reports[name] for name in sorted(reports, key=place)}


def page(reports: dict[str, Report], data: Path | None, plots: str) -> str:
    """The page in Markdown.

    Args:
        reports: what :func:`read` found.
        data: what commands call ``DATA``.
        plots: the folder of the plots, as the page names it.
    """
    parts = [HEAD, *_surroundings(reports)]
    section = None
    for name, report in reports.items():
        kind = report["benchmark"]
        if kind != section:
            section = kind
            parts.append(f"## {TITLES.get(kind, kind)}\n")
            parts += [GROWTH] * (kind == "growth")
        parts.append(f"`{name}.json`, {_rounds(report)}:\n\n```\n{command(report, data)}\n```\n")
        parts += _growth(name, report, plots) if kind == "growth" else [_table(report)]
    return "\n".join(parts)


def command(report: Report, data: Path | None) -> str:
    """What made a report. ``--json`` is left out."""
    words: list[str] = []
    given = list(report["given"])
    while given:
        word = given.pop(0)
        if word == "--json":
            given.pop(0)
        elif not word.startswith("--json="):
            words.append(_without_path(word, data))
    return f"python -m benchmarks.{report['benchmark']} {shlex.join(words)}".strip()


def _without_path(word: str, data: Path | None) -> str:
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    path = PurePath(value)
    if data is not None and path.is_relative_to(data):
        path = PurePath("DATA") / path.relative_to(data)
    elif path.is_absolute():
        path = PurePath(path.name)
    else:
        return word
    return f"{option}{equals}{path}"


def _rounds(report: Report) -> str:
    return f"{report['settings']['rounds']} rounds"


def _surroundings(reports: dict[str, Report]) -> list[str]:
    """Machine, versions and commit, once for all files that share them."""
    groups: dict[str, list[str]] = {}
    for name, report in reports.items():
        about = {key: report[key] for key in ("machine", "versions", "commit")}
        groups.setdefault(json.dumps(about, sort_keys=True), []).append(name)
    parts = ["## Machine and versions\n"]
    for text, names in groups.items():
        about = json.loads(text)
        machine = about["machine"]
        system = machine["system"].split()
        lines = [
            f"* {machine['processor']}, {machine['cpus']} CPUs, torch with "
            f"{machine['torch_threads']} threads, {system[0]} {system[-1]}"
        ]
        if "accelerator" in machine:
            lines[0] += f", {machine['accelerator']}"
        versions = [f"{key} {value}" for key, value in about["versions"].items() if value]
        lines.append(f"* {', '.join(versions)}")
        lines.append(f"* commit `{about['commit']}`" if about["commit"] else "* no commit is known")
        if len(groups) > 1:
            files = ", ".join(f"`{name}.json`" for name in names)
            lines.insert(0, f"{files}:\n")
        parts.append("\n".join(lines) + "\n")
    return parts


def _table(report: Report) -> str:
    rows = []
    for line in report["results"]:
        agrees = line["agrees"]
        speed = [
            short(line["ours_per_second"]),
            line["peer"],
            short(line["theirs_per_second"]),
            f"**{short(line['ratio'])}**",
            f"{short(line['ratio_min'])} to {short(line['ratio_max'])}",
            short(line["memory_ratio"]) if line["memory_ratio"] is not None else "",
        ]
        if not agrees:
            speed = ["", line["peer"], "", "", "", ""]
        rows.append([named(line["case"]), *speed, _agreement(line), _goal(line)])
    return _markdown(COLUMNS, rows) + _details(report)


def _details(report: Report) -> str:
    """Lists of further figures, a case each."""
    parts = []
    for line in report["results"]:
        wanted = DETAILS.get(report["benchmark"], ())
        found = [
            f"    * {key}: {short(line['more'][key])}" for key in wanted if key in line["more"]
        ]
        if found:
            parts.append("\n".join([f"* {named(line['case'])}", *found]))
    return "\n" + "\n".join(parts) + "\n" if parts else ""


def _growth(name: str, report: Report, plots: str) -> list[str]:
    parts = [
        f"![{axis}, {case}]({plots}/{file_name(name, (axis, case))})\n"
        for axis, case in plots_of([line for line in report["results"] if line["agrees"]])
    ]
    rows = []
    for line in report["results"]:
        ours, theirs = (_milliseconds(line, side) for side in ("ours", "theirs"))
        memory = line["more"].get(MEMORY, {})
        figures = [*ours, line["peer"], *theirs, short(line["ratio"])]
        figures.append(", ".join(f"{side} {short(value)}" for side, value in memory.items()))
        if not line["agrees"]:
            figures = ["", "", line["peer"], "", "", "", ""]
        rows.append([named(line["case"]), *figures, _agreement(line)])
    return [*parts, _markdown(POINTS, rows)]


def _milliseconds(line: dict[str, Any], side: str) -> list[str]:
    """Median and spread per example."""
    times = [1000 * seconds / line["work"] for seconds in line[side]]
    return [short(statistics.median(times)), f"{short(min(times))} to {short(max(times))}"]


def _agreement(line: dict[str, Any]) -> str:
    return ("yes: " if line["agrees"] else "**not the same**: ") + said(line["agreement"])


def _goal(line: dict[str, Any]) -> str:
    goal = line["goal"]
    if goal is None:
        return ""
    wanted = f"{short(goal['ratio'])} or more"
    if "memory" in goal:
        wanted += f", memory {short(goal['memory'])} or less"
    return f"{wanted}: {'met' if goal['met'] else '**not met**'}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def write(folder: Path, output: Path, data: Path | None) -> None:
    """The page and its plots.

    Raises:
        SystemExit: there is no report in the folder.
        RunError: a file cannot be read or written.
    """
    reports = read(folder)
    if not reports:
        raise SystemExit(f"{folder} holds no JSON file of a benchmark")
    beside = output.with_suffix("")
    for old in beside.glob("*.svg"):
        old.unlink()
    for name, report in reports.items():
        if report["benchmark"] == "growth":
            lines = [line for line in report["results"] if line["agrees"]]
            for key, series in plots_of(lines).items():
                write_atomically(beside / file_name(name, key), draw(key[0], series))
    write_atomically(output, page(reports, data, beside.name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--input", type=Path, default=Path("build/benchmarks"), help="a folder of JSON files")
    add("--output", type=Path, default=Path("docs/benchmarks.md"))
    add("--data", type=Path, help="what commands call DATA")
    options = parser.parse_args(arguments)
    write(options.input, options.output, options.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
