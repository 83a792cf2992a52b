"""Writes folders of finished runs with predictions that were drawn, for tests of the page."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from polyprefix.analysis import LabelledRun, Setting, settings
from polyprefix.config import RunConfig
from polyprefix.results import RunFolder
from polyprefix.tasks import TaskData, get_task, load_task_data

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '\'"><img src=x onerror="window.hacked = 1">',
    "{{ 7 * 7 }} {% raw %} {# note #}",
    "<!-- <script> & ]]> \u2028 end",
    "\u202eturned \u202d and \u2066 left open",
    "&lt;b&gt; `code` \\u003c",
)
"""Texts that a page must show as they are."""

UNREADABLE = "nothing\0at all \ud800 <img src=x onerror='window.hacked = 1'>"
"""What no file of data may hold, but an answer may."""

SENTENCES = {
    "eng_Latn": "Sentence {n} is about {topic}.",
    "arb_Arab": "الجملة {n} عن {topic} كما نرى.",
    "deu_Latn": "Satz {n} handelt von {topic}.",
    "hin_Deva": "वाक्य {n} का विषय {topic} है।",
    "swh_Latn": "Sentensi {n} ni kuhusu {topic}.",
    "urd_Arab": "جملہ {n} کا موضوع {topic} ہے۔",
}

TRAINED = {"prefix_tuning": 23_040, "lora": 9_216, "full": 12_244_032}


def figure(name: str, title: str, caption: str, svg: str, table: pd.DataFrame) -> Any:
    """What the page needs of a figure."""
    return SimpleNamespace(name=name, title=title, caption=caption, svg=svg, table=table)


def write_data(folder: Path, codes: Sequence[str], *, rows: int, text: str = "") -> Path:
    """A SIB-200 in the upstream layout; the first test sentences are :data:`HOSTILE`."""
    labels = get_task("sib200").labels  # type: ignore[attr-defined]
    for code in codes:
        place = folder / "data" / "annotated" / code
        place.mkdir(parents=True)
        for split, count in (("train", 21), ("dev", 14), ("test", rows)):
            lines = ["index_id\tcategory\ttext"]
            for n in range(count):
                topic = labels[n % len(labels)]
                said = text or SENTENCES[code].format(n=n, topic=topic)
                if split == "test" and n < len(HOSTILE) and not text:
                    said = f"{HOSTILE[n]} {said}"
                lines.append(f"{n}\t{topic}\t{said}")
            (place / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_runs(
    folder: Path,
    data: Path | None,
    accuracy: Mapping[str, float],
    *,
    seeds: Sequence[int] = (0, 1),
    languages: Sequence[str] | str = "all",
    model: str = "acme/tiny",
    task: str = "sib200",
    test_samples: int | None = None,
    predictions: bool = True,
) -> list[Setting]:
    """One run for each method and seed, right in about ``accuracy`` of the English examples and
    in less of the others; settings of all."""
    runs = []
    for method, share in accuracy.items():
        for seed in seeds:
            values = {
                "model": {"name": model},
                "method": {"name": method},
                "task": {
                    "name": task,
                    "data": None if data is None else str(data),
                    "languages": languages,
                    "test_samples": test_samples,
                },
                "train": {"steps": 5},
                "seed": seed,
                "output": str(folder),
            }
            read = load_task_data(
                RunConfig.read(values).task, seed=seed, with_training=method != "none"
            )
            record = _write(folder, values, read, method, seed, share, predictions)
            runs.append(LabelledRun({"method.name": method, "seed": seed}, record))
    return settings(runs)


def _write(
    folder: Path,
    values: dict[str, Any],
    data: TaskData,
    method: str,
    seed: int,
    share: float,
    predictions: bool,
) -> dict[str, Any]:
    run = RunFolder(folder / f"{data.task.name}-{method}-{seed}")
    labels = get_task(data.task.name).labels  # type: ignore[attr-defined]
    draw = random.Random(f"{method} {seed}")
    scores = {}
    for place, (code, examples) in enumerate(data.test.items()):
        there = share - 0.01 * place
        rows = [_row(draw, example, labels, there) for example in examples]
        if predictions:
            run.write_predictions(code, rows)
        n = len(rows)
        found = sum(row["prediction"] == row["label"] for row in rows) / n
        scores[code] = {
            "n": n,
            "accuracy": found,
            "accuracy_stderr": (found * (1 - found) / max(1, n - 1)) ** 0.5,
            "accuracy_calibrated": found,
            "accuracy_calibrated_stderr": 0.01,
            "majority": 1 / len(labels),
            "gold_logprob": -1.0,
        }
    trained = method != "none"
    prompt = data.prompts[data.source_language]
    run.write_record(
        {
            "id": run.id,
            "status": "finished",
            "started": "2026-01-02T03:04:05+00:00",
            "identity": {
                "model": {"dtype": "float32", "revision": "sha256:0"},
                "method": {"name": method},
                "task": {"name": data.task.name, "source_language": data.source_language},
                "train": {"steps": 5} if trained else None,
                "decoding": None,
                "seed": seed,
            },
            "config": RunConfig.read(values).model_dump(mode="json"),
            "method": {"name": method, "title": method, "paper": ""},
            "model": {
                "name": values["model"]["name"],
                "revision": "sha256:0",
                "model_type": "llama",
                "parameters": 12_244_032,
                "dtype": "float32",
                "device": "cpu",
            },
            "task": {
                "name": data.task.name,
                "title": data.task.title,
                "headline": "accuracy",
                "labels": list(labels),
                "prompt": {"version": prompt.version, "template": prompt.template},
                "source_language": data.source_language,
                "languages": data.languages,
                "data_revision": data.revision,
                "sizes": data.sizes,
                "parallel": True,
                "notes": [],
            },
            "versions": {"polyprefix": "0.1.0", "torch": "2.13.0"},
            "commit": "0123456789abcdef",
            "machine": {"system": "Linux", "cpus": 2},
            "trainable_parameters": TRAINED.get(method, 0 if not trained else 1000),
            **({"training": _training(share)} if trained else {}),
            "scores": scores,
            "evaluation": {
                "seconds": 3.5,
                "examples_scored": sum(len(part) for part in data.test.values()),
            },
            "peak_memory_bytes": 700 * 2**20,
        }
    )
    return run.record()


def _training(share: float) -> dict[str, Any]:
    return {
        "steps": 5,
        "seconds": 12.25,
        "best_step": 5,
        "best_dev_score": share,
        "best_dev_tie_break": -1.0,
        "truncated_prompts": 0,
    }


def _row(draw: random.Random, example: Any, labels: Sequence[str], share: float) -> dict[str, Any]:
    place = example.label if draw.random() < share else draw.randrange(len(labels))
    logprobs = [round(-3 - 4 * draw.random(), 6) for _ in labels]
    logprobs[place] = -1.0
    return {
        "id": example.id,
        "label": labels[example.label],
        "prediction": labels[place],
        "prediction_calibrated": labels[place],
        "logprobs": logprobs,
    }
