"""Every benchmark, one after another, and then the page.

    python -m benchmarks.all --data DATA --output build/benchmarks

Each writes ``NAME.json`` and ``logs/NAME.txt``. One whose JSON is there is passed over, so that an
interrupted run goes on where it was; ``--again`` runs it anew. One that fails does not stop the
others: exit statuses are in ``logs/status.json``, and the exit status is 1 if any is not 0. Sizes
are for a machine with two cores and an hour and a half. What follows ``--`` is given to every
benchmark, after its own options: ``-- --rounds 9``.

``DATA`` holds a folder for each task, as for ``score`` and ``generate``. Training data are
``--squad``, in the format of SQuAD v1.1, and ``--nli``, in XTREME's layout of XNLI, both relative
to ``DATA``.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyprefix.results import read_json, write_json

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """One command: ``python -m benchmarks.{benchmark}``, and the name of its files."""

    name: str
    benchmark: str
    arguments: list[str]


def jobs(data: Path, squad: Path, nli: Path) -> list[Job]:
    """All of them, in order; the options are what fits the time."""
    topics = data / "sib200/data/annotated/eng_Latn"
    sizes = "--vocabulary 32000 128000 --rounds 3"

    def job(name: str, benchmark: str, source: Path, options: str, *more: str) -> Job:
        return Job(name, benchmark, ["--data", str(source), *options.split(), *more])

    return [
        job(
            "train_shared",
            "train_shared",
            squad,
            f"--passages 16 --batch-size 32 --peer-batches 1 2 4 {sizes}",
        ),
        job(
            "train_xnli",
            "train_short",
            nli,
            f"--task xnli --examples 64 --batch-size 16 --peer-batches 8 16 --no-memory {sizes}",
        ),
        job(
            "train_sib200",
            "train_short",
            topics / "train.tsv",
            f"--task sib200 --examples 64 --batch-size 16 --peer-batches 8 16 --no-memory {sizes}",
        ),
        job(
            "score",
            "score",
            data,
            "--languages eng_Latn,deu_Latn --examples 24 --rounds 3 --peer-batches 8 16",
        ),
        job(
            "generate",
            "generate",
            data,
            "--languages eng_Latn,spa_Latn --methods none lora --xquad-examples 60 "
            "--mgsm-examples 64 --mgsm-tokens 128 --rounds 3 --peer-batches 16 32 64",
        ),
        job("floor", "floor", squad, "--layers all last:4 --examples 64 --rounds 3"),
        job(
            "keep",
            "keep",
            squad,
            "--task xquad --layers last:1 last:4 --examples 64 --rounds 3",
        ),
        job(
            "adapters",
            "adapters",
            topics / "test.tsv",
            "--methods prefix_tuning lora --train-batch-sizes 2 --rounds 3",
        ),
        job(
            "shuffling",
            "shuffling",
            squad,
            "--model polyprefix/nano --steps 60 --passages 60 --held-out 12 --rounds 3",
        ),
        job(
            "growth_training",
            "growth",
            squad,
            "--axes questions passages length layers --passages 4 --step-passages 1 2 4 "
            "--lengths 5 20 80 --top-layers 1 4 8 --peer-batches 2 4 --rounds 3",
        ),
        job(
            "growth_scoring",
            "growth",
            squad,
            "--axes languages --language-counts 1 2 4 8 --sentences 10 --rounds 3",
            "--tasks-data",
            str(data),
        ),
    ]


def run(job: Job, output: Path, more: Sequence[str]) -> int:
    """Run a job; its exit status. The JSON of an earlier run is removed first: what is there
    afterwards is of this one."""
    target = output / f"{job.name}.json"
    target.unlink(missing_ok=True)
    module = f"benchmarks.{job.benchmark}"
    command = [sys.executable, "-m", module, *job.arguments, *more, "--json", str(target)]
    log = output / "logs" / f"{job.name}.txt"
    with log.open("w", encoding="utf-8") as file:
        file.write(f"{shlex.join(command)}\n")
        file.flush()
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False)
    return done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    more: list[str] = []
    if "--" in given:
        place = given.index("--")
        given, more = given[:place], given[place + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a folder for each task")
    add("--output", type=Path, default=Path("build/benchmarks"))
    add("--squad", type=Path, default=Path("squadshifts/new_wiki_v1.0.json"))
    add("--nli", type=Path, default=Path("nli_train/multinli.train.en.tsv"))
    add("--only", nargs="+", metavar="NAME", help="some of them")
    add("--again", action="store_true", help="also those whose JSON is there")
    add("--page", type=Path, help="write the page of results there, docs/benchmarks.md")
    options = parser.parse_args(given)
    data, output = options.data.resolve(), options.output.resolve()
    todo = jobs(data, data / options.squad, data / options.nli)
    names = [job.name for job in todo]
    if unknown := set(options.only or []) - set(names):
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    (output / "logs").mkdir(parents=True, exist_ok=True)
    record = output / "logs" / "status.json"
    status: dict[str, int] = read_json(record) if record.is_file() else {}
    for job in todo:
        if options.only and job.name not in options.only:
            continue
        if (output / f"{job.name}.json").is_file() and not options.again:
            print(
                f"{job.name}: is there, exit status {status.get(job.name, 'unknown')}", flush=True
            )
            continue
        started = time.monotonic()
        status[job.name] = run(job, output, more)
        write_json(record, status)
        minutes = (time.monotonic() - started) / 60
        print(f"{job.name}: exit status {status[job.name]}, {minutes:.1f} minutes", flush=True)
    if options.page is not None:
        from benchmarks.page import write

        write(output, options.page, data)
    failed = [name for name in options.only or names if status.get(name, 0)]
    if failed:
        print(f"not 0: {', '.join(failed)}; see {output / 'logs'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
