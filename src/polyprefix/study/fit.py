"""Train an adapter on a task's data, and score it there: what a run and the Python API share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

from polyprefix.config import ConfigError, DecodingConfig, RuntimeConfig, TrainConfig
from polyprefix.evaluation import Decoding, encode_choices, predict, score_answers, summarise
from polyprefix.methods import AdaptedModel
from polyprefix.models.budget import Budget
from polyprefix.models.encoding import Encoded, Encoder
from polyprefix.results import Progress
from polyprefix.tasks import AnswerTask, ChoiceTask, Example, Prompt, Task, TaskData
from polyprefix.training import DevScore, Job, Trained, TrainingExample, train


class Fitting:
    """A model with an adapter in use, the data of a task, and how to compute.

    Args:
        model: whose adapter is trained and scored.
        data: the task's examples.
        max_length: tokens of prompt and answer.
        runtime: sizes of batches.
        decoding: how answers are written.
        seed: of sampling.
        say: told where memory does not suffice for batches of that size.

    Attributes:
        budget: tokens of a forward pass in evaluation, fewer than at first where memory did not
            suffice.
    """

    def __init__(
        self,
        model: AdaptedModel,
        data: TaskData,
        max_length: int,
        runtime: RuntimeConfig,
        decoding: DecodingConfig | None = None,
        *,
        seed: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.model, self.data, self.runtime = model, data, runtime
        self.budget = Budget(runtime.evaluation_batch_tokens, say=say)
        self.encoder = Encoder(model.backbone.tokenizer, model.room(max_length))
        self.decodings = {
            language: _decoding(data.task, prompt, decoding or DecodingConfig(), seed)
            for language, prompt in data.prompts.items()
        }
        self.truncated = 0

    def on(self, *, data: TaskData | None = None, runtime: RuntimeConfig | None = None) -> Self:
        """The same with other examples of the same task, or computed otherwise."""
        other = copy(self)
        other.data, other.runtime = data or self.data, runtime or self.runtime
        if other.runtime.evaluation_batch_tokens != self.runtime.evaluation_batch_tokens:
            tokens = other.runtime.evaluation_batch_tokens
            other.budget = Budget(tokens, say=self.budget.say)
        return other

    def train(
        self,
        config: TrainConfig,
        folder: Path,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Trained:
        """Train on the source language; see :func:`polyprefix.training.train`."""
        job = self.job(config, folder, seed=seed)
        return train(
            self.model,
            job.examples,
            config,
            folder=folder,
            evaluate=job.evaluate,
            seed=seed,
            runtime=self.runtime,
            progress=progress,
        )

    def job(self, config: TrainConfig, folder: Path, *, seed: int = 0) -> Job:
        """The training of the adapter in use.

        Raises:
            ConfigError: there is none.
            DataError: an answer leaves no room for its prompt.
        """
        name = self.model.active
        if name is None:
            raise ConfigError("no adapter is in use")
        encoded = self.right_answers(self.data.train)
        self.truncated = sum(item.truncated for item in encoded)
        examples = [TrainingExample(item.prompt, item.answers[0]) for item in encoded]
        return Job(name, examples, config, folder, self.dev_score, seed)

    def right_answers(self, examples: Sequence[Example]) -> list[Encoded]:
        """Prompts of the source language, each with its right answer alone."""
        data, prompt = self.data, self.data.prompts[self.data.source_language]
        if isinstance(data.task, ChoiceTask):
            encoded = encode_choices(self.encoder, prompt, examples)
            return [
                Encoded(item.prompt, (item.answers[example.label],), item.truncated)
                for item, example in zip(encoded, examples, strict=True)
            ]
        prompts = [prompt.render(example.fields) for example in examples]
        targets = [prompt.render_target(example.fields) or example.target for example in examples]
        answers = [
            (f" {target or example.answers[0]}",)
            for target, example in zip(targets, examples, strict=True)
        ]
        # What ends a text ends an answer, or else a line: without it the model would write on.
        end = self.model.backbone.tokenizer.eos_token_id
        if end is None:
            answers = [(f"{answer}\n",) for (answer,) in answers]
        reserve = self.decodings[data.source_language].max_new_tokens
        encoded = self.encoder.encode(prompts, answers, reserve=reserve)
        ends = [] if end is None else [end]
        return [
            Encoded(item.prompt, ([*item.answers[0], *ends],), item.truncated) for item in encoded
        ]

    def encode(self, language: str, examples: Sequence[Example]) -> list[Encoded]:
        """Prompts as they are tested, with the answers that there are to choose from."""
        prompt = self.data.prompts[language]
        if isinstance(self.data.task, ChoiceTask):
            return encode_choices(self.encoder, prompt, examples)
        prompts = [prompt.render(example.fields) for example in examples]
        reserve = self.decodings[language].max_new_tokens
        return self.encoder.encode(prompts, [()] * len(prompts), reserve=reserve)

    def dev_score(self) -> DevScore:
        """The headline score on the source language's dev split; the right answers'
        log-probability breaks ties."""
        source, dev = self.data.source_language, self.data.dev
        scores = summarise(self.data.task, self.predict(source, dev))
        if "gold_logprob" in scores:
            tie_break = float(scores["gold_logprob"])
        else:
            encoded = self.right_answers(dev)
            found = score_answers(self.model, encoded, batch_tokens=self.budget)
            tie_break = sum(values[0] for values in found) / len(found)
        return float(scores[self.data.task.headline]), tie_break

    def predict(
        self,
        language: str,
        examples: Sequence[Example],
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """Prediction rows, see :func:`polyprefix.evaluation.predict`."""
        return predict(
            self.model,
            self.data,
            language,
            examples,
            self.encoder,
            self.decodings[language],
            batch_tokens=self.budget,
            advance=advance,
        )


def _decoding(task: Task, prompt: Prompt, config: DecodingConfig, seed: int) -> Decoding:
    """How answers to a prompt are written: as the run says, else the prompt, else the task."""
    if not isinstance(task, AnswerTask):
        return Decoding()
    return Decoding(
        max_new_tokens=config.max_new_tokens or prompt.max_new_tokens or task.max_new_tokens,
        stop=task.stop if prompt.stop is None else prompt.stop,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=seed,
    )
