"""What a study leaves beside the folders of its runs.

::

    runs/layers-and-length/
        belebele-prefix_tuning-1f0c2a9b7d3e/   a run, see folder.py
        study/runs/<key>.json                  which run a configuration became, or why it failed
        study/probes/<key>.json                what a probe measured
        report/index.html                      the page
        study/jobs/<key>.json                  the job that a cluster's queue has for it
        study/folder.json                      by which other machines know the folder again

A file a configuration, each written whole: there is no state that two processes, or a kill, could
leave half changed. A configuration that failed before there was a run to speak of, since its data
or its model was missing, has its error here as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from filelock import FileLock, Timeout

from polyprefix.config import RunError, Unwritable
from polyprefix.results.files import read_object, write_json
from polyprefix.results.folder import RunFolder

State = Literal["finished", "failed", "running", "stopped", "missing"]
"""``running``: a process is at it now. ``stopped``: begun, and nobody is at it."""


REMOVE = "Remove it: the same command makes it again"


class StudyFolder:
    """Reads and writes the files of one study; runs are named by the key of their configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def report(self) -> Path:
        """Where the page is, and what comes with it."""
        return self.path / "report"

    def begin(self, key: str, run: str) -> None:
        """A configuration has become a run; an earlier error is forgotten."""
        write_json(self._entry_path(key), {"run": run})

    def fail(self, key: str, error: str, traceback: str | None = None) -> None:
        """A configuration could not be run. ``traceback``: where it was a bug, of whomever."""
        kept = {"run": self._entry(key).get("run"), "error": error, "traceback": traceback}
        write_json(
            self._entry_path(key),
            {name: value for name, value in kept.items() if value is not None},
        )

    def error(self, key: str) -> str | None:
        """Why a configuration failed, ``None`` if it has not."""
        error: str | None = self._entry(key).get("error")
        return error

    def run(self, key: str) -> RunFolder | None:
        """The run that a configuration became."""
        name = self._entry(key).get("run")
        return None if name is None else RunFolder(self.path / name)

    def record(self, key: str) -> dict[str, Any] | None:
        """The record of a configuration's finished run."""
        folder = self.run(key)
        if folder is None or not folder.has_record():
            return None
        record = folder.record()
        return record if record["status"] == "finished" else None

    def state(self, key: str) -> State:
        """How far a configuration is."""
        if self.record(key) is not None:
            return "finished"
        if self.error(key) is not None:
            return "failed"
        folder = self.run(key)
        if folder is None:
            return "missing"
        return "running" if _held(folder.lock) else "stopped"

    def probe(self, key: str) -> dict[str, Any] | None:
        """What a probe measured, if it was made."""
        path = self._probe_path(key)
        return _read(path) if path.is_file() else None

    def write_probe(self, key: str, values: dict[str, Any]) -> None:
        """Keep what a probe measured, for :meth:`probe`."""
        write_json(self._probe_path(key), values)

    def job(self, key: str) -> dict[str, Any] | None:
        """The ``job`` that was submitted last for a configuration, and to which ``cluster``."""
        path = self._job_path(key)
        return _read(path) if path.is_file() else None

    def write_job(self, key: str, cluster: str, job: str) -> None:
        write_json(self._job_path(key), {"cluster": cluster, "job": job})

    def mark(self) -> str:
        """What this folder, and no other, is known by on every machine; made when first asked for.

        Raises:
            Unwritable: the folder cannot be written to.
        """
        path = self._mark_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(".folder.lock")):  # two drivers must not make two
                if not path.is_file():
                    write_json(path, {"id": uuid4().hex})
        except OSError as error:
            raise Unwritable(
                f"cannot write to {str(path.parent)!r}: {error.strerror or error}"
            ) from error
        mark: str = _read(path)["id"]
        return mark

    def marked(self, mark: str) -> bool:
        """Whether this is the folder that is known by ``mark``."""
        return self._mark_path.is_file() and _read(self._mark_path).get("id") == mark

    @property
    def _mark_path(self) -> Path:
        return self.path / "study" / "folder.json"

    def _job_path(self, key: str) -> Path:
        return self.path / "study" / "jobs" / f"{key}.json"

    def _entry_path(self, key: str) -> Path:
        return self.path / "study" / "runs" / f"{key}.json"

    def _probe_path(self, key: str) -> Path:
        return self.path / "study" / "probes" / f"{key}.json"

    def _entry(self, key: str) -> dict[str, Any]:
        path = self._entry_path(key)
        found = _read(path) if path.is_file() else {}
        if not all(isinstance(found.get(name), str | None) for name in ("run", "error")):
            raise RunError(f"{path} is damaged: 'run' or 'error' is no text. {REMOVE}")
        return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except RunError as error:
        raise RunError(f"{error}. {REMOVE}") from error


def _held(lock: Path) -> bool:
    """Whether a process holds a lock, asked by holding it for an instant."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True
