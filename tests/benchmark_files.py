"""Small files and hub datasets of benchmarks, for tests of the tasks that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from polyprefix.config import TaskConfig
from polyprefix.tasks import Task, TaskData, load_task_data


def write(path: Path, *lines: Any) -> Path:
    """Lines of text; what is no text becomes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def load(task: Task, folder: Path | None, **keys: Any) -> TaskData:
    data = None if folder is None else str(folder)
    return load_task_data(TaskConfig(name=task.name, data=data, **keys), seed=0)


def repository(folder: Path, features: Any = None, **splits: list[dict[str, Any]]) -> str:
    """A dataset as on the hub: ``{configuration}__{split}`` and rows."""
    import datasets

    configs: dict[str, list[str]] = {}
    for name, rows in splits.items():
        config, split = name.split("__")
        path = folder / config / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
        configs.setdefault(config, []).append(split)
    card = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: {config}/{s}.parquet\n" for s in names)
        for config, names in configs.items()
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    return str(folder)
