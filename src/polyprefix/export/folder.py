"""The folder of an export: it appears whole, and replaces nothing but an earlier export."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from polyprefix.config import RunError, Unwritable
from polyprefix.results import read_json, write_json

MANIFEST = "polyprefix-export.json"
"""Says what an export is of, and which files are its."""


@dataclass
class Made:
    """A folder in the making.

    Attributes:
        path: where to write.
        manifest: what :data:`MANIFEST` says beside the list of files.
    """

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)


@contextmanager
def made_whole(output: Path, *, overwrite: bool) -> Iterator[Made]:
    """A folder to write into that becomes ``output`` at the end, and is gone after an error.

    With ``overwrite`` the files of an earlier export are replaced; other files in its folder (a
    repository's, say) stay.

    Raises:
        RunError: ``output`` is a file, or not empty and not to be overwritten, or holds files that
            are not of an earlier export.
        Unwritable: the disk is full, or the folder cannot be written to.
    """
    old = _earlier(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise _unwritable(output, error) from error
    made = Made(temporary)
    try:
        yield made
        files = sorted(str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file())
        write_json(temporary / MANIFEST, made.manifest | {"files": files})
        temporary.chmod(0o755)
        if not output.exists():
            os.replace(temporary, output)
            return
        for name in [MANIFEST, *old]:  # first what says that it is whole
            (output / name).unlink(missing_ok=True)
        for name in [*files, MANIFEST]:
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, output / name)
    except (OSError, SafetensorError) as error:
        raise _unwritable(output, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _earlier(output: Path, overwrite: bool) -> list[str]:
    """The files of an export that is there already."""
    if not output.exists():
        return []
    if not output.is_dir():
        raise RunError(f"{str(output)!r} is a file: --output is a folder")
    if not any(output.iterdir()):
        return []
    if not overwrite:
        raise RunError(
            f"{str(output)!r} is not empty: give another folder, or --overwrite to replace an "
            "earlier export in it"
        )
    if not (output / MANIFEST).is_file():
        raise RunError(
            f"{str(output)!r} holds files that no export of Polyprefix has written (it has no "
            f"{MANIFEST}): give another folder, or empty it yourself"
        )
    names = read_json(output / MANIFEST).get("files", [])
    # a name that leads out of the folder is not ours, whoever wrote it there
    root = output.resolve()
    return [name for name in names if (output / name).resolve().is_relative_to(root)]


def _unwritable(output: Path, error: Exception) -> Unwritable:
    reason = getattr(error, "strerror", None) or error
    return Unwritable(f"cannot write to {str(output)!r}: {reason}")
