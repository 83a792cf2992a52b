"""Train an adapter on a task's data, and score it there: what a run and the Python API share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polyprefix.config import RuntimeConfig, TrainConfig
from polyprefix.evaluation import encode_examples, predict, summarise
from polyprefix.methods import AdaptedModel
from polyprefix.models.encoding import Encoder
from polyprefix.results import Progress
from polyprefix.tasks import Example, TaskData
from polyprefix.training import DevScore, Trained, TrainingExample, train


class Fitting:
    """A model with an adapter in use, the data of a task, and how to compute.

    Args:
        model: whose adapter is trained and scored.
        data: the task's examples.
        max_length: tokens of prompt and answer.
        runtime: sizes of batches.
    """

    def __init__(
        self, model: AdaptedModel, data: TaskData, max_length: int, runtime: RuntimeConfig
    ) -> None:
        self.model, self.data, self.runtime = model, data, runtime
        self.encoder = Encoder(model.backbone.tokenizer, model.room(max_length))
        self.truncated = 0

    def train(
        self,
        config: TrainConfig,
        folder: Path,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Trained:
        """Train on the source language; see :func:`polyprefix.training.train`."""
        data = self.data
        encoded = encode_examples(self.encoder, data.task, data.train)
        self.truncated = sum(item.truncated for item in encoded)
        examples = [
            TrainingExample(item.prompt, item.answers[example.label])
            for item, example in zip(encoded, data.train, strict=True)
        ]
        return train(
            self.model,
            examples,
            config,
            folder=folder,
            evaluate=self._dev,
            seed=seed,
            runtime=self.runtime,
            progress=progress,
        )

    def _dev(self) -> DevScore:
        scores = summarise(self.data.task, self.predict(self.data.dev))
        return float(scores["accuracy"]), float(scores["gold_logprob"])

    def predict(
        self, examples: Sequence[Example], advance: Callable[[int], None] = lambda _: None
    ) -> list[dict[str, Any]]:
        """Prediction rows, see :func:`polyprefix.evaluation.predict`."""
        return predict(
            self.model,
            self.data.task,
            examples,
            self.encoder,
            batch_tokens=self.runtime.evaluation_batch_tokens,
            advance=advance,
        )
