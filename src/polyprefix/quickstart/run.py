"""One run that shows what the package does: English topics learnt, five languages tested.

Importing this is cheap; torch is imported when the run begins.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from polyprefix.config import ModelConfig, RunConfig, TaskConfig, TrainConfig
from polyprefix.results import Progress

DATA = Path(__file__).parent / "data"
"""Sentences of seven topics in SIB-200's layout, see the README there."""

SOURCE = "eng_Latn"
LANGUAGES = (SOURCE, "deu_Latn", "spa_Latn", "swh_Latn", "zho_Hans")
"""Of the test sentences, as FLORES-200 names them; those to train on are of the first."""

MODEL = "polyprefix/nano"
METHOD = "prefix_tuning"
STEPS = 150
"""25 passes over the 84 training sentences."""

BATCH_SIZE = 14
EXAMPLE_MODEL = "Qwen/Qwen3-0.6B-Base"
"""In the advice for the next step: small, multilingual, and open to everyone."""


def quickstart_config(
    output: Path, method: str = METHOD, seed: int = 0, *, model: str = MODEL, steps: int = STEPS
) -> RunConfig:
    """What :func:`quickstart` runs.

    Args:
        output: folder of runs.
        method: name of an adaptation method, with its own defaults.
        seed: of everything random.
        model: another backbone, a hub name or a folder.
        steps: optimizer steps.
    """
    return RunConfig(
        model=ModelConfig(name=model),
        method={"name": method},
        task=TaskConfig(name="sib200", data=str(DATA), languages=LANGUAGES),
        train=TrainConfig(steps=steps, batch_size=BATCH_SIZE),
        seed=seed,
        output=str(output),
    )


def quickstart(
    output: Path,
    method: str = METHOD,
    seed: int = 0,
    *,
    again: bool = False,
    progress: Progress | None = None,
    model: str = MODEL,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Adapt the packaged model to the packaged sentences, and score five languages.

    A run that is there already is continued, or returned if it is finished.

    Args:
        output: folder of runs.
        method: name of an adaptation method, with its own defaults.
        seed: of everything random.
        again: run anew what is there already.
        progress: shown what is going on.
        model: another backbone, a hub name or a folder.
        steps: optimizer steps.

    Returns:
        The run's record.

    Raises:
        PolyprefixError: an unknown method, or a model that cannot be loaded.
    """
    from polyprefix.study import run

    config = quickstart_config(output, method, seed, model=model, steps=steps)
    return run(config, again=again, progress=progress)


def next_step(record: dict[str, Any]) -> str:
    """What to do after a quickstart: commands for this adapter, and for the user's own model."""
    output = Path(record["config"]["output"])
    adapter = shlex.quote(str(output / record["id"]))
    method = shlex.quote(record["method"]["name"])
    runs = shlex.quote(str(output))
    return f"""\
Ask the adapter just trained, in any language:

  polyprefix predict {adapter} --text "Timu ilishinda mechi."

The same with a model of your own, a hub name or a folder, and your own data:

  polyprefix run --model {EXAMPLE_MODEL} --method {method} --task sib200 \\
      --data my-data --languages all --output {runs}

my-data holds {SOURCE}/train.tsv, {SOURCE}/dev.tsv and a <language>/test.tsv for each language, with
the columns index_id, category and text, as in {DATA}.
Without --data, SIB-200 itself is read from the Hugging Face hub, in 205 languages. For other
methods, tasks and languages: polyprefix list methods|tasks|models|languages."""
