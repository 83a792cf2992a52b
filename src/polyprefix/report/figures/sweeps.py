"""Scores against what was swept: the model's size, and any numeric key of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polyprefix.analysis import Setting, curve, curve_runs, doubling_trend
from polyprefix.config import RunError
from polyprefix.report.console import named, signed
from polyprefix.report.figures.drawing import (
    DASHES,
    MARKERS,
    SERIES,
    Figure,
    bare,
    canvas,
    finished_figure,
    printable,
)

MOST = len(SERIES)
"""Lines of a figure."""

SIZE = "model.parameters"
METHOD = "method.name"
LAYERS = re.compile(r"(first|last|every):(\d+)")

Line = tuple[str, list[Setting]]


@dataclass(frozen=True)
class Sweep:
    """Lines over one key.

    Attributes:
        key: of the configuration.
        lines: names, and the settings of each in the order of x.
        left_out: lines that there is no room for.
        words: what the x axis says.
    """

    key: str
    lines: list[Line]
    left_out: int
    words: str


def sweeps(found: Sequence[Setting]) -> list[Sweep]:
    """The numeric keys that settings differ in, with lines where nothing else differs.

    Where there are more lines than a figure tells apart, those stay whose other keys have the
    values of the setting with the best source-language dev score of its method.
    """
    keys = list(dict.fromkeys(key for setting in found for key in setting.labels if key != METHOD))
    result = []
    for key in keys:
        values = {repr(s.labels[key]): s.labels[key] for s in found if key in s.labels}
        if len(values) < 2 or any(number(value) is None for value in values.values()):
            continue
        forms = {_form(value) for value in values.values()}
        if len(forms) > 1:
            continue  # the first four and the last four layers are not on one axis
        lines = _lines(found, key)
        if not lines:
            continue
        kept = lines if len(lines) <= MOST else _best(found, lines, key)
        words = named(key.rpartition(".")[2])
        if form := next(iter(forms)):
            words = f"adapted layers ({form} N)"
        result.append(Sweep(key, kept, len(lines) - len(kept), words))
    return result


def number(value: Any) -> float | None:
    """The value of a key on an axis: a number, or N of ``last:N``; ``None`` for what is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    match = LAYERS.fullmatch(value) if isinstance(value, str) else None
    return float(match.group(2)) if match else None


def _form(value: Any) -> str:
    match = LAYERS.fullmatch(value) if isinstance(value, str) else None
    return match.group(1) if match else ""


def _rest(setting: Setting, key: str) -> dict[str, Any]:
    return {name: value for name, value in setting.labels.items() if name != key}


def _lines(found: Sequence[Setting], key: str) -> list[Line]:
    together: dict[str, list[Setting]] = {}
    for setting in found:
        if key in setting.labels and setting.target is not None:
            rest = _rest(setting, key)
            name = repr((setting.runs[0].record["method"]["name"], sorted(rest.items(), key=str)))
            together.setdefault(name, []).append(setting)
    many = [part for part in together.values() if len({repr(s.labels[key]) for s in part}) > 1]
    ordered = [sorted(part, key=lambda s: number(s.labels[key]) or 0.0) for part in many]
    return _apart(list(zip(_names(many, (METHOD, key)), ordered, strict=True)))


def _names(parts: Sequence[Sequence[Setting]], without: Sequence[str]) -> list[str]:
    """Names of lines: the method's, and the other keys in which lines of that method differ."""
    by_method: dict[str, list[Sequence[Setting]]] = {}
    for part in parts:
        by_method.setdefault(part[0].runs[0].record["method"]["name"], []).append(part)
    names = []
    for part in parts:
        method, labels = part[0].runs[0].record["method"], part[0].labels
        same = [other[0].labels for other in by_method[method["name"]]]
        apart = [
            key
            for key in labels
            if not key.startswith(tuple(without))
            and len({repr(other.get(key)) for other in same}) > 1
        ]
        words = [f"{named(key.rpartition('.')[2])} {_short(labels[key])}" for key in apart]
        title = str(method.get("title") or method["name"])
        names.append(printable(", ".join([title, *words]), 40))
    return names


