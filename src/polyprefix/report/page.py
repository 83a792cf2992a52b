"""A study, or a few runs, as one HTML page that needs no network: see ``templates/page.html``."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from itertools import count, zip_longest
from math import isnan
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from polyprefix.analysis import LabelledRun, Setting
from polyprefix.analysis import settings as settings_of
from polyprefix.report.examples import LONGEST, MOST_LABELS, browse
from polyprefix.report.group import Group, read_group
from polyprefix.report.heat_map import SHADES, HeatMap, heat_map
from polyprefix.report.provenance import (
    Cost,
    Origin,
    costs,
    facts,
    origins,
    partly_scored,
    together,
    versions,
)
from polyprefix.report.study import groups, selection
from polyprefix.report.verdict import Verdict, verdict
from polyprefix.results import write_atomically

if TYPE_CHECKING:
    from polyprefix.report.figures import Figure, Table

EXAMPLES = 20
"""Examples of a language that a page holds, unless told otherwise."""

WIDE = 700.0
"""Units of a drawing from which on it needs the whole width of the page."""

SCRIPTS = ("theme.js", "tables.js", "examples.js")


@dataclass(frozen=True)
class Part:
    """What the page shows of a group."""

    group: Group
    verdict: Verdict
    heat_map: HeatMap
    figures: list[Figure]
    tables: list[Table]
    costs: list[Cost]
    partly_scored: bool
    together: bool
    browser: dict[str, Any]
    facts: list[tuple[str, str]]
    versions: list[tuple[str, str]]
    origins: list[Origin]


def write_page(
    path: Path,
    found: Sequence[Setting],
    folder: Path,
    *,
    title: str,
    notes: Sequence[tuple[str, str]] = (),
    select: Sequence[str] = (),
    examples: int = EXAMPLES,
    files: bool = False,
) -> list[Path]:
    """Write the page.

    Args:
        path: of the file.
        found: settings, of any tasks and models.
        folder: where the folders of their runs are.
        title: of the page.
        notes: what else is to be said first, with what it is.
        select: keys whose value was selected on dev.
        examples: of a language, that the page holds to look at; 0: none.
        files: write figures (SVG, PNG) and tables (CSV, LaTeX) beside the page as well.

    Returns:
        What was written, the page first.
    """
    grouped = groups(found)
    undrawn = _undrawn()
    stems = [] if undrawn else _stems(grouped)
    parts = [
        _part(read_group(group, folder), select, examples, stem, files)
        for group, stem in zip_longest(grouped, stems)
    ]
    scaling = [] if undrawn else _scaling(found)
    script = "\n".join(_text(name) for name in SCRIPTS)
    page = (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            notes=notes,
            selection=selection(select),
            parts=parts,
            undrawn=undrawn,
            scaling=scaling,
            limit=examples,
            longest=LONGEST,
            most_labels=MOST_LABELS,
            shades=range(SHADES),
            style=Markup(_text("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    # A lone half of a surrogate pair has no UTF-8, and NUL no place in HTML.
    write_atomically(path, re.sub("[\0\ud800-\udfff]", "\ufffd", page))
    if undrawn or not files:
        return [path]
    drawn = [*scaling, *(figure for part in parts for figure in part.figures)]
    return [path, *_export(drawn, [table for part in parts for table in part.tables], path.parent)]


def settings_by_method(records: Sequence[dict[str, Any]]) -> list[Setting]:
    """Settings of runs that are no study's, told apart by their method."""
    return settings_of(
        [LabelledRun({"method.name": record["method"]["name"]}, record) for record in records]
    )


def _part(
    group: Group, select: Sequence[str], examples: int, stem: str | None, files: bool
) -> Part:
    """``stem``: of the names of its figures; ``None``: there are none."""
    drawn: list[Figure] = []
    listed: list[Table] = []
    if stem is not None:
        from polyprefix.report.figures import figures, gather, tables

        material = gather(group.settings, select, group.folder, stem=stem)
        drawn = figures(group.settings, select, group.folder, material=material)
        if files:
            listed = tables(group.settings, select, group.folder, material=material)
    return Part(
        group=group,
        verdict=verdict(group),
        heat_map=heat_map(group),
        figures=drawn,
        tables=listed,
        costs=costs(group),
        partly_scored=partly_scored(group),
        together=together(group),
        browser=browse(group, examples),
        facts=facts(group),
        versions=versions(group),
        origins=origins(group),
    )


# What draws is imported by pages alone: it needs matplotlib, which is an extra.


def _undrawn() -> str:
    """Why there are no figures, where what draws them is not installed."""
    if find_spec("matplotlib") is not None:
        return ""
    return "they need matplotlib: pip install 'polyprefix[report]'"


def _stems(found: Sequence[list[Setting]]) -> list[str]:
    """Names of groups for files and ids, each once: models may end in the same name."""
    from polyprefix.report.figures import default_stem

    stems: list[str] = []
    for group in found:
        stem = default_stem(group)
        others = (f"{stem}-{number}" for number in count(2))
        stems.append(stem if stem not in stems else next(x for x in others if x not in stems))
    return stems


def _scaling(found: Sequence[Setting]) -> list[Figure]:
    from polyprefix.report.figures import scaling_figures

    return scaling_figures(found)


def _export(drawn: Sequence[Figure], listed: Sequence[Table], folder: Path) -> list[Path]:
    from polyprefix.report.figures import write_exports

    return write_exports(drawn, listed, folder)


@cache
def _environment() -> Environment:
    # Names of languages, models and tasks are data: everything is escaped.
    environment = Environment(
        loader=PackageLoader("polyprefix.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "embedded": embedded,
        "svg": _svg,
        "wide": _wide,
        "value": _value,
        "rows": _rows,
        "filled": _filled,
        "names": _names,
    }
    return environment


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def embedded(value: Any) -> Markup:
    """JSON that can stand in a ``<script>`` element, whatever texts it holds.

    The characters that could end the element, or begin a comment or another script in it, stand in
    texts only, and are written as escapes there; so are those that are no JavaScript or no UTF-8.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(
        re.sub("[<>&\u2028\u2029\x7f\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
    )


def _svg(figure: Figure) -> Markup:
    """A drawing, which :mod:`polyprefix.report.figures` has made of escaped texts."""
    return Markup(figure.svg)


def _wide(figure: Figure) -> bool:
    """Whether a drawing is too wide for one of two columns."""
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', figure.svg)
    return box is not None and float(box[1]) > WIDE


def _names(text: str) -> Markup:
    """A sentence, in which names of methods stand in backticks."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<b>{}</b>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Without columns in which nothing is."""
    return table.dropna(axis="columns", how="all")


def _rows(table: pd.DataFrame) -> list[list[Any]]:
    return [list(row) for row in table.itertuples(index=False)]


def _value(value: Any) -> str:
    """A value of a figure's table, as a text."""
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral):
        return "" if isnan(value) else f"{value:.4g}"
    return str(value)
