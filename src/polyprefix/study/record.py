"""What a run's record says before anything is computed."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from polyprefix.distributed import world
from polyprefix.results import machine, package_versions, source_commit
from polyprefix.study.prepare import Prepared
from polyprefix.study.texts import text_counts
from polyprefix.tasks import Prompt


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def opening(prepared: Prepared, started: str) -> dict[str, Any]:
    """What the record says from the start."""
    config, data, backbone = prepared.config, prepared.data, prepared.backbone
    return {
        "id": prepared.folder.id,
        "status": "running",
        "started": started,
        "identity": prepared.identity,
        "config": config.model_dump(mode="json"),
        "method": {
            "name": prepared.adapter_type.method,
            "title": prepared.adapter_type.title,
            "paper": prepared.adapter_type.paper,
            **prepared.method.model_dump(mode="json"),
        },
        "learning_rate": prepared.learning_rate,
        "model": {
            "name": backbone.name,
            "revision": backbone.revision,
            "model_type": backbone.family.model_type,
            "parameters": backbone.num_parameters,
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "device": str(prepared.device),
        },
        "task": {
            "name": data.task.name,
            "title": data.task.title,
            "headline": data.task.headline,
            "labels": list(getattr(data.task, "labels", ())),
            "prompt": _prompt(data.prompts[data.source_language]),
            # Of the languages that are asked in another way than the source.
            "prompts": {
                code: _prompt(prompt)
                for code, prompt in data.prompts.items()
                if prompt != data.prompts[data.source_language]
            },
            "source_language": data.source_language,
            "languages": data.languages,
            "data_revision": data.revision,
            "sizes": data.sizes,
            "parallel": data.task.parallel,
            "texts": text_counts(data, backbone.tokenizer),
            "bad_rows": [str(row) for row in data.bad_rows],
            "notes": data.notes,
        },
        "versions": package_versions(),
        "commit": source_commit(),
        "machine": machine() | {"threads": torch.get_num_threads()} | world().described(),
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"version": prompt.version, **asdict(prompt)}
