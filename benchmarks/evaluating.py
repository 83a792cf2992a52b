"""Evaluation, ours and lm-evaluation-harness's: what ``score`` and ``generate`` run.

Ours is a run's evaluation, :meth:`polyprefix.study.fit.Fitting.predict`, from examples to rows of
predictions, with its default settings. The peer is the harness's ``HFLM``, from texts to answers,
with the batch size that it is fastest with, its cache of logits on, and the same adapter in PEFT's
format. Its requests are made beforehand: neither templates nor metrics are counted.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.common import METHODS, arguments, attach, fastest, make_model
from polyprefix.config import DecodingConfig, ModelConfig, RuntimeConfig
from polyprefix.languages import parse_languages
from polyprefix.methods import AdaptedModel
from polyprefix.models import load_backbone
from polyprefix.study.fit import Fitting
from polyprefix.tasks import Example, TaskData, get_task

PEER_BATCHES = [1, 2, 4, 8, 16, 32, 64]

LOGITS = 2 << 30
"""Bytes of the peer's logits beyond which a batch size is not tried."""


def options_of(description: str | None, tasks: Sequence[str]) -> argparse.ArgumentParser:
    """Options of an evaluation benchmark. ``--data`` holds a folder for each task, whose name
    begins with the task's, in the form that the task's ``layout`` says."""
    parser = arguments(description)
    add = parser.add_argument
    add("--tasks", nargs="+", default=list(tasks), choices=list(tasks))
    add("--languages", help="as in a run's configuration; by default the folder's first four")
    add("--prompt", help="another of the tasks' prompts, lm-eval for instance")
    add("--peer-batches", type=int, nargs="+", default=PEER_BATCHES, help="to choose from")
    return parser


@dataclass
class Sides:
    """Both sides, ready to answer.

    Attributes:
        case: what is measured.
        fitting: ours; ``fitting.data.test`` holds the examples.
        lm: theirs.
        parameters: of the backbone.
    """

    case: dict[str, Any]
    fitting: Fitting
    lm: HFLM
    parameters: int

    @property
    def languages(self) -> dict[str, list[Example]]:
        return self.fitting.data.test

    def predict(self) -> list[dict[str, Any]]:
        """Our rows, language after language."""
        return [
            row
            for language, examples in self.languages.items()
            for row in self.fitting.predict(language, examples)
        ]

    def requests(self, kind: str, arguments: Callable[[str, Example], list[Any]]) -> list[Any]:
        """The harness's requests for all examples, in the order of :meth:`predict`."""
        flat = [
            given
            for language, examples in self.languages.items()
            for example in examples
            for given in arguments(language, example)
        ]
        return [Instance(kind, {}, given, number) for number, given in enumerate(flat)]

    def best_batch(
        self, ask: Callable[[list[Any]], object], asked: list[Any], options: argparse.Namespace
    ) -> int:
        """Set the batch size that the harness is fastest with, measured on a part that is spread
        over all lengths. Requests of an example stand together and stay together."""

        def answer(size: int) -> object:
            self.lm.batch_size_per_gpu = size
            return ask(some)

        longest = max(len(self.lm.tok_encode(request.args[0])) for request in asked)
        one = 4 * self.fitting.model.backbone.vocab_size * longest
        possible = [size for size in options.peer_batches if one * size <= LOGITS] or [1]
        each = len(asked) // sum(map(len, self.languages.values()))
        groups = [asked[i : i + each] for i in range(0, len(asked), each)]
        wanted = min(len(groups), max(possible))
        some = [request for group in groups[:: len(groups) // wanted] for request in group]
        best = fastest(possible, answer, options.device)
        self.lm.batch_size_per_gpu = best
        return best


def sides(
    options: argparse.Namespace,
    methods: Sequence[str],
    counts: dict[str, int],
    new_tokens: dict[str, int],
) -> Iterator[Sides]:
    """Every task and method, for every vocabulary.

    Args:
        options: see :func:`options_of`.
        methods: keys of ``METHODS``, or ``none``.
        counts: examples a language, by task.
        new_tokens: of a written answer, by task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found = {name: _data(options, name, counts[name]) for name in options.tasks}
    tasks = {name: data for name, data in found.items() if data is not None}
    if not tasks:
        raise SystemExit(f"{options.data} holds no folder of {' or '.join(options.tasks)}")
    texts = [
        data.prompts[code].render(example.fields)
        for data in tasks.values()
        for code, examples in data.test.items()
        for example in examples
    ]
    for size in options.vocabulary if options.model is None else [0]:
        with TemporaryDirectory() as name:
            model = make_model(Path(name, "model"), options, size, texts)
            for method in methods:
                adapted = AdaptedModel(load_backbone(ModelConfig(name=model), options.device))
                count = sum(value.numel() for value in adapted.backbone.model.parameters())
                peft = None
                if method != "none":
                    attach(adapted, method, Path(name, method), options.seed)
                    peft = str(Path(name, method))
                lm = HFLM(pretrained=model, peft=peft, dtype="float32", device=options.device)
                for task, data in tasks.items():
                    new = new_tokens.get(task, 0)
                    decoding = DecodingConfig(max_new_tokens=new) if new else None
                    fitting = Fitting(adapted, data, lm.max_length, RuntimeConfig(), decoding)
                    fitting.data = _fitting_context(fitting, lm, new)
                    case = {"task": task, "method": method} | ({"V": size} if size else {})
                    yield Sides(case, fitting, lm, count)


def _data(options: argparse.Namespace, name: str, count: int) -> TaskData | None:
    """The first ``count`` examples of each language; ``None``: there is no folder."""
    folder = next(iter(sorted(options.data.glob(f"{name}*"))), None)
    if folder is None:
        return None
    task = get_task(name)
    available = task.languages_in(folder)
    codes = parse_languages(options.languages or tuple(available[:4]), available)
    return TaskData(
        task=task,
        source_language="eng_Latn",
        train=[],
        dev=[],
        test={code: task.read_local(folder, code, "test").examples[:count] for code in codes},
        revision="",
        prompts={code: task.prompt_of(code, options.prompt) for code in codes},
        bad_rows=[],
        sources=[],
        notes=[],
    )


def _fitting_context(fitting: Fitting, lm: HFLM, new: int) -> TaskData:
    """Without the examples that are too long: of what is cut, a run keeps the begin-of-text token,
    and the harness does not."""
    data = fitting.data
    room = fitting.encoder.max_length - new
    kept = {}
    for code, examples in data.test.items():
        prompt = data.prompts[code]
        kept[code] = [
            example
            for example in examples
            if max(
                len(lm.tok_encode(prompt.render(example.fields) + choice))
                for choice in ["", *prompt.render_choices(example.fields)]
            )
            <= room
        ]
    return replace(data, test={code: examples for code, examples in kept.items() if examples})


EVERY_METHOD = ["none", *METHODS]
