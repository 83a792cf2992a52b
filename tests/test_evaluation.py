"""Scoring and metrics, against slow and plain references."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from polyprefix.config import DataError, ModelConfig
from polyprefix.evaluation import accuracy, macro_f1, majority, score_answers, summarise
from polyprefix.evaluation.choices import predict_choices
from polyprefix.evaluation.scoring import score_greedy_answers
from polyprefix.methods import AdaptedModel
from polyprefix.models import load_backbone
from polyprefix.models.encoding import Encoded, Encoder
from polyprefix.tasks import ChoiceTask, Example, get_task
from tests.conformance.cases import METHODS, MethodCase, adapted


def reference(model: AdaptedModel, example: Encoded) -> list[float]:
    """One answer at a time, one forward each, logits everywhere."""
    values = []
    for answer in example.answers:
        prompt = model.wrap(example.prompt)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
        values.append(sum(float(logits[p, t]) for p, t in zip(places, answer, strict=True)))
    return values


ANSWERS = [
    ([5], [6], [7]),
    ([5], [5, 6], [5, 6, 7]),
    ([5, 9], [6, 9], [5, 9, 9]),
    ([5, 6], [5, 7], [8]),
]


@pytest.mark.parametrize("case", METHODS, ids=str)
@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_scores_are_those_of_one_answer_at_a_time(case: MethodCase, budget: int) -> None:
    model = adapted("llama", case)
    source = random.Random(0)
    examples = [
        Encoded([source.randrange(3, 120) for _ in range(3 + 2 * i)], answers)
        for i, answers in enumerate(ANSWERS * 2)
    ]
    done: list[int] = []
    scores = score_answers(model, examples, batch_tokens=budget, advance=done.append)
    assert sum(done) == len(examples)
    for got, example in zip(scores, examples, strict=True):
        assert got == pytest.approx(reference(model, example), abs=2e-5)


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_greedy_answers_are_those_that_would_be_written(case: MethodCase) -> None:
    model = adapted("llama", case)
    examples, expected = [], []
    for start in range(4):
        prompt = list(range(10 + start, 14 + 2 * start))
        written: list[int] = []
        for _ in range(3):
            with torch.no_grad():
                logits = model(torch.tensor([[*model.wrap(prompt), *written]])).logits[0, -1]
            written.append(int(logits.argmax()))
        other = next(token for token in range(3, 120) if token not in written)
        answers = (written, written[:1], [*written[:2], other], [other, *written[1:]], [other])
        examples.append(Encoded(prompt, answers))
        expected.append([True, True, False, False, False])
    scores, greedy = score_greedy_answers(model, examples, batch_tokens=60)
    assert greedy == expected
    assert scores == score_answers(model, examples, batch_tokens=60)


@pytest.mark.parametrize(("answers", "tokens"), [(ANSWERS[0], 2), (ANSWERS[2], 4)], ids=str)
def test_answers_share_their_prompt(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[list[int], ...], tokens: int
) -> None:
    """One pass over a prompt for answers of one token, and branches behind it for longer ones."""
    model = adapted("llama", MethodCase("prefix_tuning", ()))
    computed, read = 0, 0
    forward = AdaptedModel.forward

    def count(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal computed, read
        computed += input_ids.numel()
        read += len(kwargs["keep"])
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(AdaptedModel, "forward", count)
    example = Encoded([5, 6], answers)
    score_answers(model, [example], batch_tokens=100)
    # branches: [5], [5, 9] and [6] of the answers [5, 9], [5, 9, 9] and [6, 9]
    assert computed == tokens + (len(answers[-1]) > 1)
    assert read == computed - 1
    # What is greedy is read from the same rows, and an example that is there twice costs nothing.
    score_greedy_answers(model, [example] * 2, batch_tokens=100)
    assert computed == 2 * (tokens + (len(answers[-1]) > 1))


# Encoding ----------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_folder: Path) -> AdaptedModel:
    return AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))


def test_encoding_is_that_of_the_whole_text(model: AdaptedModel) -> None:
    tokenizer = model.backbone.tokenizer
    task = get_task("sib200")
    texts = ["People talk about goals.", "Ein Satz\nauf zwei Zeilen", "山 和 river", ""]
    prompts = [task.prompt.render({"text": text}) for text in texts]
    encoded = Encoder(tokenizer, 512).encode(prompts, [task.prompt.choices] * len(prompts))
    for prompt, item in zip(prompts, encoded, strict=True):
        for choice, answer in zip(task.prompt.choices, item.answers, strict=True):
            assert item.prompt + answer == tokenizer(prompt + choice)["input_ids"]


def test_long_prompts_lose_their_beginning(model: AdaptedModel) -> None:
    tokenizer = model.backbone.tokenizer
    prompt = "people " * 100 + "\nTopic:"
    [item] = Encoder(tokenizer, 40).encode([prompt], [[" travel", " science"]])
    longest = max(map(len, item.answers))
    assert item.truncated
    assert len(item.prompt) + longest == 40
    whole = tokenizer(prompt)["input_ids"]
    assert item.prompt[0] == tokenizer.bos_token_id
    assert item.prompt[1:] == whole[-(39 - longest) :]
    [short] = Encoder(tokenizer, 40).encode(["people\nTopic:"], [[" travel"]])
    assert not short.truncated


def test_no_room_for_a_prompt(model: AdaptedModel) -> None:
    with pytest.raises(DataError, match=r"max_length=2.*task\.max_length"):
        Encoder(model.backbone.tokenizer, 2).encode(["a"], [[" travel"]])


def test_soft_tokens_and_moved_positions_take_room(model: AdaptedModel) -> None:
    context = model.backbone.context_length
    assert context is not None
    assert model.room(40) == 40
    assert model.room(context + 9) == context
    model.attach({"name": "soft_prompt", "length": 5})
    assert model.room(context) == context - 5
    model.attach({"name": "prefix_tuning", "length": 7, "positions": "peft"}, "b", text="a text")
    assert model.room(context) == context - 7
    assert model.room(context, "default") == context - 5


# Metrics -----------------------------------------------------------------------------------------


def test_metrics_against_scikit_learn() -> None:
    source = random.Random(2)
    for classes, count in [(3, 500), (7, 204), (7, 5), (2, 30)]:
        labels = [source.randrange(classes) for _ in range(count)]
        predictions = [
            label if source.random() < 0.5 else source.randrange(classes) for label in labels
        ]
        share, error = accuracy(labels, predictions)
        assert share == pytest.approx(accuracy_score(labels, predictions))
        assert error == pytest.approx((share * (1 - share) / (count - 1)) ** 0.5)
        f1, _ = macro_f1(labels, predictions, classes)
        assert f1 == pytest.approx(f1_score(labels, predictions, average="macro"))
        assert majority(labels, classes) == max(map(labels.count, labels)) / count


def test_standard_error_of_macro_f1_is_that_of_resampling() -> None:
    """Against the spread over data sets drawn from the same population."""
    source = random.Random(3)

    def draw() -> tuple[list[int], list[int]]:
        labels = [source.randrange(3) for _ in range(300)]
        return labels, [y if source.random() < 0.6 else source.randrange(3) for y in labels]

    values = [macro_f1(*draw(), 3)[0] for _ in range(300)]
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    assert macro_f1(*draw(), 3)[1] == pytest.approx(spread, rel=0.25)


def test_predictions_and_summary(model: AdaptedModel) -> None:
    task = get_task("sib200")
    texts = ["People talk about goals.", "People talk about rivers.", "People talk about films."]
    examples = [Example(str(i), {"text": text}, i) for i, text in enumerate(texts)]
    assert isinstance(task, ChoiceTask)
    encoder = Encoder(model.backbone.tokenizer, 512)
    rows = predict_choices(model, task, task.prompt, examples, encoder, batch_tokens=99)
    for row, example in zip(rows, examples, strict=True):
        assert row["label"] == task.labels[example.label]
        best = max(range(7), key=lambda i, row=row: row["logprobs"][i])
        assert row["prediction"] == task.labels[best]
        # the tiny tokenizer cuts some choices in several tokens
        lengths = [len(choice.strip()) for choice in task.prompt.choices]
        expected = [v / n for v, n in zip(row["logprobs"], lengths, strict=True)]
        assert row["logprobs_per_character"] == pytest.approx(expected, abs=1e-5)
    scores = summarise(task, rows)
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert scores["accuracy"] == right / 3
    assert scores["majority"] == pytest.approx(1 / 3)
    assert scores["gold_logprob"] < 0
    assert "accuracy_per_character" in scores
