"""Decoding, against a reference that computes everything anew for each token."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from polyprefix.evaluation.decoding import Decoding, Row, RunningBatch
from polyprefix.evaluation.generation import generate
from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import SHARED
from polyprefix.models.cache import TextCache
from tests.conformance.cases import (
    KINDS,
    METHODS,
    TEXT,
    MethodCase,
    StubTokenizer,
    adapted,
    backbone,
    scramble,
    supported,
)

NEW = 6


class Letters(StubTokenizer):
    """Every token is a word of its own, so that stop strings can be tried."""

    eos_token_id = 2

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(f" w{token}" for token in ids)


def model_of(kind: str, case: MethodCase) -> AdaptedModel:
    model = adapted(kind, case)
    model.backbone.tokenizer = Letters()
    return model


def prompts_of(count: int, shared: int = 0, seed: int = 0) -> list[list[int]]:
    source = random.Random(seed)
    stem = [source.randrange(3, 90) for _ in range(shared)]
    rests = [[source.randrange(3, 90) for _ in range(2 + 3 * (i % 4))] for i in range(count)]
    return [[*stem, *rest] for rest in rests]


def reference(model: AdaptedModel, prompt: list[int], new: int = NEW) -> list[int]:
    """One prompt, no cache, no batch."""
    ids, answer = model.wrap(prompt), []
    for _ in range(new):
        with torch.no_grad():
            token = int(model(torch.tensor([[*ids, *answer]])).logits[0, -1].argmax())
        if token == Letters.eos_token_id:
            break
        answer.append(token)
    return answer


def texts(model: AdaptedModel, prompts: list[list[int]], **options: Any) -> list[str]:
    budget = options.pop("batch_tokens", 10_000)
    decoding = Decoding(**{"max_new_tokens": NEW, "stop": (), **options})
    return [answer.text for answer in generate(model, prompts, decoding, batch_tokens=budget)]


def pairs() -> list[Any]:
    """Every method on a Llama, every family with the methods that go through its attention."""
    chosen = [("llama", case) for case in METHODS]
    names = ("prefix_tuning", "llama_adapter", "soft_prompt")
    plain = [case for case in METHODS if case.method in names and not case.options]
    zero = [case for case in METHODS if ("initialization", "zero") in case.options]
    chosen += [(kind, case) for kind in KINDS for case in (*plain, *zero) if kind != "llama"]
    return [
        pytest.param(kind, case, id=f"{kind}-{case}")
        for kind, case in chosen
        if supported(kind, case)
    ]


@pytest.mark.parametrize(("kind", "case"), pairs())
def test_a_batch_gets_the_answers_that_each_prompt_gets_alone(kind: str, case: MethodCase) -> None:
    model = model_of(kind, case)
    prompts = [*prompts_of(5), *prompts_of(4, shared=SHARED + 4, seed=1)]
    expected = [Letters().decode(reference(model, prompt)) for prompt in prompts]
    assert texts(model, prompts) == expected
    assert texts(model, prompts, batch_tokens=1) == expected


MIXED = ("prefix_tuning", "llama_adapter", "soft_prompt", "lora", "bottleneck")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_join_and_leave_between_steps(kind: str) -> None:
    """Different adapters, lengths and decodings, prompts longer than a window, joining short and
    long ones; against each prompt alone, under its adapter alone."""
    model = AdaptedModel(backbone(kind))
    model.backbone.tokenizer = Letters()
    for number, method in enumerate(MIXED):
        adapter = model.attach(MethodCase(method, ()).config(), method, seed=number, text=TEXT)
        scramble(adapter, number)
    model.use(None)
    names = [*MIXED, None]
    source = random.Random(1)
    asked = []
    for number in range(12):
        prompt = [source.randrange(3, 90) for _ in range((3, 25, 8, 14)[number % 4])]
        decoding = Decoding(
            max_new_tokens=(9, 2, 5)[number % 3],
            stop=(),
            temperature=1.5 * (number % 2),
            top_p=0.9 if number % 2 else 1.0,
            seed=number,
        )
        asked.append((prompt, decoding, names[number % len(names)]))
    rows = [Row.of(model, prompt, decoding, name) for prompt, decoding, name in asked]
    running = RunningBatch(model)
    sizes = []
    with torch.inference_mode():
        for first, steps in ((0, 1), (2, 0), (5, 3), (6, 9), (9, 1)):
            last = {0: 2, 2: 5, 5: 6, 6: 9, 9: 12}[first]
            running.join(rows[first:last])
            sizes.append(len(running.rows))
            for _ in range(steps):
                running.step()
        while running.going:
            running.step()
    assert sizes[1] > 3, "rows joined a batch that was running"
    assert sizes[4] < 12, "finished rows left"
    for row, (prompt, decoding, name) in zip(rows, asked, strict=True):
        model.use(name)
        (expected,) = generate(model, [prompt], decoding, batch_tokens=1)
        assert (row.text, len(row.new), row.done) == (
            expected.text,
            expected.tokens,
            expected.finished,
        )
    assert len({row.text for row in rows}) > 6


def test_columns_that_nobody_needs_are_left_out() -> None:
    """A batch that never empties must not grow: each joins before the last one leaves."""
    model = model_of("llama", MethodCase("prefix_tuning", ()))
    running = RunningBatch(model)
    with torch.inference_mode():
        for number, prompt in enumerate([[5] * 40, *prompts_of(12)]):
            decoding = Decoding(max_new_tokens=4, stop=())
            running.join([Row.of(model, prompt, decoding, "default")])
            running.step()
            if number > 3:
                assert running._mask.shape[1] < 20
                assert running._cache.layers[0].capacity < 20


def test_greedy_answers_are_those_of_transformers() -> None:
    model = model_of("llama", MethodCase("none", ()))
    prompt = prompts_of(1)[0]
    with torch.no_grad():
        ids = model.backbone.model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=2,
            pad_token_id=0,
        )
    theirs = [token for token in ids[0, len(prompt) :].tolist() if token != 2]
    assert texts(model, [prompt]) == [Letters().decode(theirs)]


def test_a_shared_beginning_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", MethodCase("prefix_tuning", ()))
    seen: list[int] = []
    forward = AdaptedModel.forward

    def counting(self: AdaptedModel, ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(ids.numel())
        return forward(self, ids, *args, **kwargs)

    monkeypatch.setattr(AdaptedModel, "forward", counting)
    prompts = [[*range(3, 83), token] for token in (5, 6, 7, 8)]
    texts(model, prompts, max_new_tokens=1)
    assert seen == [80, 4]


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", MethodCase("none", ()))
    prompts = prompts_of(8)
    answers = [reference(model, prompt, 4) for prompt in prompts]
    # Stop all but one at their first token.
    alone = 3
    stops = {f" w{answer[0]}" for i, answer in enumerate(answers) if i != alone}
    if any(f" w{token}" in stops for token in answers[alone]):
        pytest.fail("choose other prompts: the last row must not stop")
    sizes: list[int] = []
    forward = AdaptedModel.forward

    def counting(self: AdaptedModel, ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(ids.shape[0])
        return forward(self, ids, *args, **kwargs)

    monkeypatch.setattr(AdaptedModel, "forward", counting)
    found = texts(model, prompts, stop=tuple(stops), max_new_tokens=4)
    assert sizes == [8, 1, 1, 1]
    assert found[alone] == Letters().decode(answers[alone])
    assert [text for i, text in enumerate(found) if i != alone] == [""] * 7


def test_stop_strings_cut_the_answer() -> None:
    model = model_of("llama", MethodCase("none", ()))
    prompt = prompts_of(1)[0]
    answer = reference(model, prompt)
    stop = f" w{answer[3]}"
    cut = Letters().decode(answer).partition(stop)[0]
    decoding = Decoding(max_new_tokens=NEW, stop=(stop,))
    (got,) = generate(model, [prompt], decoding, batch_tokens=100)
    assert got.text == cut
    assert got.finished
    (full,) = generate(model, [prompt], Decoding(max_new_tokens=2, stop=()), batch_tokens=100)
    assert (full.tokens, full.finished) == (2, False)


def test_sampling_does_not_depend_on_batches_or_order() -> None:
    model = model_of("llama", MethodCase("lora", ()))
    prompts = prompts_of(7)
    options: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "seed": 3}
    expected = texts(model, prompts, **options)
    assert texts(model, prompts, batch_tokens=1, **options) == expected
    assert texts(model, prompts[::-1], **options)[::-1] == expected
    assert texts(model, prompts, **(options | {"seed": 4})) != expected
    assert len(set(expected)) > 1


def test_a_narrow_top_p_is_greedy() -> None:
    model = model_of("llama", MethodCase("none", ()))
    prompts = prompts_of(4)
    assert texts(model, prompts, temperature=1.0, top_p=1e-6) == texts(model, prompts)


def test_sampling_follows_the_distribution() -> None:
    """One step, many seeds: shares of tokens against the softmax, top_p cut and renormalised."""
    model = model_of("llama", MethodCase("none", ()))
    prompt = prompts_of(1)[0]
    with torch.no_grad():
        shares = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    ordered, tokens = shares.sort(descending=True)
    kept = int((ordered.cumsum(-1) - ordered < 0.5).sum())
    allowed = {f" w{int(token)}" for token in tokens[:kept]}
    drawn = [
        texts(model, [prompt], temperature=1.0, top_p=0.5, seed=seed, max_new_tokens=1)[0]
        for seed in range(200)
    ]
    assert set(drawn) <= allowed | {""}
    most = f" w{int(tokens[0])}"
    expected = float(ordered[0] / ordered[:kept].sum())
    assert (
        abs(drawn.count(most) / 200 - expected)
        < 4 * (expected * (1 - expected) / 200) ** 0.5 + 1e-9
    )


def test_the_cache_is_written_in_place_and_says_when_it_is_full() -> None:
    cache = TextCache(1, 4)
    states = torch.ones(2, 1, 3, 5)
    keys, _ = cache.update(states, states, 0)
    again, _ = cache.update(states[:, :, :1] * 2, states[:, :, :1], 0)
    assert again.data_ptr() == keys.data_ptr()
    assert again[0, 0, :, 0].tolist() == [1, 1, 1, 2]
    with pytest.raises(ValueError, match="room for 4 tokens, 5"):
        cache.update(states[:, :, :1], states[:, :, :1], 0)
    cache.choose(torch.tensor([1]))
    assert cache.get_seq_length() == 4
    assert cache.layers[0].keys.shape[0] == 1


def test_progress_and_training_mode() -> None:
    model = model_of("llama", MethodCase("none", ()))
    model.train()
    done: list[int] = []
    prompts = prompts_of(5)
    generate(model, prompts, Decoding(2), batch_tokens=30, advance=done.append)
    assert sum(done) == 5
    assert model.training
    assert generate(model, [], Decoding(2), batch_tokens=30) == []
