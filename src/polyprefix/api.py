"""The library in a few calls.

Example::

    import polyprefix as pp

    model = pp.load("polyprefix/nano")
    model.attach({"name": "prefix_tuning", "length": 10}, text="What is this text about?")
    data = pp.load_data("sib200", data="sib200/", languages="en,sw,tr")
    pp.train(model, data, steps=200)
    scores = pp.evaluate(model, data)          # {"eng_Latn": {"accuracy": ..., ...}, ...}
    pp.save_adapter(model.adapter(), "adapter/")
    pp.load_adapter(pp.load("polyprefix/nano"), "adapter/")
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from polyprefix.config import ModelConfig, RuntimeConfig, TaskConfig, TrainConfig
from polyprefix.evaluation import summarise
from polyprefix.methods import AdaptedModel
from polyprefix.models import load_backbone
from polyprefix.study.fit import Fitting
from polyprefix.tasks import TaskData, load_task_data
from polyprefix.training import Trained

MAX_LENGTH = 512


def load(name: str, *, device: str | torch.device = "cpu", **options: Any) -> AdaptedModel:
    """A backbone, ready for adapters.

    Args:
        name: hub name, folder, or ``polyprefix/nano``.
        device: where it computes.
        options: further keys of :class:`ModelConfig`: ``revision``, ``dtype``,
            ``quantization``, ``offload``, ``trust_remote_code``.

    Raises:
        UnsupportedModel: it cannot be loaded, or its family is not supported.
    """
    config = ModelConfig.read({"name": name, **options})
    return AdaptedModel(load_backbone(config, torch.device(device)))


def load_data(task: str, *, seed: int = 0, **options: Any) -> TaskData:
    """A task's data: training and dev examples of the source language, tests by language.

    Args:
        task: its name.
        seed: of subsampling.
        options: further keys of :class:`TaskConfig`: ``data``, ``languages``, ``train_samples``...

    Raises:
        PolyprefixError: see :func:`polyprefix.tasks.load_task_data`.
    """
    return load_task_data(TaskConfig.read({"name": task, **options}), seed=seed)


def train(
    model: AdaptedModel,
    data: TaskData,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    max_length: int = MAX_LENGTH,
    **options: Any,
) -> Trained:
    """Train the adapter in use on ``data.train``; the best on ``data.dev`` is kept.

    Args:
        folder: receives log, checkpoints and the best adapter, and lets an interrupted training go
            on; without it they are thrown away.
        options: keys of :class:`TrainConfig`: ``steps``, ``learning_rate``, ``batch_size``...
    """
    config = TrainConfig.read(options)
    fitting = Fitting(model, data, max_length, RuntimeConfig())
    with tempfile.TemporaryDirectory() as temporary:
        return fitting.train(config, Path(folder or temporary), seed=seed)


def evaluate(
    model: AdaptedModel, data: TaskData, *, max_length: int = MAX_LENGTH
) -> dict[str, dict[str, float | int]]:
    """Scores of every language of ``data.test``, under the adapter in use."""
    fitting = Fitting(model, data, max_length, RuntimeConfig())
    return {
        code: summarise(data.task, fitting.predict(code, examples))
        for code, examples in data.test.items()
    }
