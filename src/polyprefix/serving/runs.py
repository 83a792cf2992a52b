"""Finished runs that are served together: one backbone, and an adapter for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyprefix.config import ConfigError, RunError
from polyprefix.methods import AdaptedModel, get_method, load_adapter, method_config
from polyprefix.models import PACKAGED
from polyprefix.results import RunFolder
from polyprefix.study.predict import Predictor
from polyprefix.study.run import finished_record, load_run


@dataclass(frozen=True)
class Served:
    """A name that requests can give.

    Attributes:
        name: the run's, or the backbone's.
        adapter: its name on the model, ``None`` for the backbone as it is.
        record: the run's.
        predictor: answers examples of the run's task.
    """

    name: str
    adapter: str | None
    record: dict[str, Any] | None = None
    predictor: Predictor | None = None


def load_runs(
    folders: Sequence[Path], device: str | None = None
) -> tuple[AdaptedModel, dict[str, Served]]:
    """The model of finished runs of one backbone, and what it serves by name: each run by its
    folder's name, and the backbone by its own, unless a run has tuned it.

    Args:
        folders: the runs'.
        device: where to compute, by default where the first run's configuration says.

    Raises:
        RunError: a run is not finished or damaged; backbones differ; a run that tunes the backbone
            is not alone.
        ConfigError: two runs have the same name.
    """
    runs = [RunFolder(Path(folder).resolve()) for folder in folders]
    records = [finished_record(run) for run in runs]
    _can_share(runs, records)
    model, _ = load_run(runs[0], device, name="run0")
    for number, run in enumerate(runs[1:], start=1):
        load_adapter(model, run.adapter, f"run{number}")
    model.use(None)
    served = {}
    for number, (run, record) in enumerate(zip(runs, records, strict=True)):
        adapter = f"run{number}"
        served[run.id] = Served(run.id, adapter, record, Predictor(model, record, adapter))
    if not model.backbone.tuned:
        name = _backbone_name(model.backbone.name)
        if name in served:
            raise ConfigError(f"a run has the name of the backbone, {name!r}: rename its folder")
        served[name] = Served(name, None)
    return model, served


def _can_share(runs: Sequence[RunFolder], records: Sequence[dict[str, Any]]) -> None:
    names: dict[str, RunFolder] = {}
    for run, record in zip(runs, records, strict=True):
        if (other := names.setdefault(run.id, run)) is not run:
            raise ConfigError(
                f"{str(other.path)!r} and {str(run.path)!r} would be served by one name: rename a "
                "folder"
            )
        # dtype and whatever else makes the same weights compute otherwise are in the identity
        first, own = (r["identity"]["model"] for r in (records[0], record))
        if own != first:
            raise RunError(
                f"{runs[0].id!r} and {run.id!r} are of different backbones, "
                f"{_said(records[0])} and {_said(record)}: serve them by processes of their own"
            )
        method = record["config"]["method"]
        if len(runs) > 1 and not get_method(method["name"]).mixes(method_config(method)):
            raise RunError(
                f"{run.id!r} ({method['name']}) has trained the backbone's own weights, which "
                "other runs cannot share: serve it alone"
            )


def _said(record: dict[str, Any]) -> str:
    model = record["model"]
    return f"{model['name']} ({model['dtype']}, revision {model['revision']})"


def _backbone_name(name: str) -> str:
    """Of a folder its last part: clients have no use for the path."""
    return name if name in PACKAGED or not Path(name).is_dir() else Path(name).resolve().name
