"""The training loop: exact resumption, micro-batches, schedules, and what stops it."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from polyprefix.config import ConfigError, ModelConfig, RunError, RuntimeConfig, TrainConfig
from polyprefix.methods import AdaptedModel, load_adapter
from polyprefix.models import load_backbone
from polyprefix.training import TrainingExample, num_steps, read_log, train
from polyprefix.training.batches import batches_from, epoch
from polyprefix.training.schedule import factor
from tests.conformance.cases import METHODS, MethodCase

TRAINED = [case for case in METHODS if case.method not in {"none"}]


def examples(count: int = 20) -> list[TrainingExample]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        ids = torch.randint(3, 200, (4 + number % 7,), generator=generator).tolist()
        made.append(TrainingExample([1, *ids], [10 + number % 3, 20][: 1 + number % 2]))
    return made


def fresh(tiny_folder: Path, case: MethodCase) -> AdaptedModel:
    model = AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))
    model.attach(case.config(), text="people talk about robots and planets")
    return model


def fit(model: AdaptedModel, folder: Path, stop_at: int | None = None, **options: Any) -> None:
    """Train; ``stop_at`` breaks off in the evaluation of that number, as a kill would."""
    evaluations = 0

    def evaluate() -> tuple[float, float]:
        nonlocal evaluations
        evaluations += 1
        if evaluations == stop_at:
            raise KeyboardInterrupt
        return (float(evaluations % 2), float(evaluations))

    runtime = RuntimeConfig(**options.pop("runtime", {}))
    config = TrainConfig(steps=12, batch_size=4, evaluate_every=4, learning_rate=0.02, **options)
    train(model, examples(), config, folder=folder, evaluate=evaluate, seed=3, runtime=runtime)


def state(model: AdaptedModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.adapter().state().items()}


def checkpointed(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    newest = sorted((folder / "checkpoints").glob("[0-9]*"))[-1]
    return load_file(newest / "tensors.safetensors")


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_resumed_training_gives_the_same_weights(
    tiny_folder: Path, tmp_path: Path, case: MethodCase
) -> None:
    fit(fresh(tiny_folder, case), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(tiny_folder, case), tmp_path / "parts", stop_at=3)
    # broken off in step 12, so the checkpoint is of step 8; a new process builds a new model
    assert [p.name for p in (tmp_path / "parts" / "checkpoints").iterdir()] == ["00000008"]
    torch.manual_seed(99)
    fit(fresh(tiny_folder, case), tmp_path / "parts")
    whole, parts = checkpointed(tmp_path / "whole"), checkpointed(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(parts[name], value), name
    log = [(e["step"], e["loss"]) for e in read_log(tmp_path / "whole")]
    assert log == [(e["step"], e["loss"]) for e in read_log(tmp_path / "parts")]
    assert [step for step, _ in log] == list(range(1, 13))


def test_the_best_adapter_is_kept(tiny_folder: Path, tmp_path: Path) -> None:
    model = fresh(tiny_folder, MethodCase("prefix_tuning", ()))
    scores = iter([(0.3, 0.0), (0.5, -2.0), (0.5, -3.0)])
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def evaluate() -> tuple[float, float]:
        kept[len(kept)] = state(model)
        return next(scores)

    config = TrainConfig(steps=9, batch_size=4, evaluate_every=3, learning_rate=0.02)
    done = train(model, examples(), config, folder=tmp_path, evaluate=evaluate)
    assert (done.best_step, done.best_dev) == (6, 0.5)
    for name, value in state(model).items():
        assert torch.equal(value, kept[1][name])
        assert not torch.equal(value, kept[2][name])


def test_micro_batches_give_the_same_weights(tiny_folder: Path, tmp_path: Path) -> None:
    case = MethodCase("prefix_tuning", ())
    for budget in (16, 10_000):
        fit(
            fresh(tiny_folder, case),
            tmp_path / str(budget),
            runtime={"micro_batch_tokens": budget},
        )
    small, large = checkpointed(tmp_path / "16"), checkpointed(tmp_path / "10000")
    for name, value in large.items():
        if name.startswith("parameter."):
            torch.testing.assert_close(small[name], value, atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_gives_the_same_weights(tiny_folder: Path, tmp_path: Path) -> None:
    case = MethodCase("llama_adapter", ())
    for on in (False, True):
        runtime = {"gradient_checkpointing": on}
        fit(fresh(tiny_folder, case), tmp_path / str(on), runtime=runtime)
    plain, saving = checkpointed(tmp_path / "False"), checkpointed(tmp_path / "True")
    for name, value in plain.items():
        if name.startswith("parameter."):
            torch.testing.assert_close(saving[name], value, atol=1e-4, rtol=1e-4)


def test_the_loss_is_on_the_answer_only(tiny_folder: Path, tmp_path: Path) -> None:
    """The logged loss of the first step is the mean over answer tokens of the batch, computed here
    from full logits."""
    model = fresh(tiny_folder, MethodCase("lora", ()))
    data = examples(4)
    total, tokens = 0.0, 0
    for example in data:
        ids = torch.tensor([[*example.prompt, *example.answer]])
        with torch.no_grad():
            logprobs = model(ids).logits[0].log_softmax(-1)
        for i, token in enumerate(example.answer):
            total -= float(logprobs[len(example.prompt) + i - 1, token])
            tokens += 1
    config = TrainConfig(steps=1, batch_size=4)
    train(model, data, config, folder=tmp_path, evaluate=lambda: (0.0, 0.0))
    assert read_log(tmp_path)[0]["loss"] == pytest.approx(total / tokens, abs=1e-5)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_it_learns(tiny_folder: Path, tmp_path: Path, precision: str) -> None:
    model = fresh(tiny_folder, MethodCase("full", ()))
    config = TrainConfig(steps=40, batch_size=8, learning_rate=0.01, mixed_precision=precision)
    train(model, examples(), config, folder=tmp_path, evaluate=lambda: (0.0, 0.0))
    losses = [entry["loss"] for entry in read_log(tmp_path)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_ctrl_c_loses_nothing(
    tiny_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SIGINT in the middle of a step: the step is finished and saved, and the training goes on
    from there to the same weights."""
    case = MethodCase("prefix_tuning", ())
    fit(fresh(tiny_folder, case), tmp_path / "whole")
    model = fresh(tiny_folder, case)
    # a shell starts what it puts in the background with SIGINT ignored; here it must arrive
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    forward = model.forward
    calls = 0

    def pressed(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*arguments, **options)

    model.forward = pressed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(model, tmp_path / "parts")
    assert [p.name for p in (tmp_path / "parts" / "checkpoints").iterdir()] == ["00000006"]
    fit(fresh(tiny_folder, case), tmp_path / "parts")
    whole, parts = checkpointed(tmp_path / "whole"), checkpointed(tmp_path / "parts")
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_mixed_precision_ends_with_the_training(tiny_folder: Path, tmp_path: Path) -> None:
    """The model in hand computes what the saved adapter computes when it is loaded again."""
    case = MethodCase("prefix_tuning", ())
    model = fresh(tiny_folder, case)
    fit(model, tmp_path, mixed_precision="bf16")
    again = AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))
    load_adapter(again, tmp_path / "adapter")
    ids = torch.tensor([[1, 30, 40, 50]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)


def test_a_loss_that_is_not_finite_stops(tiny_folder: Path, tmp_path: Path) -> None:
    model = fresh(tiny_folder, MethodCase("prefix_tuning", ()))

    def poison() -> tuple[float, float]:
        with torch.no_grad():
            next(iter(model.adapter().trainable().values())).fill_(float("nan"))
        return (0.0, 0.0)

    config = TrainConfig(steps=9, batch_size=4, evaluate_every=3, learning_rate=0.02)
    runtime = RuntimeConfig(checkpoint_every=2)
    with pytest.raises(RunError, match="stopped at step 4: the loss is nan") as caught:
        train(model, examples(), config, folder=tmp_path, evaluate=poison, runtime=runtime)
    assert "checkpoint, of step 2" in str(caught.value)
    good = checkpointed(tmp_path)
    assert all(v.isfinite().all() for k, v in good.items() if k.startswith("parameter."))


def test_a_damaged_checkpoint_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    case = MethodCase("prefix_tuning", ())
    fit(fresh(tiny_folder, case), tmp_path)
    path = tmp_path / "checkpoints" / "00000012" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"00000012.*remove it"):
        fit(fresh(tiny_folder, case), tmp_path)


