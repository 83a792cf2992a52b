"""Tasks as YAML files with their data, for tests of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from polyprefix.config import TaskConfig
from polyprefix.tasks import TaskData, load_task_data

CHOICE: dict[str, Any] = {
    "name": "mine",
    "kind": "choice",
    "files": "{split}-{language}.csv",
    "languages": ["en", "de"],
    "columns": {"label": "sentiment"},
    "prompt": "{{ text }}\nThis is",
    "choices": {"positive": "good", "negative": "bad"},
}
ANSWER: dict[str, Any] = {
    "name": "mine",
    "kind": "answer",
    "files": "{split}-{language}.jsonl",
    "languages": ["en", "de"],
    "columns": {"answers": "answers"},
    "prompt": "{{ question }}\nAnswer:",
    "metrics": "squad",
}
TABLE = "text,sentiment\nGreat,positive\nAwful,negative\n"


def changed(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A task with other keys; ``None`` takes one out."""
    return {key: value for key, value in {**spec, **changes}.items() if value is not None}


def written(folder: Path, spec: dict[str, Any] | str, files: dict[str, str | bytes]) -> Path:
    """The path of a task's file, with its data beside it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.yaml"
    text = spec if isinstance(spec, str) else yaml.safe_dump(spec, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def tables(content: str | bytes = TABLE, suffix: str = "csv") -> dict[str, str | bytes]:
    names = ("train-en", "dev-en", "test-en", "test-de")
    return {f"{name}.{suffix}": content for name in names}


def load(path: Path, **keys: Any) -> TaskData:
    return load_task_data(TaskConfig(name=str(path), **keys), seed=0)


def texts(examples: Any) -> list[str]:
    return [example.fields["text"] for example in examples]
