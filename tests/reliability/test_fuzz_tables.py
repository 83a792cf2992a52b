"""Any texts in records, studies and errors: a terminal and the page show them as texts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from polyprefix.analysis import LabelledRun, Setting
from polyprefix.analysis import settings as settings_of
from polyprefix.config import Study, StudyConfig, printable
from polyprefix.report import show_record, show_settings, write_page
from polyprefix.report.study import notes, show_notes
from tests.conftest import Cli
from tests.reliability.hostile import TEXTS
from tests.report_records import write_data, write_runs
from tests.test_report import Outline

FUZZ = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])

MARKUP = ["[bold]x[/bold]", "[/x]", "[link=file:///x]y[/link]", ":smile:", "\\[x]", "[", "[[/]]"]

SHOWN = st.one_of(
    st.sampled_from([*MARKUP, *(text for text in TEXTS.values() if len(text) < 100)]),
    st.text(min_size=1, max_size=12),
)

MOVES = [*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
MOVES += [*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
"""What a terminal, or a reader of its lines, would do something with; a line break stays."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Setting], Path]:
    folder = tmp_path_factory.mktemp("runs")
    data = write_data(tmp_path_factory.mktemp("data"), ["eng_Latn", "deu_Latn"], rows=7)
    return write_runs(folder, data, {"none": 0.4, "lora": 0.8}, seeds=(0,)), folder


def changed(found: Sequence[Setting], text: str) -> list[Setting]:
    """The settings, with a text wherever a record or a study has one of somebody's.

    No configuration holds an unpaired surrogate, and so names and labels do not."""
    given = valid(text)
    runs = []
    for setting in found:
        for run in setting.runs:
            record = json.loads(json.dumps(run.record))
            record["task"]["title"] = record["method"]["title"] = text
            record["model"]["name"] = given
            record["versions"][text] = text
            labels = {given: f"{given}{len(runs)}", **run.labels}
            runs.append(LabelledRun(labels, record | {"status": "failed", "error": text}))
    return settings_of(runs)


def valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def printed(show: Callable[[Console], None]) -> str:
    out = io.StringIO()
    show(Console(file=out, width=2000))
    shown = out.getvalue()
    assert not set(map(ord, shown)) & set(MOVES), repr(shown)
    return shown


def squeezed(text: str) -> str:
    """Without the spaces and lines that tables are laid out with."""
    return "".join(text.split())


@FUZZ
@given(text=SHOWN)
@example(text="[/x]")
@example(text="\x1b[31m\x9b1m")
@example(text="\u202e\u2067")
@example(text="\ud800")
def test_any_text_in_a_terminal(text: str, found: tuple[list[Setting], Path]) -> None:
    runs = changed(found[0], text)
    record = runs[0].runs[0].record
    whole = squeezed(printable(text))
    shown = squeezed(printed(lambda console: show_record(record, console)))
    assert shown.count(whole) >= 2
    shown = squeezed(printed(lambda console: show_settings(runs, (), console)))
    whole = squeezed(printable(valid(text)))
    assert all(f"{whole}{n}" in shown for n in range(len(runs)))
    grid = {"method.name": ["none"]}
    values = {"name": "x", "title": "A", "paper": valid(text), "grid": grid, "base": {}}
    study = Study(StudyConfig.read(values), "x.yaml", [])
    assert squeezed(printable(" ".join(valid(text).split()))) in squeezed(
        printed(lambda console: show_notes(study.config.title, notes(study), console))
    )


@settings(FUZZ, max_examples=6)
@given(text=SHOWN)
@example(text="</script><script>alert(1)</script>")
@example(text="{{ 7*7 }}{% raw %}")
@example(text="a\0\ud800b")
def test_any_text_in_the_page(
    text: str, found: tuple[list[Setting], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("page") / "index.html"

    def outline(runs: list[Setting], title: str) -> Outline:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("polyprefix.report.figures.figures", lambda *_, **__: [])
            write_page(path, runs, found[1], title=title, notes=[(title, title)])
        read = Outline()
        read.feed(path.read_text(encoding="utf-8"))
        read.close()
        return read

    plain, hostile = outline(changed(found[0], "x"), "x"), outline(changed(found[0], text), text)
    assert hostile.tags == plain.tags
    assert hostile.open == hostile.handlers == []
    assert set(hostile.links) <= {f"#{name}" for name in hostile.ids}


def test_a_folder_of_runs_that_somebody_made(
    found: tuple[list[Setting], Path], tmp_path: Path, cli: Cli
) -> None:
    """``show`` prints a record's texts; an error prints the file's name."""
    folder = tmp_path / "a\x1b[31m"
    folder.mkdir()
    record: dict[str, Any] = changed(found[0], "\x1b]0;x\x07\u202e[/x]")[0].runs[0].record
    (folder / "record.json").write_text(json.dumps(record))
    status, out, _ = cli("show", str(folder))
    assert status == 0
    assert "\\x1b]0;x\\x07\\u202e[/x]" in out
    assert not set(map(ord, out)) & set(MOVES)
    (folder / "record.json").write_text("[")
    status, _, error = cli("show", str(folder))
    assert status == 2
    assert "a\\x1b[31m" in error
    assert not set(map(ord, error)) & set(MOVES)