@pytest.mark.parametrize("changed", ["seed", "method", "examples", "train"])
def test_a_checkpoint_of_another_training_is_refused(
    tiny_folder: Path, tmp_path: Path, changed: str
) -> None:
    case = MethodCase("prefix_tuning", ())
    fit(fresh(tiny_folder, case), tmp_path)
    if changed == "method":
        model = AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))
        model.attach({"name": "prefix_tuning", "length": 1}, text="people")
    else:
        model = fresh(tiny_folder, case)
    steps = 13 if changed == "train" else 12
    config = TrainConfig(steps=steps, batch_size=4, evaluate_every=4, learning_rate=0.02)
    data = examples(19) if changed == "examples" else examples()
    seed = 4 if changed == "seed" else 3
    with pytest.raises(RunError, match="another training"):
        train(model, data, config, folder=tmp_path, evaluate=lambda: (0.0, 0.0), seed=seed)


def test_fp16_is_for_gpus(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        fit(fresh(tiny_folder, MethodCase("lora", ())), tmp_path, mixed_precision="fp16")


def singles(count: int) -> list[list[int]]:
    return [[i] for i in range(count)]


def test_every_example_once_an_epoch() -> None:
    lengths = [3 + i % 40 for i in range(1001)]
    first, second = (epoch(lengths, singles(1001), 8, seed=0, number=n) for n in (0, 1))
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch) == list(range(1001))
        assert sorted(map(len, batches)) == [1, *[8] * 125]
    assert first != second
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in first]
    assert sum(spread) / len(spread) < 4  # of 40: similar lengths stand together


