"""Reading configuration files and ``--set key=value`` overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from polyprefix.config.errors import ConfigError

Place = tuple[str | int, ...]
"""Keys and numbers of list items, from the top of a file inwards."""


TRUTH = "tag:yaml.org,2002:bool"
NOT_PLAIN = (TRUTH, "tag:yaml.org,2002:timestamp")
"""What YAML 1.1 makes of ``no`` (a precision, Norwegian) and ``2024-01-31`` (a revision)."""


class _Loader(yaml.SafeLoader):
    """Truth values are ``true`` and ``false``, as in YAML 1.2, and there are no dates. Where a key
    wants a truth value, ``yes`` and ``no`` are understood as before."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in NOT_PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    TRUTH, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _parsed(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, also where the library stumbles over it: a tag on a value
            that it is not for, a number without digits, a mapping that holds itself.
    """
    try:
        value = yaml.load(text, _Loader)
        _check_ends(value, set(), set())
    except yaml.YAMLError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise yaml.MarkedYAMLError(problem=f"{type(error).__name__}: {error}") from error
    return value


def _check_ends(value: Any, around: set[int], seen: set[int]) -> None:
    """Refuse what holds itself, by an alias of its own anchor: nothing could be done with it.

    Args:
        value: looked through.
        around: what it stands in.
        seen: what has been looked through, which many aliases may mean.
    """
    if not isinstance(value, dict | list) or id(value) in seen:
        return
    if id(value) in around:
        raise yaml.MarkedYAMLError(problem="an alias (*) of what it stands in")
    for item in value.values() if isinstance(value, dict) else value:
        _check_ends(item, {*around, id(value)}, seen)
    seen.add(id(value))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML (with line and column) or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration file {str(path)!r}: {error}") from None
    try:
        values = _parsed(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}{place}: {problem}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


def yaml_lines(path: Path) -> dict[Place, int]:
    """The line of each key and list item of a YAML file that :func:`read_yaml` has read, by its
    path: ``("base", "train", "steps")``.

    Raises:
        ConfigError: a key stands twice in one mapping.
    """
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return dict(_lines(root, (), path))


def _lines(node: yaml.Node | None, place: Place, path: Path) -> Iterator[tuple[Place, int]]:
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in first:
                raise ConfigError(
                    f"{path}, line {line}: the key {name!r} stands on line {first[name]} already"
                )
            first[name] = line
            yield (*place, name), line
            yield from _lines(value, (*place, name), path)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*place, number), value.start_mark.line + 1
            yield from _lines(value, (*place, number), path)


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """``values`` with each ``key.path=value`` applied; values are read as YAML.

    Raises:
        ConfigError: a setting without ``=``, or a path through something that is no mapping.
    """
    result = _copy(values)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise ConfigError(f"--set {setting!r}: expected key=value, as in train.steps=100")
        put(result, path, parse_value(text))
    return result


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, making the mappings on the way."""
    *parents, last = path.split(".")
    for key in parents:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"key {path!r}: {key!r} holds a value, not keys")
        values = inner
    values[last] = value


def parse_value(text: str) -> Any:
    """YAML, and numbers such as ``1e-3`` that YAML 1.1 takes for strings."""
    try:
        value = _parsed(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parse_values(text: str) -> list[Any]:
    """Several values with commas between them, each as :func:`parse_value` reads it.

    Raises:
        ConfigError: there are none, or they are not YAML.
    """
    try:
        values = _parsed(f"[{text}]")
    except yaml.YAMLError:
        values = None
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{text!r}: expected values with commas between them, as in 0,1,2")
    return [parse_value(value) if isinstance(value, str) else value for value in values]


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}
