"""Adapters that are trained together: each as it is alone, whatever happens to the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from polyprefix.config import ConfigError, ModelConfig, RunError, RuntimeConfig, TrainConfig
from polyprefix.methods import AdaptedModel
from polyprefix.models import load_backbone
from polyprefix.training import (
    DevScore,
    Job,
    Trained,
    TrainingExample,
    read_log,
    train,
    train_together,
)
from tests.conformance.cases import METHODS, MethodCase
from tests.test_training import checkpointed, examples

MIXING = [case for case in METHODS if case.type.trains and case.type.mixes(case.config())]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@dataclass(frozen=True)
class Asked:
    """One training of a test."""

    case: MethodCase
    seed: int = 0
    count: int = 20
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> TrainConfig:
        return TrainConfig(
            **{"steps": 6, "batch_size": 4, "evaluate_every": 2, "learning_rate": 1e-2}
            | self.config
        )


VARIED = [
    Asked(
        case,
        seed=number,
        count=20 - number % 3,
        config={
            "steps": 3 + number % 4,
            "batch_size": 2 + number % 4,
            "learning_rate": 1e-2 / (1 + number % 3),
            "schedule": ("linear", "cosine", "constant")[number % 3],
            "max_grad_norm": (0.1, 1.0)[number % 2],
            "weight_decay": (0.0, 0.1)[number % 2],
        },
    )
    for number, case in enumerate(MIXING)
]


def dev(model: AdaptedModel) -> DevScore:
    """The loss of a few examples, so that which step is best is the training's own matter."""
    total = 0.0
    with torch.no_grad():
        for example in examples(3):
            ids = torch.tensor([[*model.wrap(example.prompt), *example.answer]])
            logprobs = model(ids).logits[0].log_softmax(-1)
            places = range(ids.shape[1] - len(example.answer) - 1, ids.shape[1] - 1)
            pairs = zip(places, example.answer, strict=True)
            total += float(sum(logprobs[place, token] for place, token in pairs))
    return total, 0.0


Made = tuple[AdaptedModel, list[Job]]


def make(tiny_folder: Path, folder: Path, asked: Sequence[Asked]) -> Made:
    """A model with an adapter for each, and their jobs."""
    model = AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))
    jobs = []
    for number, one in enumerate(asked):
        name = f"a{number}"
        model.attach(one.case.config(), name, seed=one.seed, text="people talk about robots")
        data = examples(one.count)
        where = folder / str(number)
        jobs.append(Job(name, data, one.train, where, lambda: dev(model), one.seed))
    return model, jobs


def alone(
    tiny_folder: Path, folder: Path, asked: Sequence[Asked]
) -> tuple[list[Trained], list[dict[str, torch.Tensor]]]:
    """Each on a backbone of its own: what it amounted to, and the adapter it kept."""
    results, states = [], []
    for number, one in enumerate(asked):
        model, [job] = make(tiny_folder, folder / str(number), [one])
        done = train(
            model,
            job.examples,
            job.config,
            folder=folder / str(number),
            evaluate=job.evaluate,
            seed=job.seed,
        )
        results.append(done)
        states.append({key: value.clone() for key, value in model.adapter().state().items()})
    return results, states


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(folder)]


def assert_same(
    model: AdaptedModel, job: Job, state: dict[str, torch.Tensor], folder: Path
) -> None:
    """The adapter that was kept, and every step's loss and dev score, are those of a folder."""
    kept = model.adapter(job.adapter).state()
    assert kept.keys() == state.keys()
    for name, value in kept.items():
        torch.testing.assert_close(value, state[name], **TOLERANCE)
    ours, theirs = read_log(job.folder), read_log(folder)
    assert [entry["step"] for entry in ours] == [entry["step"] for entry in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("budget", [60, 8192])
def test_every_method_is_trained_as_alone(tiny_folder: Path, tmp_path: Path, budget: int) -> None:
    """All methods in one call, with seeds, rates, schedules, batch sizes and numbers of steps of
    their own, in one micro-batch or many."""
    expected, states = alone(tiny_folder, tmp_path / "alone", VARIED)
    model, jobs = make(tiny_folder, tmp_path / "together", VARIED)
    assert len(jobs) > 8
    before = [
        {key: value.clone() for key, value in model.adapter(job.adapter).state().items()}
        for job in jobs
    ]
    backbone = {name: value.clone() for name, value in model.backbone.model.state_dict().items()}
    model.use(None)
    found = train_together(model, jobs, runtime=RuntimeConfig(micro_batch_tokens=budget))
    assert model.active is None
    assert len({one.train.steps for one in VARIED}) > 1
    for number, (job, result) in enumerate(zip(jobs, found, strict=True)):
        assert isinstance(result, Trained)
        assert (result.steps, result.best_step) == (
            expected[number].steps,
            expected[number].best_step,
        )
        assert_same(model, job, states[number], tmp_path / "alone" / str(number))
        kept = model.adapter(job.adapter).state()
        assert any(not torch.equal(kept[key], before[number][key]) for key in kept)
    for name, value in model.backbone.model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, backbone[name]), name


