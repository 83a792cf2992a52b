"""The reference of configurations, from their classes: every key, type, default and meaning."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generate.text import code, docstring, table
from polyprefix.config import RunConfig, Spec, StudyConfig
from polyprefix.tasks.yaml_spec import TaskSpec

INTRODUCTION = """# Configuration

What a run is made of, key by key. A key stands in a YAML file in its section, and on the command
line as `--set SECTION.KEY=VALUE`. A key that is unknown is an error that names the closest one, and
so is a key that would have no effect. What is left out has the default that stands here.

```yaml
model: {name: polyprefix/nano}
method: {name: prefix_tuning, length: 20}
task: {name: sib200, data: sib200/, languages: "en,sw,tr"}
train: {steps: 200}
seed: 1
```

`method` has the keys of its method, which are on [the method's page](../methods/index.md).

"""

STUDY = """
## A study {#study}

A study's file has its notes, what all runs have, and what varies. See
[Reproducing a paper](../tutorials/reproducing-a-paper.md).

"""

TASK = """
## A task of your own {#task-file}

The file that `task.name` may be the path of. [The tutorial](../tutorials/your-own-task.md) writes
one.

"""


def page() -> str:
    """Runs, studies and files of tasks."""
    parts = [INTRODUCTION, "## The whole {#run}\n\n", keys(RunConfig)]
    for name, field in RunConfig.model_fields.items():
        if (section := _section(field)) is not None:
            parts += [
                f"\n## `{name}` {{#{name}}}\n\n",
                about(section),
                "\n\n",
                keys(section, f"{name}."),
            ]
    parts += [STUDY, keys(StudyConfig), TASK, keys(TaskSpec)]
    for name in ("columns", "hub"):
        inner = _section(TaskSpec.model_fields[name])
        assert inner is not None
        parts += [
            f"\n### `{name}` {{#task-file-{name}}}\n\n",
            about(inner),
            "\n\n",
            keys(inner, f"{name}."),
        ]
    return "".join(parts)


def about(spec: type[Spec]) -> str:
    """What its docstring says."""
    return docstring(spec.__module__, spec.__name__)


def keys(spec: type[Spec], prefix: str = "") -> str:
    """A table of a configuration's keys.

    Raises:
        KeyError: a key says nothing of itself.
    """
    rows = [
        (code(prefix + name), type_of(field), default_of(field), meaning(spec, name))
        for name, field in spec.model_fields.items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def meaning(spec: type[Spec], name: str) -> str:
    """What stands under a key, in its own class or in the one that it comes from."""
    owner = next(base for base in spec.__mro__ if name in inspect.get_annotations(base))
    return docstring(owner.__module__, owner.__name__, name)


def default_of(field: FieldInfo) -> str:
    """The default; a section's is to have its own."""
    if field.is_required():
        return "required"
    if _section(field) is not None:
        return ""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value in ({}, ()) or value is None:
        return "`null`" if value is None else ""
    return code(_yaml(value))


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_yaml, value))}]"
    return '""' if value == "" else str(value)


def type_of(field: FieldInfo) -> str:
    """A type in words."""
    if (section := _section(field)) is not None:
        return "section" if section is not None else ""
    return _words(field.annotation, tuple(field.metadata))


def _section(field: FieldInfo) -> type[Spec] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Spec) else None


NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    Any: "anything",
}


def _words(kind: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(inside[0], metadata + inside[1:])
    if origin is Literal:
        return ", ".join(code(_yaml(value)) for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part, metadata) for part in inside if part is not type(None))
    if origin is tuple and inside[-1] is not Ellipsis:
        return f"list of {len(inside)}: {_words(inside[0])}"
    if origin in (tuple, list):
        return f"list: {_words(inside[0])}"
    if origin is dict:
        return f"mapping to {_words(inside[1])}" if inside[1] is not Any else "mapping"
    return NAMES.get(kind, getattr(kind, "__name__", str(kind))) + _bounds(metadata)


def _bounds(metadata: tuple[Any, ...]) -> str:
    """Limits of a number, as pydantic keeps them."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found: list[str] = []
    for item in metadata:
        parts = getattr(item, "metadata", None) or [item]  # pydantic's Field holds several
        for part in parts:
            found += [
                f"{sign} {getattr(part, name):g}"
                for name, sign in signs.items()
                if getattr(part, name, None) is not None
            ]
    return f" {', '.join(found)}".replace(" ", "\N{NO-BREAK SPACE}") if found else ""
