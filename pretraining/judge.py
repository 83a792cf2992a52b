"""Judge the packaged model on SIB-200: every method, several seeds, against simple baselines.

    python -m pretraining.judge --sib200 <folder of SIB-200> --output build/judge

Every run is one of the package's own, with its defaults: trained on SIB-200's English, tested in
every language of the model. Runs that are there are not repeated, so a stopped judgement goes on.
The baselines are what a user could have without the decoder: the majority class, TF-IDF and
logistic regression, and logistic regression on the mean token embedding (see `probe`).
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from polyprefix.analysis import compare
from pretraining.languages import CODES, ENGLISH, NAMES
from pretraining.probe import probe

METHODS = ("none", "soft_prompt", "prefix_tuning", "llama_adapter", "lora", "bottleneck", "full")
BASELINES = ("majority", "tfidf", "tokens")


def _run(model: str, sib200: str, method: str, seed: int, output: str) -> dict[str, Any]:
    import torch

    from polyprefix.config import ModelConfig, RunConfig, TaskConfig
    from polyprefix.study import run

    torch.set_num_threads(1)  # the processes share the cores
    config = RunConfig(
        model=ModelConfig(name=model),
        method={"name": method},
        task=TaskConfig(name="sib200", data=sib200, languages=CODES),
        seed=seed,
        output=output,
    )
    return run(config)


def judge(
    model: str, sib200: Path, output: Path, seeds: list[int], workers: int
) -> list[dict[str, Any]]:
    """The records of all runs; `none` has nothing random and runs once."""
    jobs = [
        (method, seed)
        for seed in seeds
        for method in METHODS
        if method != "none" or seed == seeds[0]
    ]
    # Fresh processes: a fork of one that has used torch's threads hangs.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {job: pool.submit(_run, model, str(sib200), *job, str(output)) for job in jobs}
        records = []
        for (method, seed), future in futures.items():
            record = future.result()
            scored = compare([record]).runs[0]
            print(
                f"{method} seed {seed}: English {scored.source:.3f}, others {scored.mean:.3f}",
                flush=True,
            )
            records.append(record)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: means over seeds, with the standard deviation between them; `best` and `worst` are
    the languages with the highest and the lowest mean."""
    lines = [
        f"| adapted by | trainable parameters | English | mean of {len(CODES) - 1} others "
        "| calibrated | best | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        named = [record for record in records if record["method"]["name"] == method]
        runs = compare(named).runs
        means = {
            code: statistics.mean(run.languages[code].score for run in runs)
            for code in CODES
            if code != ENGLISH
        }
        best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        cells = (
            f"`{method}`",
            f"{runs[0].parameters:,}",
            _spread([run.source for run in runs]),
            _spread([run.mean or 0.0 for run in runs]),
            f"{statistics.mean(run.calibrated or 0.0 for run in runs):.3f}",
            f"{means[best]:.3f} ({NAMES[best]})",
            f"{means[worst]:.3f} ({NAMES[worst]})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    around = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{around}"


def summarise(records: list[dict[str, Any]], probed: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Accuracies by column and language: the baselines, and the seeds of every method."""
    columns: dict[str, dict[str, list[float]]] = {
        name: {code: [probed[code][name]] for code in CODES} for name in BASELINES
    }
    parameters = {}
    for record in records:
        name = record["method"]["name"]
        parameters[name] = record["trainable_parameters"]
        column = columns.setdefault(name, {code: [] for code in CODES})
        for code in CODES:
            column[code].append(record["scores"][code]["accuracy"])
    return {"parameters": parameters, "accuracy": columns}


def main() -> None:
    """Run what is missing, and write `judged.json`."""
    parser = argparse.ArgumentParser(description="Every method on SIB-200, several seeds")
    parser.add_argument("--model", default="polyprefix/nano", help="the model, a name or a folder")
    parser.add_argument("--sib200", type=Path, required=True, help="folder of SIB-200")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and the result")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    records = judge(arguments.model, arguments.sib200, arguments.output, seeds, arguments.workers)
    from polyprefix.models import PACKAGED

    folder = PACKAGED.get(arguments.model, Path(arguments.model))
    summary = summarise(records, probe(folder, arguments.sib200))
    path = arguments.output / "judged.json"
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}\n\n{table(records)}")


if __name__ == "__main__":
    main()