def test_seconds_are_shared(tiny_folder: Path, tmp_path: Path) -> None:
    """What trainings take comes to what all of them took: nothing is counted for each of them."""
    import time

    one = Asked(MethodCase("prefix_tuning", ()))
    model, jobs = make(tiny_folder, tmp_path, [one] * 6)
    started = time.perf_counter()
    results = train_together(model, jobs)
    whole = time.perf_counter() - started
    seconds = [result.seconds for result in results if isinstance(result, Trained)]
    assert len(seconds) == 6
    assert 0 < sum(seconds) <= whole


def test_mixed_precision(tiny_folder: Path, tmp_path: Path) -> None:
    """bf16 through accelerate, for all; what comes after computes in the backbone's own dtype."""
    asked = [
        Asked(MethodCase(method, ()), config={"mixed_precision": "bf16"})
        for method in ("prefix_tuning", "lora", "soft_prompt")
    ]
    _, states = alone(tiny_folder, tmp_path / "alone", asked)
    model, jobs = make(tiny_folder, tmp_path / "together", asked)
    assert all(isinstance(found, Trained) for found in train_together(model, jobs))
    for number, job in enumerate(jobs):
        for name, value in model.adapter(job.adapter).state().items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, states[number][name], atol=5e-2, rtol=5e-2)
        ours, theirs = losses(job.folder), losses(tmp_path / "alone" / str(number))
        assert ours == pytest.approx(theirs, abs=2e-2)
    ids = torch.tensor([[1, 30, 40]])
    assert model(ids).logits.dtype == torch.float32


def test_precisions_do_not_mix(tiny_folder: Path, tmp_path: Path) -> None:
    case = MethodCase("lora", ())
    asked = [Asked(case), Asked(case, config={"mixed_precision": "bf16"})]
    model, jobs = make(tiny_folder, tmp_path, asked)
    with pytest.raises(ConfigError, match="mixed_precision"):
        train_together(model, jobs)


# What goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", MIXING, ids=str)
def test_one_diverges_and_the_others_go_on(
    tiny_folder: Path, tmp_path: Path, bad: MethodCase
) -> None:
    """NaN in one adapter reaches no other: neither in the forward nor in the backward pass."""
    config = {"steps": 6, "evaluate_every": 3}
    others = [
        Asked(MethodCase(method, ()), seed=number, config=config)
        for number, method in enumerate(("prefix_tuning", "lora", "bottleneck", "soft_prompt"))
    ]
    _, states = alone(tiny_folder, tmp_path / "alone", others)
    model, jobs = make(tiny_folder, tmp_path / "together", [Asked(bad, config=config), *others])

    def poison() -> DevScore:
        with torch.no_grad():
            for value in model.adapter().trainable().values():
                value.fill_(float("nan"))
        return 0.0, 0.0

    failed, *found = train_together(model, [replace(jobs[0], evaluate=poison), *jobs[1:]])
    assert isinstance(failed, RunError)
    assert "stopped at step 4: the loss is nan" in str(failed)
    assert all(isinstance(result, Trained) for result in found)
    for number, job in enumerate(jobs[1:]):
        assert_same(model, job, states[number], tmp_path / "alone" / str(number))


def test_what_cannot_begin_is_no_other_training_s_matter(tiny_folder: Path, tmp_path: Path) -> None:
    model, jobs = make(tiny_folder, tmp_path, [Asked(MethodCase("lora", ()))] * 2)
    nothing, fine = train_together(model, [replace(jobs[0], examples=[]), jobs[1]])
    assert isinstance(nothing, RunError)
    assert "no training examples" in str(nothing)
    assert isinstance(fine, Trained)


def test_an_evaluation_that_fails_ends_its_training_alone(
    tiny_folder: Path, tmp_path: Path
) -> None:
    def fails() -> DevScore:
        raise RunError("log-probabilities are not finite")

    case = MethodCase("prefix_tuning", ())
    _, states = alone(tiny_folder, tmp_path / "alone", [Asked(case, seed=1)])
    model, jobs = make(tiny_folder, tmp_path / "together", [Asked(case), Asked(case, seed=1)])
    failed, fine = train_together(model, [replace(jobs[0], evaluate=fails), jobs[1]])
    assert isinstance(failed, RunError)
    assert isinstance(fine, Trained)
    assert_same(model, jobs[1], states[0], tmp_path / "alone" / "0")


