"""Tables of what there is."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def methods(console: Console) -> None:
    """Name, title, paper, keys with their defaults, default learning rate."""
    from polyprefix.methods import REFERENCE_WIDTH
    from polyprefix.methods import methods as registered

    table = _table("method", "title", "keys (default)", "learning rate", "paper")
    for name, adapter in registered().items():
        config = adapter.Config()
        keys = ", ".join(f"{key} ({value})" for key, value in config.model_dump().items())
        rate = adapter.reference_learning_rate(config)
        shown = f"{rate:g} · {REFERENCE_WIDTH}/d" if rate else "-"
        table.add_row(name, adapter.title, keys, shown, adapter.paper)
    console.print(table, markup=False)


def tasks(console: Console) -> None:
    """Name, title, languages, labels or metrics, prompts, hub name, licence, paper."""
    from polyprefix.tasks import AnswerTask, ChoiceTask
    from polyprefix.tasks import tasks as registered

    table = _table(
        "task",
        "title",
        "languages",
        "labels or metrics",
        "other prompts",
        "data on the hub",
        "licence",
        "paper",
    )
    for name, task in registered().items():
        kind = task.labels if isinstance(task, ChoiceTask) else ()
        if isinstance(task, AnswerTask):
            kind = task.metrics
        table.add_row(
            name,
            task.title,
            str(len(task.language_codes)),
            ", ".join(kind),
            ", ".join(f"@{variant}" for variant in task.variants),
            task.hub or "(packaged)",
            task.license,
            task.paper,
        )
    console.print(table, markup=False)


def models(console: Console) -> None:
    """Packaged models, and the families that any other model may be of."""
    from polyprefix.models import PACKAGED, families

    table = _table("packaged model", "folder")
    for name, folder in PACKAGED.items():
        table.add_row(name, str(folder))
    console.print(table, markup=False)
    known = ", ".join(families())
    console.print(f"Any model of these families, from the hub or a folder: {known}", markup=False)


def languages(console: Console) -> None:
    """The language table."""
    from polyprefix.languages import languages as table_of

    table = _table("code", "name", "family", "branch", "script", "resource level", "speakers")
    for code, language in table_of().items():
        level = language.resource_level
        table.add_row(
            code,
            language.name,
            language.family,
            language.branch,
            language.script,
            "" if level is None else str(level),
            "" if language.speakers is None else f"{language.speakers:,}",
        )
    console.print(table, markup=False)


def engines(console: Console) -> None:
    """What ``--on`` names, and the keys of ``--engine-set`` with their defaults."""
    from polyprefix.study.engines import engines as registered

    table = _table("engine", "title", "keys (default)")
    for name, engine in registered().items():
        defaults = {
            key: field.get_default(call_default_factory=True)
            for key, field in engine.Config.model_fields.items()
        }
        keys = ", ".join(
            f"{key} ({default})" if default else key for key, default in defaults.items()
        )
        table.add_row(name, engine.title, keys)
    console.print(table, markup=False)
