"""Strict configuration objects and the text of their errors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from polyprefix.config.errors import ConfigError
from polyprefix.config.files import Place

LONGEST = 200
"""Characters of a wrong value that are shown."""


class Spec(BaseModel):
    """A frozen configuration that rejects keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def read(
        cls,
        values: Mapping[str, Any],
        where: str = "",
        lines: Mapping[Place, int] | None = None,
    ) -> Self:
        """Validate ``values``.

        Args:
            values: a mapping, as from YAML.
            where: what the values belong to, for the message: a file, a key.
            lines: of the file, by the path of the key that stands there.

        Raises:
            ConfigError: names each offending key, what it may be, and a close known key.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{_place(where, lines or {}, problem['loc'])}{_explain(cls, problem)}"
                for problem in error.errors()
            ]
            raise ConfigError("\n".join(problems)) from None


def _place(where: str, lines: Mapping[Place, int], path: Place) -> str:
    """The file, and the line of a key or of the nearest thing that it stands in."""
    if not where:
        return ""
    found = [line for n in range(len(path), 0, -1) if (line := lines.get(path[:n])) is not None]
    return f"{where}, line {found[0]}: " if found else f"{where}: "


def _fields_at(spec: type[BaseModel], path: Place) -> list[str]:
    """Field names of the configuration object at ``path``."""
    for key in path:
        field = spec.model_fields.get(str(key))
        inner = None if field is None else field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        spec = inner
    return list(spec.model_fields)


def _explain(spec: type[BaseModel], problem: Any) -> str:
    path: Place = problem["loc"]
    key = ".".join(str(part) for part in path)
    if not key:  # a check of the whole: its text says all, its input would be everything
        return str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = _fields_at(spec, path[:-1])
        close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"unknown key {key!r}.{hint} Known keys: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"key {key!r} is required."
    given = repr(problem["input"])
    shown = given if len(given) <= LONGEST else f"{given[:LONGEST]}..."
    return f"key {key!r}: {problem['msg']} (got {shown})."