def test_groups_stand_in_one_batch() -> None:
    source = random.Random(0)
    groups: list[list[int]] = []
    while (done := sum(map(len, groups))) < 2000:
        groups.append(list(range(done, done + source.choice([1, 3, 5, 5, 8]))))
    count = sum(map(len, groups))
    of = {i: number for number, group in enumerate(groups) for i in group}
    lengths = [100 + of[i] % 50 for i in range(count)]
    batches = epoch(lengths, groups, 16, seed=0, number=0)
    assert sorted(i for batch in batches for i in batch) == list(range(count))
    assert sorted(map(len, batches))[1:] == [16] * (count // 16)
    at = {i: number for number, batch in enumerate(batches) for i in batch}
    places = [len({at[i] for i in group}) for group in groups]
    assert sum(places) / len(places) < 1.05
    mixed = [len({of[i] for i in batch}) for batch in batches if len(batch) == 16]
    assert min(mixed) >= 2
    # which groups meet is drawn anew
    again = epoch(lengths, groups, 16, seed=0, number=1)

    def meetings(found: list[list[int]]) -> set[tuple[int, int]]:
        return {(of[i], of[j]) for batch in found for i in batch for j in batch if of[i] < of[j]}

    assert len(meetings(batches) & meetings(again)) < 0.1 * len(meetings(batches))


def test_large_groups_are_cut_at_random() -> None:
    batches = epoch([10] * 400, [list(range(400))], 16, seed=0, number=0)
    assert sorted(map(len, batches)) == [16] * 25
    neighbours = sum(i + 1 in batch for batch in batches for i in batch)
    assert neighbours < 60  # 15 by chance, 375 if cut in order


def test_order_from_a_step_is_the_order_from_the_start() -> None:
    lengths = list(range(30))
    groups = [[0, 1, 2], *([i] for i in range(3, 20)), list(range(20, 30))]
    whole = batches_from(lengths, groups, 4, seed=5, step=0)
    for _ in range(11):
        next(whole)
    later = batches_from(lengths, groups, 4, seed=5, step=11)
    assert [next(whole) for _ in range(20)] == [next(later) for _ in range(20)]


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_schedule(kind: str) -> None:
    rates = [factor(kind, step, 100, 0.1) for step in range(100)]
    assert 0 < rates[0] < rates[5] < rates[9] < 1
    assert rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == 1.0 if kind == "constant" else 0 < rates[-1] < 0.05


def test_number_of_steps() -> None:
    assert num_steps(TrainConfig(epochs=2, batch_size=8), 701) == 2 * 88
    assert num_steps(TrainConfig(steps=7), 701) == 7
    assert num_steps(TrainConfig(), 701) == 600


def test_log_lines_are_json(tiny_folder: Path, tmp_path: Path) -> None:
    fit(fresh(tiny_folder, MethodCase("soft_prompt", ())), tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert {"step", "loss", "learning_rate", "gradient_norm", "tokens", "seconds"} <= entries[
        0
    ].keys()
    assert [e["step"] for e in entries if "dev_score" in e] == [4, 8, 12]
