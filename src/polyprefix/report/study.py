"""A study as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from polyprefix.analysis import Setting
from polyprefix.config import Study
from polyprefix.report.console import named, new_table, number, plain, signed

SELECTION = (
    "Checkpoints are selected on the source language's dev split alone, and so is {keys}. No score "
    "of another language, and no test score, has a part in any choice."
)


def duration(seconds: float) -> str:
    """For people: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def show_notes(title: str, said: Sequence[tuple[str, str]], console: Console) -> None:
    """A study's title and its notes, see :func:`notes`."""
    console.print(plain(title, style="bold"))
    for name, text in said:
        console.print(Text.assemble((f"{name}: ", "bold"), plain(text)))


def notes(study: Study) -> list[tuple[str, str]]:
    """What the study says of its paper, with what each text is about."""
    found = [
        (name, " ".join(getattr(study.config, name).split()))
        for name in ("paper", "reports", "unknown", "chosen")
    ]
    return [(name, text) for name, text in found if text]


def show_settings(found: Sequence[Setting], select: Sequence[str], console: Console) -> None:
    """A table for each task and model: a row a setting, means over seeds; how it was selected."""
    for group in groups(found):
        record = group[0].runs[0].record
        task = record["task"]
        console.print(plain(f"{task['title']} on {record['model']['name']}", style="bold"))
        keys = list(dict.fromkeys(key for setting in group for key in setting.labels))
        differing = [key for key in keys if len({str(s.labels.get(key)) for s in group}) > 1]
        # Of one setting, the method says what it is, where the study has several.
        keys = differing or [key for key in keys if key == "method.name"] or keys
        columns = ("dev", "source", "mean of others", "±", "gap", "seeds")
        table = new_table(*keys, *columns, left=len(keys))
        for setting in group:
            table.add_row(
                *(label(setting, key) for key in keys),
                number(setting.dev),
                number(setting.source),
                number(setting.target),
                number(setting.spread),
                "" if setting.gap is None else signed(setting.gap),
                str(len(setting.runs)),
            )
        console.print(table)
        score = f"The score is {named(task['headline'])}; ± is the standard deviation over seeds."
        console.print(plain(score))
    console.print(plain(selection(select)))


def selection(select: Sequence[str]) -> str:
    """How models are selected, in a sentence."""
    if not select:
        return SELECTION.replace(", and so is {keys}", "")
    return SELECTION.format(keys=" and ".join(select))


def label(setting: Setting, key: str) -> str:
    """The value of a key, with the number of values that it was selected from."""
    value = setting.labels.get(key)
    text = "" if value is None else _plain(value)
    many = key in setting.selected and setting.candidates > 1
    return f"{text} (of {setting.candidates})" if many else text


def groups(found: Sequence[Setting]) -> list[list[Setting]]:
    """Settings of one task and model, which can be compared."""
    together: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in found:
        record = setting.runs[0].record
        task, model = record["task"], record["model"]
        key = (task["name"], task["source_language"], model["name"], model["revision"])
        together.setdefault(key, []).append(setting)
    return list(together.values())


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
