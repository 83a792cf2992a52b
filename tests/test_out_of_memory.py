"""Where memory does not suffice, less is computed at once, and the results are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyprefix.config import ModelConfig, OutOfMemory, RunConfig, RuntimeConfig, TrainConfig
from polyprefix.evaluation import Decoding, generate, score_answers
from polyprefix.methods import AdaptedModel
from polyprefix.models import Backbone, load_backbone
from polyprefix.models.budget import Budget, is_out_of_memory
from polyprefix.models.encoding import Encoded
from polyprefix.results import Silent
from polyprefix.study import run
from polyprefix.training import Job, Trained, TrainingExample, train, train_together

ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "python": MemoryError,
}


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.units = 0

    def advance(self, units: int = 1, note: str = "") -> None:
        self.units += units

    def say(self, text: str) -> None:
        self.lines.append(text)


def limit(
    monkeypatch: pytest.MonkeyPatch, tokens: int, error: Callable[[], BaseException]
) -> list[int]:
    """From now on a forward pass of more tokens runs out of memory; the sizes of all of them."""
    seen: list[int] = []
    plain = Backbone.hidden_states

    def hidden_states(self: Backbone, **inputs: Any) -> Any:
        if "inputs_embeds" not in inputs:  # what a prefix starts from
            return plain(self, **inputs)
        size = inputs["inputs_embeds"].shape[0] * inputs["inputs_embeds"].shape[1]
        seen.append(size)
        if size > tokens:
            raise error()
        return plain(self, **inputs)

    monkeypatch.setattr(Backbone, "hidden_states", hidden_states)
    return seen


def examples(count: int = 24, length: int = 8) -> list[TrainingExample]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        ids = torch.randint(3, 200, (length + number % 7,), generator=generator).tolist()
        made.append(TrainingExample([1, *ids], [10 + number % 3, 20][: 1 + number % 2]))
    return made


METHODS: dict[str, dict[str, Any]] = {
    "prefix": {"name": "prefix_tuning", "length": 3, "layers": "all"},
    "lora": {"name": "lora", "layers": "all"},
    # what it draws must not depend on what was drawn in vain
    "dropout": {"name": "lora", "dropout": 0.4, "layers": "all"},
}


def adapted(tiny_folder: Path, *methods: str) -> AdaptedModel:
    model = AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))
    for number, name in enumerate(methods):
        model.attach(METHODS[name], f"a{number}", text="people talk about robots")
    return model


def fit(
    model: AdaptedModel, folder: Path, tokens: int, heard: Heard | None = None, **runtime: Any
) -> list[Any]:
    """Train all adapters of a model; the outcomes."""
    config = TrainConfig(steps=4, batch_size=8, evaluate_every=2, learning_rate=0.02)
    jobs = [
        Job(name, examples(), config, folder / name, lambda: (0.0, 0.0), seed=number)
        for number, name in enumerate(model.adapters)
    ]
    return train_together(
        model,
        jobs,
        runtime=RuntimeConfig(micro_batch_tokens=tokens, **runtime),
        progress=heard,
    )


def weights(model: AdaptedModel, name: str = "a0") -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.adapter(name).state().items()}


# Training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", ERRORS)
def test_a_smaller_micro_batch_gives_the_weights_that_it_gives_from_the_start(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, method: str
) -> None:
    heard = Heard()
    model = adapted(tiny_folder, method)
    with monkeypatch.context() as patched:
        seen = limit(patched, 20, ERRORS[error])
        [done] = fit(model, tmp_path / "less", 10_000, heard)
    assert isinstance(done, Trained)
    assert done.steps == 4
    assert seen[0] > 60  # all of a step, in vain, at least twice
    assert 8 < done.micro_batch_tokens <= 20
    said = [line for line in heard.lines if "out of memory" in line]
    assert f"at {seen[0]:,} tokens" in said[0]
    assert f"going on with {done.micro_batch_tokens:,} (runtime.micro_batch_tokens)" in said[-1]
    assert sum(size > 20 for size in seen) == len(said) >= 2
    reference = adapted(tiny_folder, method)
    [plain] = fit(reference, tmp_path / "plain", done.micro_batch_tokens)
    assert plain.micro_batch_tokens == done.micro_batch_tokens
    start = weights(adapted(tiny_folder, method))
    for name, value in weights(reference).items():
        assert torch.equal(weights(model)[name], value), name
        assert not torch.equal(start[name], value), name


def test_what_a_failed_backward_pass_has_added_up_is_dropped(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """It fails between the layers: the upper one's gradients are there by then."""
    model = adapted(tiny_folder, "lora")
    upper = model.adapter("a0").trainable()["model.layers.1.self_attn.v_proj.lora_B.weight"]
    added: list[bool] = []

    def refuse(gradient: torch.Tensor) -> None:
        if gradient.shape[0] * gradient.shape[1] > 20:
            added.append(upper.grad is not None)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def watch(module: Any, inputs: Any, output: Any) -> None:
        states = output if isinstance(output, torch.Tensor) else output[0]
        if states.requires_grad:
            states.register_hook(refuse)

    hook = model.backbone.layers[0].register_forward_hook(watch)
    [done] = fit(model, tmp_path / "less", 64)
    hook.remove()
    assert all(added)
    assert added
    reference = adapted(tiny_folder, "lora")
    fit(reference, tmp_path / "plain", done.micro_batch_tokens)
    for name, value in weights(reference).items():
        assert torch.equal(weights(model)[name], value), name