# Interruption ------------------------------------------------------------------------------------

THREE = [
    Asked(MethodCase("prefix_tuning", ()), seed=1, config={"steps": 8}),
    Asked(MethodCase("lora", ()), seed=2, config={"steps": 4}),
    Asked(MethodCase("bottleneck", ()), seed=3, config={"steps": 8, "evaluate_every": 3}),
]


def stopped_at(jobs: list[Job], call: int, stop: Callable[[], None]) -> list[Job]:
    """Jobs of which the last does ``stop`` in that evaluation."""
    calls = 0
    evaluate = jobs[-1].evaluate

    def evaluated() -> DevScore:
        nonlocal calls
        calls += 1
        if calls == call:
            stop()
        return evaluate()

    return [*jobs[:-1], replace(jobs[-1], evaluate=evaluated)]


def kill() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["kill", "Ctrl-C"])
@pytest.mark.parametrize("again", ["together", "alone"])
def test_interrupted_trainings_go_on(
    tiny_folder: Path, tmp_path: Path, request: pytest.FixtureRequest, how: str, again: str
) -> None:
    """Each from its own checkpoint, in company or by itself, as if nothing had been."""
    _, states = alone(tiny_folder, tmp_path / "alone", THREE)
    model, jobs = make(tiny_folder, tmp_path / "parts", THREE)
    stop = kill
    if how == "Ctrl-C":
        # a shell starts what it puts in the background with SIGINT ignored; here it must arrive
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

        def stop() -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_together(model, stopped_at(jobs, 2, stop))
    steps = [int(next((job.folder / "checkpoints").iterdir()).name) for job in jobs]
    assert steps == ([6, 4, 6] if how == "Ctrl-C" else [4, 4, 3])
    done = 0
    if again == "together":
        model, jobs = make(tiny_folder, tmp_path / "parts", THREE)
        found = train_together(model, jobs)
        assert all(isinstance(result, Trained) for result in found)
        for number, job in enumerate(jobs):
            assert_same(model, job, states[number], tmp_path / "alone" / str(number))
            done += 1
    else:
        for number, one in enumerate(THREE):
            model, [job] = make(tiny_folder, tmp_path / "unused", [one])
            job = replace(job, folder=tmp_path / "parts" / str(number))
            [result] = train_together(model, [job])
            assert isinstance(result, Trained)
            assert_same(model, job, states[number], tmp_path / "alone" / str(number))
            done += 1
    assert done == 3


def test_resumed_in_the_same_company_to_the_bit(tiny_folder: Path, tmp_path: Path) -> None:
    asked = [replace(one, config=one.config | {"steps": 6, "evaluate_every": 2}) for one in THREE]
    model, jobs = make(tiny_folder, tmp_path / "whole", asked)
    train_together(model, jobs)
    model, jobs = make(tiny_folder, tmp_path / "parts", asked)
    with pytest.raises(KeyboardInterrupt):
        train_together(model, stopped_at(jobs, 3, kill))
    model, jobs = make(tiny_folder, tmp_path / "parts", asked)
    train_together(model, jobs)
    compared = 0
    for job in jobs:
        parts = checkpointed(job.folder)
        for name, value in checkpointed(tmp_path / "whole" / job.folder.name).items():
            assert torch.equal(parts[name], value), name
            compared += 1
    assert compared > 10


def test_examples_of_one_batch_may_be_each_adapter_s_own(tiny_folder: Path, tmp_path: Path) -> None:
    """The same texts for two adapters: neither learns from the other's answers."""
    case = MethodCase("prefix_tuning", ())
    model, jobs = make(tiny_folder, tmp_path, [Asked(case), Asked(case)])
    data = [[TrainingExample([1, 30, 31], [token]) for _ in range(8)] for token in (10, 20)]
    config = TrainConfig(steps=10, batch_size=4, learning_rate=0.05)
    jobs = [replace(job, examples=own, config=config) for job, own in zip(jobs, data, strict=True)]
    train_together(model, jobs)
    for job, (own, other) in zip(jobs, [(10, 20), (20, 10)], strict=True):
        model.use(job.adapter)
        with torch.no_grad():
            logits = model(torch.tensor([[1, 30, 31]])).logits[0, -1]
        assert logits[own] > logits[other] + 1
