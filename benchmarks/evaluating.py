"""Evaluation, ours and lm-evaluation-harness's: what ``score`` and ``generate`` run.

Ours is a run's evaluation, :meth:`polyprefix.study.fit.Fitting.predict`, from examples to rows of
predictions, with its default settings. The peer is the harness's ``HFLM``, from texts to answers,
with the batch size that it is fastest with, its cache of logits on, and the same adapter in PEFT's
format. Its requests are made beforehand: neither templates nor metrics are counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.common import (
    METHODS,
    Comparison,
    Work,
    affordable,
    arguments,
    attach,
    fastest,
    make_model,
)
from benchmarks.memory import in_process, reset, used
from polyprefix.config import DecodingConfig, ModelConfig, RuntimeConfig
from polyprefix.languages import parse_languages
from polyprefix.methods import AdaptedModel, load_adapter
from polyprefix.models import load_backbone
from polyprefix.study.fit import Fitting
from polyprefix.tasks import Example, TaskData, get_task

PEER_BATCHES = [1, 2, 4, 8, 16, 32, 64]

EVERY_METHOD = ["none", *METHODS]


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
        adapter: the folder of the adapter that both carry.
    """

    case: dict[str, Any]
    fitting: Fitting
    lm: HFLM
    adapter: Path | None

    @property
    def languages(self) -> dict[str, list[Example]]:
        return self.fitting.data.test

    @property
    def about(self) -> dict[str, Any]:
        """Parameters of the backbone; languages."""
        weights = self.fitting.model.backbone.model.parameters()
        return {
            "parameters": sum(value.numel() for value in weights),
            "languages": [*self.languages],
        }

    def predict(self) -> list[dict[str, Any]]:
        """Our rows, language after language."""
        return rows_of(self.fitting)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Our side answers as the backbone alone does."""
        model = self.fitting.model
        name = model.active
        model.use(None)
        yield
        model.use(name)

    def with_batch(self, size: int, work: Work) -> Work:
        """Work of the harness in batches of a size."""

        def run() -> object:
            self.lm.batch_size_per_gpu = size
            return work()

        return run

    def best_batch(
        self, ask: Callable[[list[Any]], object], asked: list[Any], options: argparse.Namespace
    ) -> int:
        """The batch size that the harness is fastest with, measured on a part that is spread over
        all lengths. Requests of an example stand together and stay together."""
        longest = max(len(self.lm.tok_encode(request.args[0])) for request in asked)
        vocabulary = self.fitting.model.backbone.vocab_size
        possible = affordable(options.peer_batches, vocabulary, longest)
        each = len(asked) // sum(map(len, self.languages.values()))
        groups = [asked[i : i + each] for i in range(0, len(asked), each)]
        wanted = min(len(groups), max(possible))
        some = [request for group in groups[:: len(groups) // wanted] for request in group]
        return fastest(
            possible, lambda size: self.with_batch(size, lambda: ask(some))(), options.device
        )

    def comparison(
        self,
        ask: Callable[[list[Any]], object],
        asked: list[Any],
        options: argparse.Namespace,
        *,
        agrees: bool,
        agreement: dict[str, Any],
        **more: Any,
    ) -> Comparison:
        """Our predictions against the harness, in the batches that it is fastest with."""
        best = self.best_batch(ask, asked, options)
        return Comparison(
            case=self.case,
            peer="HFLM" if self.case["method"] == "none" else "HFLM with PEFT",
            work=sum(map(len, self.languages.values())),
            ours=self.predict,
            theirs=self.with_batch(best, lambda: ask(asked)),
            agrees=agrees,
            agreement=agreement,
            more=self.about | {"peer's batch": best} | more,
        )


def rows_of(fitting: Fitting) -> list[dict[str, Any]]:
    """Predictions for all examples, language after language."""
    return [
        row
        for language, examples in fitting.data.test.items()
        for row in fitting.predict(language, examples)
    ]


def requests_for(
    data: TaskData, kind: str, arguments: Callable[[str, Example], list[Any]]
) -> list[Any]:
    """The harness's requests for all examples, in the order of :func:`rows_of`."""
    flat = [
        given
        for language, examples in data.test.items()
        for example in examples
        for given in arguments(language, example)
    ]
    return [Instance(kind, {}, given, number) for number, given in enumerate(flat)]


