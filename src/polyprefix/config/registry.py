"""Named things of one kind: those of this package and those that other packages announce."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from polyprefix.config.errors import PolyprefixError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Things by name.

    Args:
        kind: what the things are, for messages.
        group: of the entry points by which other packages announce theirs.
        register: puts in what an entry point gives; loading it may have done so already.
        error: raised for an unknown name.
        key: where in a configuration the name stands, for messages.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        register: Callable[[Any], object],
        error: type[PolyprefixError],
        key: str = "",
    ) -> None:
        self.kind, self.group, self.register = kind, group, register
        self.error, self.key = error, key
        self.things: dict[str, T] = {}
        self._announced = False

    def add(self, name: str, thing: T) -> T:
        """Put a thing in. ``ValueError`` if another has the name."""
        if self.things.setdefault(name, thing) is not thing:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        return thing

    def all(self) -> dict[str, T]:
        """By name, in alphabetical order."""
        if not self._announced:
            # First, so that what an announced module does at import may ask for what there is.
            self._announced = True
            for entry in entry_points(group=self.group):
                self.register(entry.load())
        return dict(sorted(self.things.items()))

    def get(self, name: str, hint: str = "") -> T:
        """The thing of that name.

        Raises:
            PolyprefixError: of the registry's own kind: there is none; suggests a close one.
        """
        known = self.all()
        if name not in known:
            raise self.error(self.key + unknown(self.kind, name, known) + hint)
        return known[name]
