"""The tasks there are: those of this package and those that other packages announce."""

from __future__ import annotations

from typing import TypeVar

from polyprefix.config import ConfigError, Registry
from polyprefix.tasks.base import ChoiceTask

T = TypeVar("T", bound=ChoiceTask)


def register_task(task: type[T]) -> type[T]:
    """Class decorator: make a task known by its name.

    Raises:
        ValueError: the name is taken, or labels and choices do not fit together.
    """
    if len(task.labels) != len(task.prompt.choices):
        raise ValueError(
            f"task {task.name!r}: {len(task.labels)} labels, {len(task.prompt.choices)} choices"
        )
    if type(_TASKS.things.get(task.name)) is not task:
        _TASKS.add(task.name, task())
    return task


_TASKS: Registry[ChoiceTask] = Registry(
    "task", "polyprefix.tasks", register_task, ConfigError, key="key 'task.name': "
)


def tasks() -> dict[str, ChoiceTask]:
    """All tasks by name, those of other packages included."""
    return _TASKS.all()


def get_task(name: str) -> ChoiceTask:
    """The task of that name.

    Raises:
        ConfigError: there is none.
    """
    return _TASKS.get(name)
