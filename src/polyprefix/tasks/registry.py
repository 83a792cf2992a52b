"""The tasks there are: those of this package and those that other packages announce."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from polyprefix.config import ConfigError, Registry, is_task_file
from polyprefix.tasks.base import ChoiceTask, Task
from polyprefix.tasks.yaml_task import load_task_file

T = TypeVar("T", bound=Task)


def register_task(task: type[T]) -> type[T]:
    """Class decorator: make a task known by its name.

    Raises:
        ValueError: the name is taken, or labels and choices do not fit together.
    """
    labels = task.labels if issubclass(task, ChoiceTask) else ()
    prompts = [task.prompt, *(p for variant in task.variants.values() for p in variant.values())]
    for prompt in prompts:
        if len(prompt.choices) != len(labels):
            raise ValueError(
                f"task {task.name!r}: {len(labels)} labels, {len(prompt.choices)} choices"
            )
    if type(_TASKS.things.get(task.name)) is not task:
        _TASKS.add(task.name, task())
    return task


_TASKS: Registry[Task] = Registry(
    "task", "polyprefix.tasks", register_task, ConfigError, key="key 'task.name': "
)


def tasks() -> dict[str, Task]:
    """All tasks by name, those of other packages included."""
    return _TASKS.all()


def get_task(name: str) -> Task:
    """The task of that name, or the task that a YAML file defines, if the name is its path.

    Raises:
        ConfigError: there is none, or what the file says cannot be meant.
    """
    if is_task_file(name):
        task = load_task_file(Path(name).expanduser())
        if task.name in tasks():
            raise ConfigError(f"{name}: key 'name': there is a task {task.name!r} already")
        return task
    return _TASKS.get(name)
