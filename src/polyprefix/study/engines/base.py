"""What executes the runs of a study: the interface, and the engines there are."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from polyprefix.config import ConfigError, Registry, Spec, StudyRun, put
from polyprefix.results import Progress, StudyFolder
from polyprefix.study.kept import Kept


@dataclass(frozen=True)
class Work:
    """What an engine is to do.

    Attributes:
        runs: to be executed; those of one backbone stand together.
        folder: of the study; what there is to know of a run stands there.
        again: run anew what is finished or was begun.
        kept: what planning has loaded in this process, and what it could not load.
        progress: shown what is going on.
    """

    runs: Sequence[StudyRun]
    folder: StudyFolder
    again: bool
    kept: Kept
    progress: Progress


class NoKeys(Spec):
    """Of an engine that has nothing to set."""


class Engine(ABC):
    """Executes runs.

    Whatever it is, a run goes through :func:`polyprefix.study.single.run_single`, which takes the
    run's lock and leaves the same files. An engine has no state that the study's folder has not: it
    may be killed and started again.

    Attributes:
        name: by which ``--on`` names it.
        title: what it is, in a few words.
        Config: its keys, of ``--engine-set``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Config: ClassVar[type[Spec]] = NoKeys

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def execute(self, work: Work) -> None:
        """Bring every run to its end, but those that another process keeps working on.

        A run that fails is written down as failed, and the others go on.

        Raises:
            PolyprefixError: what no other run could get past.
        """


E = TypeVar("E", bound=type[Engine])


def register_engine(engine: E) -> E:
    """Class decorator: make an engine known by its name. ``ValueError`` if the name is taken."""
    _ENGINES.add(engine.name, engine)
    return engine


_ENGINES: Registry[type[Engine]] = Registry(
    "engine", "polyprefix.engines", register_engine, ConfigError, key="--on: "
)


def engines() -> dict[str, type[Engine]]:
    """All engines by name, those of other packages included."""
    return _ENGINES.all()


def make_engine(name: str, settings: Iterable[str] = ()) -> Engine:
    """An engine with its settings, ``key=value``.

    Values are taken as they stand, not as YAML, which would read ``4:00:00`` as a number.

    Raises:
        ConfigError: no such engine, or key; a wrong value; or what the engine needs is missing.
    """
    kind = _ENGINES.get(name)
    values: dict[str, Any] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--engine-set {setting!r}: expected key=value, as in cpus=4")
        if not kind.Config.model_fields:
            raise ConfigError(
                f"--engine-set {setting!r} has no effect: engine {name!r} has no keys"
            )
        put(values, key, value)
    return kind(kind.Config.read(values, f"--engine-set of {name}"))


def needed(module: str, extra: str) -> Any:
    """A package that only an engine wants.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"--on {extra} needs {module!r}: pip install 'polyprefix[{extra}]' ({error})"
        ) from None
