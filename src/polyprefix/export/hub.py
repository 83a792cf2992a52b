"""``--to hub``: an adapter with a model card and the run's record, to be uploaded as it is.

Nothing is uploaded. Paths of the machine that the run was made on are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from polyprefix.analysis import group_scores, language_scores
from polyprefix.config import PolyprefixError
from polyprefix.export.base import Source, Target, public_name, register_target
from polyprefix.export.markdown import Raw, fenced, one_line, text
from polyprefix.languages import Language
from polyprefix.methods import AdaptedModel, load_adapter, save_adapter
from polyprefix.models import PACKAGED, load_backbone
from polyprefix.results import write_atomically, write_json
from polyprefix.tasks import AnswerTask, Task, get_task

CARD = "README.md"


@register_target
class Hub(Target):
    """See the module's text."""

    name = "hub"
    options = ("base_model", "license")

    def refuse(self, source: Source) -> None:
        """Whatever was run has a record and an adapter."""

    def write(self, source: Source, folder: Path) -> list[str]:
        base = source.options.get("base_model") or public_name(source.model.backbone.name)
        not_in_peft = save_adapter(source.adapter, folder, base)
        record = public_record(source.record)
        write_json(folder / "record.json", record)
        write_atomically(folder / CARD, str(card(source, record, base, not_in_peft)))
        notes = []
        if "license" not in source.options:
            notes.append("no licence is in the card: --license names one")
        if not _on_hub(source):
            notes.append(
                "the run's model is not on the hub by the name it has here, so the card has no "
                "base_model: --base-model names it as the hub does"
            )
        notes.append("to upload it: hf upload USER/NAME FOLDER .")
        return notes

    def logits(self, source: Source, folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
        model = AdaptedModel(load_backbone(source.config.model))
        load_adapter(model, folder)
        other = replace(source, model=model)
        return [other.logits(item) for item in texts]


def _on_hub(source: Source) -> bool:
    name = source.model.backbone.name
    return "base_model" in source.options or (public_name(name) == name and name not in PACKAGED)


# The record ---------------------------------------------------------------------------------------


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without the folders of the machine: of each path its last part is left."""
    config = record["config"]
    given = [
        *(config["task"].get(key) for key in ("data", "train_data")),
        *(config["method"].get(key) for key in ("folder",)),
        config["output"],
    ]
    given += [
        name
        for name in (
            record["model"]["name"],
            config["task"]["name"],
            record["method"].get("trained_on") or "",
        )
        if name and public_name(name) != name
    ]
    paths = {str(path): Path(path).name for path in given if path and Path(path).name}
    paths |= {str(Path(path).absolute()): name for path, name in paths.items()}
    longest_first = dict(sorted(paths.items(), key=lambda pair: -len(pair[0])))

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [without(inner) for inner in value]
        if isinstance(value, str):
            if value in paths:
                return paths[value]
            for path, name in longest_first.items():
                value = value.replace(f"{path}/", f"{name}/")
        return value

    cleaned: dict[str, Any] = without(dict(record))
    return cleaned


# The card -----------------------------------------------------------------------------------------


def card(
    source: Source, record: Mapping[str, Any], base: str, not_in_peft: str | None
) -> ModelCard:
    """The model card of a run.

    Args:
        source: the run.
        record: its public record.
        base: the base model's name.
        not_in_peft: why PEFT cannot load the adapter, ``None`` if it can.
    """
    task = _task(source)
    rows = language_scores(dict(record))
    name = f"{one_line(record['method']['title'])} for {one_line(record['task']['title'])}"
    data = ModelCardData(
        base_model=one_line(base) if _on_hub(source) else None,
        library_name="polyprefix" if not_in_peft else "peft",
        language=_unique(row.language.bcp47.split("-")[0] for row in rows),
        language_bcp47=_unique(row.language.bcp47 for row in rows if "-" in row.language.bcp47)
        or None,
        license=source.options.get("license"),
        datasets=_dataset(source, task),
        metrics=[record["task"]["headline"]],
        pipeline_tag="text-generation",
        tags=["polyprefix", record["method"]["name"], "cross-lingual-transfer"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-generation"
                if isinstance(task, AnswerTask)
                else "text-classification",
                task_name=one_line(record["task"]["title"]),
                dataset_type=(task.hub if task else "") or one_line(record["task"]["name"]),
                dataset_name=f"{one_line(record['task']['title'])} ({row.language.name})",
                dataset_config=row.language.code,
                dataset_split="test",
                dataset_revision=record["task"]["data_revision"],
                metric_type=record["task"]["headline"],
                metric_name=record["task"]["headline"].replace("_", " "),
                metric_value=round(row.score, 4),
            )
            for row in rows
        ],
    )
    targets = [row for row in rows if not row.source]
    body = _template().render(
        name=name,
        base=base,
        record=record,
        rows=rows,
        targets=targets,
        families=group_scores(rows, _family),
        headline=record["task"]["headline"].replace("_", " "),
        task=task,
        license=source.options.get("license"),
        not_in_peft=not_in_peft,
        load=Raw(_arguments(base, record, torch=False)),
        load_in_peft=Raw(_arguments(base, record, torch=True)),
        packaged=base in PACKAGED,
        prompt=fenced(record["task"]["prompt"]["template"]),
        method=fenced(json.dumps(_method(record["method"]), indent=2, ensure_ascii=False), "json"),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def _arguments(base: str, record: Mapping[str, Any], *, torch: bool) -> str:
    """What loads the base model in the run's dtype."""
    name = json.dumps(base)
    if torch and base in PACKAGED:
        name = f"PACKAGED[{name}]"
    dtype = record["model"]["dtype"]
    return f'{name}, dtype="{dtype}"' if torch or dtype != "float32" else name


def _family(language: Language) -> str:
    return language.family


def _method(method: Mapping[str, Any]) -> dict[str, Any]:
    told = {"title", "paper", "trained_on"}
    return {key: value for key, value in method.items() if key not in told and value is not None}


def _task(source: Source) -> Task | None:
    """The run's task; ``None`` if its file or package is gone."""
    try:
        return get_task(source.config.task.name)
    except PolyprefixError:
        return None


def _dataset(source: Source, task: Task | None) -> list[str] | None:
    """The data set on the hub, where the run has read it from there."""
    if task is None or not task.hub or source.config.task.data is not None:
        return None
    return [task.hub]


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _template() -> Any:
    # What records hold is data: all of it is escaped, but for what is Raw.
    environment = Environment(
        loader=PackageLoader("polyprefix.export", "templates"),
        autoescape=False,
        finalize=text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md")
