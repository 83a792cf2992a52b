"""The tasks there are: those of this package and those that other packages announce."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TypeVar

from polyprefix.config import ConfigError, unknown
from polyprefix.tasks.base import ChoiceTask

T = TypeVar("T", bound=ChoiceTask)

_TASKS: dict[str, ChoiceTask] = {}
_loaded_entry_points = False


def register_task(task: type[T]) -> type[T]:
    """Class decorator: make a task known by its name.

    Raises:
        ValueError: the name is taken, or labels and choices do not fit together.
    """
    known = _TASKS.get(task.name)
    if known is not None and type(known) is not task:
        raise ValueError(f"task {task.name!r} is registered already")
    if len(task.labels) != len(task.prompt.choices):
        raise ValueError(
            f"task {task.name!r}: {len(task.labels)} labels, {len(task.prompt.choices)} choices"
        )
    _TASKS[task.name] = task()
    return task


def tasks() -> dict[str, ChoiceTask]:
    """All tasks by name, those of other packages included."""
    global _loaded_entry_points
    if not _loaded_entry_points:
        for entry in entry_points(group="polyprefix.tasks"):
            register_task(entry.load())
        _loaded_entry_points = True
    return dict(sorted(_TASKS.items()))


def get_task(name: str) -> ChoiceTask:
    """The task of that name.

    Raises:
        ConfigError: there is none.
    """
    known = tasks()
    if name not in known:
        raise ConfigError("key 'task.name': " + unknown("task", name, known))
    return known[name]
