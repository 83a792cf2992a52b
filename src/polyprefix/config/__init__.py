"""Strict specifications, their files, run identity, and errors that a user can act on."""

from polyprefix.config.errors import (
    ConfigError,
    DataError,
    OutOfMemory,
    PolyprefixError,
    RunError,
    RunLocked,
    UnsupportedModel,
    Unwritable,
    unknown,
)
from polyprefix.config.files import override, parse_value, put, read_yaml
from polyprefix.config.identity import digest
from polyprefix.config.registry import Registry
from polyprefix.config.run import (
    DecodingConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    TaskConfig,
    TrainConfig,
    is_task_file,
)
from polyprefix.config.spec import Spec
from polyprefix.config.study import (
    Study,
    StudyConfig,
    StudyFile,
    StudyRun,
    expand,
    read_study,
    run_key,
    sweep,
)
from polyprefix.config.text import Line, printable

__all__ = [
    "ConfigError",
    "DataError",
    "DecodingConfig",
    "Line",
    "ModelConfig",
    "OutOfMemory",
    "PolyprefixError",
    "Registry",
    "RunConfig",
    "RunError",
    "RunLocked",
    "RuntimeConfig",
    "Spec",
    "Study",
    "StudyConfig",
    "StudyFile",
    "StudyRun",
    "TaskConfig",
    "TrainConfig",
    "UnsupportedModel",
    "Unwritable",
    "digest",
    "expand",
    "is_task_file",
    "override",
    "parse_value",
    "printable",
    "put",
    "read_study",
    "read_yaml",
    "run_key",
    "sweep",
    "unknown",
]
