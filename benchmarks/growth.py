"""How cost grows: time per example and peak memory along one axis at a time.

    python -m benchmarks.growth --data new_wiki_v1.0.json --tasks-data DATA

* ``questions``: examples that share a passage, on the same passages;
* ``passages``: passages in an optimizer step, the same examples at every point;
* ``length``: P of the prefix;
* ``layers``: the adapted layers, the upper k. PEFT takes all layers or none, so the peer is the
  floor of ``floor.py``, and PEFT where all are adapted;
* ``languages``: target languages that are scored, each with as many sentences of SIB-200. Needs
  ``polyprefix[benchmarks]``.

The first four are training, ours and PEFT's, as ``train_shared`` runs it. All points of an axis are
measured in turn in every round. ``--data`` is a file in the format of SQuAD v1.1; ``--tasks-data``
holds a folder ``sib200``.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import floor, training
from benchmarks.common import Comparison, finish, make_model, timed
from benchmarks.wording import MEMORY
from polyprefix.config import ModelConfig
from polyprefix.languages import parse_languages
from polyprefix.models import load_backbone
from polyprefix.tasks import Example, get_task

TASK = get_task("xquad")


@dataclass(frozen=True)
class Setting:
    """What the points of an axis are made of.

    Attributes:
        options: of the command line.
        passages: their questions.
        model: the folder of the model.
        folder: receives the adapters.
        size: V of a random model, else 0.
    """

    options: argparse.Namespace
    passages: list[list[Example]]
    model: str
    folder: Path
    size: int

    def case(self, axis: str, value: int, method: str) -> dict[str, Any]:
        """What a point is."""
        about = {"axis": axis, "value": value, "method": method}
        return about | ({"V": self.size} if self.size else {})

    def training(
        self, axis: str, value: int, method: str, questions: int, batch: int, length: int | None
    ) -> Comparison:
        """A point of training against PEFT: so many questions of each passage, examples of an
        optimizer step, and P."""
        examples = [example for passage in self.passages for example in passage[:questions]]
        changed = {**vars(self.options), "batch_size": batch, "length": length}
        return training.prepare(
            self.case(axis, value, method),
            TASK,
            examples,
            self.model,
            self.folder / f"{axis}-{value}-{method}",
            argparse.Namespace(**changed),
        )


def along_questions(setting: Setting) -> Iterator[Comparison]:
    """Examples that share a passage; all of a measurement make one optimizer step."""
    options = setting.options
    batch = len(setting.passages) * max(options.questions)
    for method in options.methods:
        for count in options.questions:
            yield setting.training("questions", count, method, count, batch, options.length)


def along_passages(setting: Setting) -> Iterator[Comparison]:
    """Passages of an optimizer step."""
    options, most = setting.options, max(setting.options.questions)
    for method in options.methods:
        for count in options.step_passages:
            yield setting.training("passages", count, method, most, count * most, options.length)


def along_length(setting: Setting) -> Iterator[Comparison]:
    """P."""
    options, most = setting.options, max(setting.options.questions)
    for method in options.methods:
        for length in options.lengths:
            batch = len(setting.passages) * most
            yield setting.training("length", length, method, most, batch, length)


def along_layers(setting: Setting) -> Iterator[Comparison]:
    """The upper k layers against the floor, all layers against PEFT too."""
    options, most = setting.options, max(setting.options.questions)
    backbone = load_backbone(ModelConfig(name=setting.model))
    chosen = [example for passage in setting.passages for example in passage[:most]]
    examples = training.encode(backbone.tokenizer, TASK, chosen)
    layers = backbone.num_layers
    del backbone
    changed = argparse.Namespace(**vars(options) | {"batch_size": len(examples)})
    for method in options.methods:
        for count in sorted({min(count, layers) for count in options.top_layers}):
            folder = setting.folder / f"layers-{count}-{method}"
            case = setting.case("layers", count, method) | {"layers": f"last:{count}"}
            point = floor.prepare(case, setting.model, folder, examples, changed)
            if not options.no_memory:
                job = training.Job(
                    model=setting.model,
                    adapter=str(folder),
                    examples=[(example.prompt, example.answer) for example in examples],
                    batch_size=len(examples),
                    micro_batch_tokens=options.micro_batch_tokens,
                    micro_batch=1,
                    device=options.device,
                )
                memory = training.peak_memory(job, "ours", folder)
                point = replace(point, more=point.more | {MEMORY: {"ours": memory}})
            yield point
        yield setting.training("layers", layers, method, most, len(examples), options.length)


def along_languages(setting: Setting) -> Iterator[Comparison]:
    """Languages that are scored: of a list in random order, the first, the first two..."""
    from benchmarks import evaluating, score

    given = setting.options
    if given.tasks_data is None:
        raise SystemExit("--axes languages needs --tasks-data, a folder that holds sib200")
    found = evaluating.folder_of(given.tasks_data, "sib200")
    if found is None:
        raise SystemExit(f"{given.tasks_data} holds no folder of sib200")
    available = get_task("sib200").languages_in(found)
    codes = list(parse_languages(given.languages or tuple(available), available))
    most = max(given.language_counts)
    if len(codes) < most:
        raise SystemExit(f"{len(codes)} languages are there, and {most} are asked for")
    chosen = random.Random(given.seed).sample(codes, most)
    about = {"data": given.tasks_data, "languages": ",".join(chosen), "prompt": None}
    options = argparse.Namespace(**vars(given) | about)
    data = evaluating.task_data(options, "sib200", given.sentences)
    assert data is not None
    size = setting.size or 0
    model = make_model(setting.folder / "scorer", options, size, evaluating.texts_of(data))
    for method in given.methods:
        folder = setting.folder / f"languages-{method}"
        models = evaluating.both_models(model, method, folder, options)
        for count in given.language_counts:
            part = replace(data, test={code: data.test[code] for code in chosen[:count]})
            pair = evaluating.pair_of(setting.case("languages", count, method), *models, part)
            point = score.prepare(pair, options)
            if not given.no_memory:
                batch = point.more["peer's batch"]
                memory = {
                    side: evaluating.peak_memory(pair, model, side, options, batch, folder)
                    for side in ("ours", "theirs")
                }
                point = replace(point, more=point.more | {MEMORY: memory})
            yield point


AXES: dict[str, Callable[[Setting], Iterator[Comparison]]] = {
    "questions": along_questions,
    "passages": along_passages,
    "length": along_length,
    "layers": along_layers,
    "languages": along_languages,
}


def choose(
    found: Sequence[Example], passages: int, questions: int, seed: int
) -> list[list[Example]]:
    """Passages at random that have enough questions.

    Raises:
        SystemExit: there are too few.
    """
    groups: dict[str, list[Example]] = {}
    for example in found:
        groups.setdefault(example.fields["context"], []).append(example)
    enough = [group for _, group in sorted(groups.items()) if len(group) >= questions]
    if len(enough) < passages:
        raise SystemExit(
            f"{len(enough)} passages have {questions} questions or more, and --passages asks for "
            f"{passages}"
        )
    return random.Random(seed).sample(enough, passages)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; print the table."""
    parser = training.options_of(__doc__)
    add = parser.add_argument
    add("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    add("--passages", type=int, default=8, help="of every measurement of training")
    add("--questions", type=int, nargs="+", default=[1, 2, 4], help="that share a passage")
    add("--step-passages", type=int, nargs="+", default=[1, 2, 4, 8], help="of a step")
    add("--lengths", type=int, nargs="+", default=[5, 10, 20, 40, 80], help="P")
    add("--top-layers", type=int, nargs="+", default=[1, 2, 4, 8], help="adapted layers")
    add("--tasks-data", type=Path, help="a folder that holds sib200, for languages")
    add("--languages", help="to choose from; by default all of the folder")
    add("--language-counts", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="scored")
    add("--sentences", type=int, default=25, help="of each language")
    parser.set_defaults(methods=["prefix_tuning"])
    options = parser.parse_args(arguments)
    found = TASK.read_file(options.data, "train").examples
    passages = choose(found, options.passages, max(options.questions), options.seed)
    texts = [TASK.prompt.render(example.fields) for group in passages for example in group]
    results = []
    for size in options.vocabulary if options.model is None else [0]:
        with TemporaryDirectory() as name:
            model = make_model(Path(name, "model"), options, size, texts)
            setting = Setting(options, passages, model, Path(name), size)
            for axis in options.axes:
                results += timed(list(AXES[axis](setting)), options)
    return finish("growth", options, results)


if __name__ == "__main__":
    sys.exit(main())