def test_trainings_of_one_loop_go_on_with_the_same_smaller_size(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(tiny_folder, "prefix", "prefix")
    with monkeypatch.context() as patched:
        limit(patched, 40, ERRORS["cuda"])
        outcomes = fit(model, tmp_path / "less", 10_000)
    [tokens] = {outcome.micro_batch_tokens for outcome in outcomes}
    assert tokens <= 40
    reference = adapted(tiny_folder, "prefix", "prefix")
    fit(reference, tmp_path / "plain", tokens)
    for name in ("a0", "a1"):
        for key, value in weights(reference, name).items():
            assert torch.equal(weights(model, name)[key], value), (name, key)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_text_that_does_not_fit_by_itself(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    model = adapted(tiny_folder, "prefix")
    limit(monkeypatch, 12, ERRORS["cuda"])
    [failed] = fit(model, tmp_path, 10_000, gradient_checkpointing=checkpointing)
    assert isinstance(failed, OutOfMemory)
    assert "one text of 1" in str(failed)
    assert "does not fit by itself" in str(failed)
    assert "task.max_length" in str(failed)
    assert "model.dtype=bfloat16" in str(failed)
    assert ("runtime.gradient_checkpointing=true" in str(failed)) is not checkpointing
    assert "runtime.together" not in str(failed)
    config = TrainConfig(steps=4, batch_size=8)
    with pytest.raises(OutOfMemory, match="by itself"):
        train(model, examples(), config, folder=tmp_path / "b", evaluate=lambda: (0.0, 0.0))


def test_a_training_whose_text_does_not_fit_leaves_the_others(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(tiny_folder, "prefix", "prefix")
    config = TrainConfig(steps=3, batch_size=4, evaluate_every=3, learning_rate=0.02)
    jobs = [
        Job("a0", examples(length=60), config, tmp_path / "a0", lambda: (0.0, 0.0)),
        Job("a1", examples(), config, tmp_path / "a1", lambda: (0.0, 0.0)),
    ]
    heard = Heard()
    with monkeypatch.context() as patched:
        limit(patched, 50, ERRORS["cuda"])
        failed, done = train_together(model, jobs, progress=heard)
    assert isinstance(failed, OutOfMemory)
    assert "runtime.together" in str(failed)
    assert any(str(tmp_path / "a0") in line and "by itself" in line for line in heard.lines)
    assert done.steps == 3
    reference = adapted(tiny_folder, "prefix", "prefix")
    [_] = train_together(
        reference,
        [Job("a1", examples(), config, tmp_path / "alone", lambda: (0.0, 0.0))],
        runtime=RuntimeConfig(micro_batch_tokens=done.micro_batch_tokens),
    )
    for key, value in weights(reference, "a1").items():
        torch.testing.assert_close(weights(model, "a1")[key], value, atol=1e-5, rtol=1e-5)


def test_the_optimizer_may_be_what_does_not_fit(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any, closure: Any = None) -> None:
        raise ERRORS["cpu"]()

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    [failed] = fit(adapted(tiny_folder, "prefix"), tmp_path, 100)
    assert isinstance(failed, OutOfMemory)
    assert "optimizer's step" in str(failed)


def test_other_errors_are_no_lack_of_memory(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("CUDA out of memory."))
    limit(monkeypatch, 5, lambda: RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        fit(adapted(tiny_folder, "prefix"), tmp_path, 100)


# Evaluation --------------------------------------------------------------------------------------


def asked() -> list[Encoded]:
    """Prompts with answers of one and of several tokens; some share a beginning."""
    stem = list(range(30, 60))
    return [
        Encoded([*(stem if n % 2 else []), *e.prompt], ([4], [5, 6 + n]))
        for n, e in enumerate(examples())
    ]


@pytest.mark.parametrize("error", ERRORS)
def test_scores_are_the_same(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    model, heard = adapted(tiny_folder, "prefix"), Heard()
    want = score_answers(model, asked(), batch_tokens=10_000)
    seen = limit(monkeypatch, 100, ERRORS[error])
    budget = Budget(10_000, say=heard.say)
    got = score_answers(model, asked(), batch_tokens=budget, advance=heard.advance)
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), atol=1e-5, rtol=1e-5)
    assert heard.units == len(asked())
    assert budget.tokens <= 100 < seen[0]
    assert "(runtime.evaluation_batch_tokens)" in heard.lines[-1]
    halvings = len(heard.lines)
    score_answers(model, asked(), batch_tokens=budget)  # it remembers
    assert len(heard.lines) == halvings
    limit(monkeypatch, 20, ERRORS[error])
    with pytest.raises(OutOfMemory, match=r"by itself.*task\.max_length"):
        score_answers(model, asked(), batch_tokens=budget)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """Also where it is a later step that does not fit: what was written is forgotten."""
    model, heard = adapted(tiny_folder, "prefix"), Heard()
    prompts = [item.prompt for item in asked()]
    decoding = Decoding(max_new_tokens=6, stop=(), temperature=temperature, seed=5)
    want = generate(model, prompts, decoding, batch_tokens=10_000)
    plain, calls = Backbone.hidden_states, []

    def hidden_states(self: Backbone, **inputs: Any) -> Any:
        rows, columns = inputs["inputs_embeds"].shape[:2]
        calls.append((rows, columns))
        if rows > 5 and columns == 1 and calls.count((rows, columns)) == 3:
            raise ERRORS["cuda"]()
        return plain(self, **inputs)

    monkeypatch.setattr(Backbone, "hidden_states", hidden_states)
    budget = Budget(10_000, say=heard.say)
    got = generate(model, prompts, decoding, batch_tokens=budget, advance=heard.advance)
    assert got == want
    assert len({answer.text for answer in got}) > 3
    assert heard.units == len(prompts)
    assert budget.tokens < 10_000
    assert heard.lines
    limit(monkeypatch, 10, ERRORS["cuda"])
    with pytest.raises(OutOfMemory, match=r"by itself.*decoding\.max_new_tokens"):
        generate(model, prompts, decoding, batch_tokens=budget)


def test_a_run_records_the_sizes_it_ended_with(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = run(make(method="llama_adapter"))
    heard = Heard()
    limit(monkeypatch, 60, ERRORS["cpu"])
    got = run(make(method="llama_adapter"), again=True, progress=heard)
    assert want["training"]["micro_batch_tokens"] == 1024
    assert want["evaluation"]["batch_tokens"] == RuntimeConfig().evaluation_batch_tokens
    assert got["training"]["micro_batch_tokens"] <= 60
    assert 30 <= got["evaluation"]["batch_tokens"] < 120
    assert got["config"] == want["config"]
    for code, scores in want["scores"].items():
        assert got["scores"][code] == pytest.approx(scores, abs=1e-3)
    assert any("runtime.micro_batch_tokens" in line for line in heard.lines)
    assert any("runtime.evaluation_batch_tokens" in line for line in heard.lines)


def test_kept_hidden_states_are_computed_in_smaller_batches(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted(folder: Path) -> dict[str, torch.Tensor]:
        model = AdaptedModel(load_backbone(ModelConfig(name=str(tiny_folder))))
        model.attach({**METHODS["prefix"], "layers": "last:1"}, "a0", text="people talk")
        fit(model, folder, 40, keep_hidden_states="memory")
        return weights(model)

    want = fitted(tmp_path / "plain")
    seen = limit(monkeypatch, 60, ERRORS["cpu"])
    got = fitted(tmp_path / "less")
    assert max(seen) > 60
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-5)


# A real limit ------------------------------------------------------------------------------------

PROGRAM = """
import json, resource, sys, tempfile
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from polyprefix.config import RuntimeConfig, TrainConfig
from polyprefix.methods import AdaptedModel
from polyprefix.models import Backbone
from polyprefix.results import Silent
from polyprefix.training import TrainingExample, train

config = AutoConfig.for_model("llama", vocab_size=500, hidden_size=256, intermediate_size=1024,
    num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4)
torch.manual_seed(0)
model = AdaptedModel(Backbone(AutoModelForCausalLM.from_config(config)))
model.attach({"name": "prefix_tuning", "initialization": "random", "layers": "all"})
generator = torch.Generator().manual_seed(0)
examples = [TrainingExample(torch.randint(3, 500, (100,), generator=generator).tolist(), [7])
            for _ in range(160)]
said = []
class Heard(Silent):
    def say(self, text):
        said.append(text)
def fit(tokens):
    with tempfile.TemporaryDirectory() as folder:
        return train(model, examples, TrainConfig(steps=2, batch_size=160, evaluate_every=2),
            folder=Path(folder), evaluate=lambda: (0.0, 0.0),
            runtime=RuntimeConfig(micro_batch_tokens=tokens), progress=Heard())
fit(500)  # what is loaded and made once is there
used = int(next(x for x in open("/proc/self/status") if x.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
done = fit(16_000)
print(json.dumps([done.steps, done.micro_batch_tokens, said]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a limit on address space")
def test_a_process_whose_memory_is_limited() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    steps, tokens, said = json.loads(done.stdout.splitlines()[-1])
    assert steps == 2
    assert tokens < 16_000
    assert any("out of memory" in line for line in said)