def choice_requests(data: TaskData) -> list[Any]:
    """:func:`requests_for` the log-probability of every choice."""

    def both(language: str, example: Example) -> list[Any]:
        prompt = data.prompts[language]
        context = prompt.render(example.fields)
        return [(context, choice) for choice in prompt.render_choices(example.fields)]

    return requests_for(data, "loglikelihood", both)


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
    found = {name: task_data(options, name, counts[name]) for name in options.tasks}
    tasks = {name: data for name, data in found.items() if data is not None}
    if not tasks:
        raise SystemExit(f"{options.data} holds no folder of {' or '.join(options.tasks)}")
    texts = [text for data in tasks.values() for text in texts_of(data)]
    for size in options.vocabulary if options.model is None else [0]:
        with TemporaryDirectory() as name:
            model = make_model(Path(name, "model"), options, size, texts)
            for method in methods:
                load = both_models(model, method, Path(name, method), options)
                for task, data in tasks.items():
                    case = {"task": task, "method": method} | ({"V": size} if size else {})
                    yield pair_of(case, *load, data, new_tokens.get(task, 0))


Models = tuple[AdaptedModel, HFLM, Path | None]
"""Our model, the harness's, and the folder of the adapter that both carry."""


def both_models(model: str, method: str, folder: Path, options: argparse.Namespace) -> Models:
    """Load a model for both sides, with an adapter of a method that is written to ``folder``."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    adapted = AdaptedModel(load_backbone(ModelConfig(name=model), options.device))
    adapter = None
    if method != "none":
        attach(adapted, method, folder, options.seed, getattr(options, "length", None))
        adapter = folder
    return adapted, harness_model(model, adapter, options.device), adapter


def harness_model(model: str, adapter: Path | None, device: str) -> HFLM:
    """The harness's model."""
    peft = None if adapter is None else str(adapter)
    return HFLM(pretrained=model, peft=peft, dtype="float32", device=device)


def pair_of(
    case: dict[str, Any],
    adapted: AdaptedModel,
    lm: HFLM,
    adapter: Path | None,
    data: TaskData,
    new: int = 0,
) -> Sides:
    """Both sides on a task's examples, those that fit; ``new`` tokens are written at most."""
    decoding = DecodingConfig(max_new_tokens=new) if new else None
    fitting = Fitting(adapted, data, lm.max_length, RuntimeConfig(), decoding)
    fitting.data = _fitting_context(fitting, lm, new)
    return Sides(case, fitting, lm, adapter)


def texts_of(data: TaskData) -> list[str]:
    """The prompts of all examples."""
    return [
        data.prompts[code].render(example.fields)
        for code, examples in data.test.items()
        for example in examples
    ]


def folder_of(data: Path, task: str) -> Path | None:
    """The folder of a task's files."""
    return next(iter(sorted(data.glob(f"{task}*"))), None)


def task_data(options: argparse.Namespace, name: str, count: int) -> TaskData | None:
    """The first ``count`` examples of each language; ``None``: there is no folder."""
    folder = folder_of(options.data, name)
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


# Memory ------------------------------------------------------------------------------------------


def peak_memory(
    pair: Sides, model: str, side: str, options: argparse.Namespace, batch: int, folder: Path
) -> float:
    """MiB of scoring the choices of all examples once, in a process of its own. ``options`` are
    those that :func:`task_data` made them with; ``folder`` receives the job."""
    data = pair.fitting.data
    job = {
        "model": model,
        "adapter": None if pair.adapter is None else str(pair.adapter),
        "data": str(options.data),
        "task": data.task.name,
        "languages": ",".join(pair.languages),
        "prompt": options.prompt,
        "examples": max(map(len, pair.languages.values())),
        "device": options.device,
        "batch": batch,
        "max_length": pair.lm.max_length,
    }
    return in_process("benchmarks.evaluating", job, side, folder)


def measure(path: str, side: str) -> None:
    """The process that measures memory: MiB from before the model is loaded, at the most."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    job = argparse.Namespace(**json.loads(Path(path).read_text(encoding="utf-8")))
    job.data = Path(job.data)
    data = task_data(job, job.task, job.examples)
    if data is None:
        raise SystemExit(f"{job.data} holds no folder of {job.task}")
    adapter = None if job.adapter is None else Path(job.adapter)
    before = reset(job.device)
    if side == "ours":
        adapted = AdaptedModel(load_backbone(ModelConfig(name=job.model), job.device))
        if adapter is not None:
            load_adapter(adapted, adapter)
        rows_of(Fitting(adapted, data, job.max_length, RuntimeConfig()))
    else:
        lm = harness_model(job.model, adapter, job.device)
        lm.batch_size_per_gpu = job.batch
        lm.loglikelihood(choice_requests(data), disable_tqdm=True)
    print((used(job.device) - before) / 2**20)


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2])
