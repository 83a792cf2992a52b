"""The papers' experiments, as studies that come with the package: a folder a paper."""

from __future__ import annotations

from pathlib import Path

from polyprefix.config import ConfigError, unknown

FOLDER = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Files by name: ``less-is-more/lengths``."""
    files = sorted(FOLDER.glob("*/*.yaml"))
    return {f"{path.parent.name}/{path.stem}": path for path in files}


def find_study(name: str) -> Path:
    """The file of that name, or the shipped study.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    studies = shipped()
    if name not in studies:
        raise ConfigError(f"there is no such file; {unknown('study', name, studies)}")
    return studies[name]