def _best(found: Sequence[Setting], lines: list[Line], key: str) -> list[Line]:
    best: dict[str, Setting] = {}
    for setting in found:
        name = setting.runs[0].record["method"]["name"]
        if name not in best or _dev(setting) > _dev(best[name]):
            best[name] = setting
    chosen = {
        name: repr(sorted(_rest(setting, key).items(), key=str)) for name, setting in best.items()
    }
    kept = [
        line
        for line in lines
        if chosen[line[1][0].runs[0].record["method"]["name"]]
        == repr(sorted(_rest(line[1][0], key).items(), key=str))
    ]
    return (kept or lines)[:MOST]


def _dev(setting: Setting) -> float:
    return -np.inf if setting.dev is None else setting.dev


def _apart(lines: list[Line]) -> list[Line]:
    """Lines whose names were cut to the same get numbers."""
    names = [name for name, _ in lines]
    return [
        (name if names.count(name) == 1 else f"{name} [{place}]", part)
        for place, (name, part) in enumerate(lines, start=1)
    ]


def sweep_tables(sweep: Sweep) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means of :func:`polyprefix.analysis.curve` and the runs, of all lines.

    Columns: ``line``, then those of ``curve``, with ``x`` as a number; and of the runs.
    """
    points: list[pd.DataFrame] = []
    runs: list[pd.DataFrame] = []
    for name, part in sweep.lines:
        records = [run.record for setting in part for run in setting.runs]
        for found, make in ((points, curve), (runs, curve_runs)):
            table = make(records, sweep.key)
            table["x"] = [number(value) for value in table["x"]]
            found.append(table.sort_values("x", kind="stable").assign(line=name))
    columns = ["line"]
    one, other = pd.concat(points, ignore_index=True), pd.concat(runs, ignore_index=True)
    return (
        one[columns + [c for c in one.columns if c != "line"]],
        other[columns + [c for c in other.columns if c != "line"]],
    )


def drawn(found: Sequence[Setting], stem: str, place: str) -> Iterator[Figure]:
    """A figure for each key of :func:`sweeps`."""
    for sweep in sweeps(found):
        try:
            means, runs = sweep_tables(sweep)
        except RunError:
            continue  # runs of a line differ in what the study does not set
        if means["score"].nunique() < 2:
            continue
        name = f"{stem}-by-{re.sub(r'[^a-z0-9]+', '-', sweep.key.lower()).strip('-')}"
        task = found[0].runs[0].record["task"]
        score = named(task["headline"])
        title = f"{score.capitalize()} by {sweep.words}: {place}"
        yield _figure(sweep, means, runs, name, title, score)


def scaling(found: Sequence[Setting], stem: str) -> Figure | None:
    """Scores of each method over model sizes; ``None`` unless two sizes were run.

    Args:
        found: settings of one task and source language, of several models.
        stem: what the file's name begins with.
    """
    kept: list[list[Setting]] = []
    by_method: dict[str, list[Setting]] = {}
    for setting in found:
        if setting.target is None:
            continue
        # Each size has the value that was selected for it.
        rest = {
            k: v
            for k, v in setting.labels.items()
            if not k.startswith("model.") and k not in setting.selected
        }
        name = repr((setting.runs[0].record["method"]["name"], sorted(rest.items(), key=str)))
        by_method.setdefault(name, []).append(setting)
    for part in by_method.values():
        sizes = {s.runs[0].record["model"]["parameters"] for s in part}
        if len(sizes) < 2 or len(sizes) < len(part):
            continue  # two models of one size are no scale
        kept.append(sorted(part, key=lambda s: s.runs[0].record["model"]["parameters"]))
    if not kept:
        return None
    lines = _apart(list(zip(_names(kept, (METHOD, "model.")), kept, strict=True)))
    sweep = Sweep(SIZE, lines[:MOST], len(lines) - MOST if len(lines) > MOST else 0,
                  "parameters of the model")  # fmt: skip
    try:
        means, runs = sweep_tables(sweep)
    except RunError:
        return None
    if means["score"].nunique() < 2:
        return None
    task = found[0].runs[0].record["task"]
    score = named(task["headline"])
    title = f"{score.capitalize()} by model size: {printable(str(task['title']))}"
    return _figure(sweep, means, runs, f"{stem}-scaling", title, score)


def _figure(
    sweep: Sweep, means: pd.DataFrame, runs: pd.DataFrame, name: str, title: str, score: str
) -> Figure:
    drawing = canvas(7.6, 3.7)
    left, right = drawing.subplots(1, 2, sharex=True)
    log = is_log(means["x"])
    for number_, (line, _) in enumerate(sweep.lines):
        colour, mark, dash = SERIES[number_], MARKERS[number_], DASHES[number_]
        part, own = means[means["line"] == line], runs[runs["line"] == line]
        for ax, column in ((left, "score"), (right, "gap")):
            values = own["score"] if column == "score" else own["source"] - own["score"]
            if len(own) > len(part):
                ax.plot(own["x"], values, mark, color=colour, markersize=3, alpha=0.4,
                        markeredgewidth=0)  # fmt: skip
            ax.plot(part["x"], part[column], color=colour, marker=mark, linestyle=dash,
                    linewidth=1.7, markersize=5)  # fmt: skip
    for ax, words in ((left, f"mean {score} of target languages"), (right, "mean transfer gap")):
        bare(ax, "both")
        if np.ptp(ax.get_ylim()) < 1e-6:  # all the same, but for rounding
            middle = float(np.mean(ax.get_ylim()))
            ax.set_ylim(middle - 0.05, middle + 0.05)
        ax.set_xlabel(sweep.words)
        ax.set_ylabel(words)
        _x_axis(ax, sorted(set(means["x"])), log)
    handles = [
        Line2D([], [], color=SERIES[i], marker=MARKERS[i], markersize=5, linestyle=DASHES[i])
        for i in range(len(sweep.lines))
    ]
    names = [line if not line.startswith("_") else f"\u200b{line}" for line, _ in sweep.lines]
    columns = 1 if max(map(len, names)) > 34 else min(3, len(names))
    drawing.legend(handles, names, loc="outside upper center", ncols=columns)
    languages = sorted(set(means["languages"]))
    seeds = sorted(set(means["seeds"]))
    spread = (
        f"Lines join means over seeds; small points are single seeds ({_span(seeds)} a point), "
        "whose spread says what another training would give."
    )
    if seeds == [1]:
        spread = "A point is one seed: another training could give another."
    caption = (
        f"Left: mean {score} over the target languages ({_span(languages)}). Right: the mean "
        f"transfer gap, source score minus target score. {spread} Everything else is the same "
        f"along a line.{_trends(sweep, runs)}"
    )
    if sweep.left_out:
        caption += (
            f" {sweep.left_out} more lines, of other values of the other keys, are left out: shown "
            "are those with the best source-language dev score."
        )
    return finished_figure(drawing, name, title, caption, means)


def _trends(sweep: Sweep, runs: pd.DataFrame) -> str:
    """What a doubling brings, in words, where the axis is one of doublings."""
    if not is_log(runs["x"]):
        return ""
    said = []
    for line, _ in sweep.lines:
        own = runs[runs["line"] == line]
        try:
            trend = doubling_trend(list(own["x"]), list(own["score"]))
        except ValueError:
            continue
        slope, low, high = map(signed, (trend.slope, trend.low, trend.high))
        said.append(f"{line} {slope} ({low} to {high})")
    return f" A doubling brings (95% interval over runs): {'; '.join(said)}." if said else ""


def is_log(values: Mapping[Any, Any] | pd.Series) -> bool:
    """Whether values are spread like powers: positive, the largest eight times the smallest."""
    numbers = [float(value) for value in values]
    return min(numbers) > 0 and max(numbers) >= 8 * min(numbers)


def _x_axis(ax: Axes, ticks: list[float], log: bool) -> None:
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
    if len(ticks) <= 8:
        ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    if len(ticks) > 5:
        ax.tick_params(axis="x", labelsize=7.5)


def short_number(value: float) -> str:
    """Three digits and a unit: 560M, 1.7B, 3e-05."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:g}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
