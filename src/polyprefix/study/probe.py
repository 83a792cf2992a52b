"""How long a run will take, from a few of its own steps and examples on its own model."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from polyprefix.config import RunConfig, digest
from polyprefix.methods import AdaptedModel
from polyprefix.results import Silent, StudyFolder
from polyprefix.study.fit import Fitting
from polyprefix.study.memory import forget_memory, memory_used
from polyprefix.study.prepare import Prepared, choose_device
from polyprefix.study.run import starting_text
from polyprefix.tasks import Example, TaskData
from polyprefix.training import num_steps

SECONDS = 2.0
"""Of training, and of scoring, that a probe takes at least, where there is enough."""

STEPS = 3
"""Training steps that are timed at least, after one to warm up."""

EXAMPLES = 8
"""Examples that are scored first; four times as many follow while it is too quick to be timed."""

TRAIN_EXAMPLES = 2048
"""Training examples that steps are drawn from, the first of them: turning all into tokens may take
longer than the probe."""

LANGUAGES = 4
"""Languages that are scored, from all over the list."""


@dataclass(frozen=True)
class Probe:
    """What a probe measured.

    Attributes:
        parameters: that are trained.
        train_examples: of the task, after sampling.
        step: seconds of an optimizer step; 0 where nothing is trained.
        dev: seconds of one dev evaluation; 0 where nothing is trained.
        test: seconds of scoring every language.
        memory: bytes at the most, see ``study/memory.py``.
    """

    parameters: int
    train_examples: int
    step: float
    dev: float
    test: float
    memory: int | None

    def seconds(self, config: RunConfig) -> float:
        """Of a run's training, dev evaluations and tests; loading data and model is not in it."""
        if not self.step:
            return self.test
        steps = num_steps(config.train, self.train_examples)
        every = config.train.evaluate_every or max(1, steps // 10)
        return steps * self.step + math.ceil(steps / every) * self.dev + self.test


def probe_key(config: RunConfig, device: str | None = None) -> str:
    """Names what has an effect on time and memory: model, method, data, sizes, and the device (by
    default the one that the run has on this machine); not the seed, the learning rate, the number
    of steps or how answers are sampled."""
    device = device or str(choose_device(config.runtime.device))
    values = config.model_dump(mode="json")
    sections = [values[name] for name in ("model", "method", "task", "runtime")]
    train = [config.train.batch_size, config.train.mixed_precision]
    return digest([*sections, train, config.decoding.max_new_tokens, device])[:12]


def find_probe(folder: StudyFolder, key: str) -> Probe | None:
    """A probe that was made before."""
    values = folder.probe(key)
    names = [field.name for field in fields(Probe)]
    if values is None or sorted(values) != sorted(names):
        return None  # made by another version, or damaged: it is made again
    return Probe(**values)


def make_probe(prepared: Prepared, folder: StudyFolder, key: str) -> Probe:
    """Train and score for some seconds, and write down what that took.

    The adapter is taken off again; what was trained is thrown away.

    Raises:
        PolyprefixError: what would stop the run as well.
    """
    config, data, backbone = prepared.config, prepared.data, prepared.backbone
    forget_memory(backbone.device)
    model = AdaptedModel(backbone)
    adapter = model.attach(prepared.method, seed=config.seed, text=starting_text(data))
    fitting = Fitting(
        model, data, config.task.max_length, config.runtime, config.decoding, seed=config.seed
    )
    step = dev = 0.0
    if prepared.adapter_type.trains:
        few = replace(data, train=data.train[:TRAIN_EXAMPLES])
        step = _step_seconds(fitting.on(data=few), config)
        dev = _scaled(fitting, data.source_language, data.dev, partial(_dev, fitting))
    test = _test_seconds(fitting, data)
    probe = Probe(
        parameters=adapter.num_trainable(),
        train_examples=len(data.train),
        step=step,
        dev=dev,
        test=test,
        memory=memory_used(backbone.device),
    )
    model.detach()
    folder.write_probe(key, asdict(probe))
    return probe


class _Enough(Exception):
    """Ends a training that was only to be timed, before it has written anything but its log."""


class _Watch(Silent):
    """Notes when training steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def advance(self, units: int = 1, note: str = "") -> None:
        self.ends.append(time.perf_counter())
        timed = len(self.ends) - 1
        if timed >= STEPS and self.ends[-1] - self.ends[0] >= SECONDS:
            raise _Enough

    @property
    def mean(self) -> float:
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def _step_seconds(fitting: Fitting, config: RunConfig) -> float:
    endless = {"steps": 1_000_000, "epochs": None, "evaluate_every": 1_000_000}
    watch = _Watch()
    timed = fitting.on(runtime=config.runtime.model_copy(update={"checkpoint_every": None}))
    with tempfile.TemporaryDirectory() as folder, suppress(_Enough):
        train = config.train.model_copy(update=endless)
        timed.train(train, Path(folder), seed=config.seed, progress=watch)
    return watch.mean


def _dev(fitting: Fitting, part: Sequence[Example]) -> None:
    fitting.on(data=replace(fitting.data, dev=list(part))).dev_score()


def _test_seconds(fitting: Fitting, data: TaskData) -> float:
    """Of all languages, from some of them: what the rest takes goes by the bytes of its prompts."""
    codes = data.languages
    some = codes[:: math.ceil(len(codes) / LANGUAGES)]
    seconds, size = 0.0, 0
    for code in some:
        seconds += _scaled(fitting, code, data.test[code], partial(fitting.predict, code))
        size += _bytes(data, code, data.test[code])
    return seconds * sum(_bytes(data, code, part) for code, part in data.test.items()) / size


def _scaled(
    fitting: Fitting, code: str, examples: Sequence[Example], work: Callable[[Any], Any]
) -> float:
    """Seconds of ``work`` on the examples of a language, from a part of them."""
    count = EXAMPLES
    while True:
        part = examples[:count]
        started = time.perf_counter()
        work(part)
        seconds = time.perf_counter() - started
        if len(part) == len(examples) or seconds >= SECONDS / LANGUAGES:
            break
        count *= 4
    return seconds * _bytes(fitting.data, code, examples) / _bytes(fitting.data, code, part)


def _bytes(data: TaskData, code: str, examples: Sequence[Example]) -> int:
    """The size of prompts, which tokens follow in every script better than characters do."""
    prompt = data.prompts[code]
    return sum(len(prompt.render(example.fields).encode()) for example in examples)
