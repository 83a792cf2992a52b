"""A comparison as one HTML page: no script, nothing fetched, light and dark."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from polyprefix.analysis import Comparison
from polyprefix.languages import get
from polyprefix.report.console import named
from polyprefix.results import write_atomically


@cache
def _template() -> Template:
    # Names of languages, models and tasks are data: everything is escaped.
    environment = Environment(
        loader=PackageLoader("polyprefix.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html")


def write_page(comparison: Comparison, path: Path) -> None:
    """Write a page: a row for each method, a column for each language, shaded by its score."""
    record = comparison.runs[0].record
    text = _template().render(
        comparison=comparison,
        record=record,
        languages=[get(code) for code in comparison.languages],
        headline=named(comparison.headline),
        calibrated=any(run.calibrated is not None for run in comparison.runs),
        shade=lambda score: _shade(score, comparison.majority or 0.0),
    )
    write_atomically(path, text)


def _shade(score: float, majority: float) -> str:
    """How much colour a score has, in percent: none at the majority class, all of it at 1."""
    return f"{100 * max(0.0, (score - majority) / max(1e-9, 1 - majority)):.0f}%"
