"""The server, with OpenAI's own client and with bytes that no client would send."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from polyprefix.config import ConfigError, RunConfig, RunError
from polyprefix.evaluation.decoding import Decoding
from polyprefix.evaluation.generation import generate
from polyprefix.models.encoding import Encoder
from polyprefix.results import RunFolder
from polyprefix.serving.app import make_app
from polyprefix.serving.deltas import Deltas
from polyprefix.serving.engine import Engine
from polyprefix.serving.requests import Limits
from polyprefix.serving.runs import load_runs
from polyprefix.serving.server import Server, listen
from polyprefix.study import load_run, run
from polyprefix.study.predict import answers
from tests.conftest import Cli

METHODS = ("prefix_tuning", "soft_prompt", "lora", "llama_adapter")
PROMPTS = [
    "People talk about",
    "Man spricht heute von Büchern und",
    "Watu wanazungumza kuhusu",
    "rivers",
    "People talk about planets and robots today, and of hotels and flights and",
]
CHAT = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '\n' }}{% endfor %}"
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('starts wrongly') }}{% endif %}"
    "{{ '<assistant>' }}"
)


@pytest.fixture(scope="module")
def module_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def train(tiny_folder: Path, sib_folder: Path, module_tmp: Path) -> Callable[..., Path]:
    """Trains a run: a high rate, so that adapters differ in what they write."""

    def trained(method: str, model: Path = tiny_folder) -> Path:
        config = RunConfig.read(
            {
                "model": {"name": str(model)},
                "method": {"name": method},
                "task": {"name": "sib200", "data": str(sib_folder), "languages": "en"},
                "train": {"steps": 4, "batch_size": 8, "learning_rate": 0.2},
                "output": str(module_tmp / "runs"),
            }
        )
        return module_tmp / "runs" / run(config)["id"]

    return trained


@pytest.fixture(scope="module")
def runs(train: Callable[..., Path]) -> dict[str, Path]:
    return {method: train(method) for method in METHODS}


@dataclass
class Running:
    """A server in a thread of this process."""

    port: int
    names: dict[str, str]
    server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, **options: Any) -> Any:
        return openai.OpenAI(
            base_url=self.url, **{"api_key": "none", "max_retries": 0, "timeout": 120, **options}
        )

    def raw(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            given = {"Content-Type": "application/json"} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            connection.request(method, path, body, given)
            response = connection.getresponse()
            text = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return response.status, json.loads(text) if is_json else text.decode(), found

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        status, answer, _ = self.raw("POST", path, json.dumps(body).encode())
        return status, answer

    def metrics(self) -> dict[str, float]:
        text = self.raw("GET", "/metrics")[1]
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}


@contextlib.contextmanager
def serving(folders: list[Path], key: str | None = None, **limits: Any) -> Iterator[Running]:
    model, served = load_runs(folders)
    app = make_app(model, served, Limits(**limits), key=key)
    listening = listen("127.0.0.1", 0)
    server = Server(app, 30, lambda _: None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    names = {
        entry.record["method"]["name"] if entry.record else "none": name
        for name, entry in served.items()
    }
    try:
        yield Running(listening.getsockname()[1], names, server)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(runs: dict[str, Path]) -> Iterator[Running]:
    with serving(list(runs.values()), max_rows=8, max_waiting=64, max_body=20_000) as running:
        yield running


@pytest.fixture(scope="module")
def alone(runs: dict[str, Path]) -> Callable[..., str]:
    """What a run's adapter writes by itself: another model object, one prompt, no server."""
    models = {method: load_run(RunFolder(folder))[0] for method, folder in runs.items()}

    def written(method: str, prompt: str, **decoding: Any) -> str:
        model = models["lora" if method == "none" else method]
        model.use(None if method == "none" else "default")
        encoder = Encoder(model.backbone.tokenizer, 10_000)
        ids = encoder.encode([prompt], [()])[0].prompt
        options = {"max_new_tokens": 12, "stop": (), **decoding}
        return generate(model, [ids], Decoding(**options), batch_tokens=1)[0].text

    return written


# What is asked and answered ----------------------------------------------------------------------


def test_models_are_the_runs_and_the_backbone(
    server: Running, runs: dict[str, Path], tiny_folder: Path
) -> None:
    listed = server.client().models.list().data
    assert [model.id for model in listed] == [
        *(folder.name for folder in runs.values()),
        tiny_folder.name,
    ]
    assert listed[0].method == "prefix_tuning"
    assert server.client().models.retrieve(runs["lora"].name).task == "sib200"
    assert server.raw("GET", "/health")[:2] == (200, {"status": "ok"})


@pytest.mark.parametrize("method", [*METHODS, "none"])
def test_a_completion_is_what_the_adapter_writes(
    server: Running, alone: Callable[..., str], method: str
) -> None:
    found = server.client().completions.create(
        model=server.names[method], prompt=PROMPTS, max_tokens=12, temperature=0
    )
    expected = [alone(method, prompt) for prompt in PROMPTS]
    assert [choice.text for choice in found.choices] == expected
    assert [choice.index for choice in found.choices] == list(range(len(PROMPTS)))
    assert len(set(expected)) > 1
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.model == server.names[method]


def test_adapters_write_different_texts(alone: Callable[..., str]) -> None:
    """Or the tests that compare them could not fail."""
    assert len({alone(method, PROMPTS[0]) for method in (*METHODS, "none")}) == 5


def test_mixed_requests_at_once_get_what_they_get_alone(
    server: Running, alone: Callable[..., str]
) -> None:
    before = server.metrics()
    jobs = [
        (method, prompt, {"temperature": float(i % 2), "seed": i, "max_tokens": 6 + 5 * (i % 3)})
        for i, (method, prompt) in enumerate(
            (method, prompt) for prompt in PROMPTS[:4] for method in (*METHODS, "none")
        )
    ]

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:

            async def one(method: str, prompt: str, options: dict[str, Any]) -> str:
                found = await client.completions.create(
                    model=server.names[method], prompt=prompt, **options
                )
                text: str = found.choices[0].text
                return text

            return await asyncio.gather(*(one(*job) for job in jobs))

    found = asyncio.run(ask())
    expected = [
        alone(
            method,
            prompt,
            temperature=options["temperature"],
            seed=options["seed"],
            max_new_tokens=options["max_tokens"],
        )
        for method, prompt, options in jobs
    ]
    assert found == expected
    after = server.metrics()
    steps = after["polyprefix_batch_rows_count"] - before["polyprefix_batch_rows_count"]
    rows = after["polyprefix_batch_rows_sum"] - before["polyprefix_batch_rows_sum"]
    assert rows / steps > 2, "requests were answered one after another"


def test_sampling_is_by_seed(server: Running) -> None:
    def texts(**options: Any) -> str:
        found = server.client().completions.create(
            model=server.names["lora"], prompt=PROMPTS[0], max_tokens=12, **options
        )
        text: str = found.choices[0].text
        return text

    assert texts(seed=5) == texts(seed=5)
    assert len({texts(seed=seed) for seed in range(4)}) > 1
    assert len({texts() for _ in range(4)}) > 1, "without a seed one is drawn"
    assert texts(seed=5, top_p=1e-6) == texts(temperature=0)


def test_token_ids_are_a_prompt(server: Running, tiny_folder: Path) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tiny_folder)(PROMPTS[1])["input_ids"]
    client, name = server.client(), server.names["prefix_tuning"]
    options: dict[str, Any] = {"model": name, "max_tokens": 8, "temperature": 0}
    of_text = client.completions.create(prompt=PROMPTS[1], **options).choices[0].text
    assert client.completions.create(prompt=ids, **options).choices[0].text == of_text
    both = client.completions.create(prompt=[ids, [1, 5]], **options).choices
    assert (len(both), both[0].text) == (2, of_text)


def test_stop_strings_end_an_answer(server: Running, alone: Callable[..., str]) -> None:
    text = alone("lora", PROMPTS[0], max_new_tokens=20)
    stop = text[5:8]
    name = server.names["lora"]
    options: dict[str, Any] = {"prompt": PROMPTS[0], "max_tokens": 20, "temperature": 0}
    for stops in (stop, [stop, "never there"]):
        found = server.client().completions.create(model=name, stop=stops, **options).choices[0]
        assert (found.text, found.finish_reason) == (text.partition(stop)[0], "stop")
    pieces = list(server.client().completions.create(model=name, stop=stop, stream=True, **options))
    assert "".join(p.choices[0].text for p in pieces) == text.partition(stop)[0]
    full = server.client().completions.create(model=name, **options).choices[0]
    assert (full.text, full.finish_reason) == (text, "length")


def test_a_stream_is_the_same_text_in_pieces(server: Running) -> None:
    client = server.client()
    options: dict[str, Any] = {
        "model": server.names["soft_prompt"],
        "prompt": PROMPTS[:2],
        "max_tokens": 30,
        "seed": 1,
        "temperature": 2.0,  # bytes of many scripts
        "echo": True,
    }
    whole = client.completions.create(**options)
    texts, reasons, told = ["", ""], [[], []], None
    pieces = 0
    for event in client.completions.create(
        stream=True, stream_options={"include_usage": True}, **options
    ):
        told = event.usage or told
        for choice in event.choices:
            pieces += 1
            texts[choice.index] += choice.text
            reasons[choice.index].append(choice.finish_reason)
    assert texts == [choice.text for choice in whole.choices]
    assert all(text.startswith(prompt) for text, prompt in zip(texts, PROMPTS, strict=False))
    assert [r[-1] for r in reasons] == [choice.finish_reason for choice in whole.choices]
    assert all(reason is None for r in reasons for reason in r[:-1])
    assert told == whole.usage
    assert pieces > 10


def test_logprobs_are_those_of_the_model(server: Running, runs: dict[str, Path]) -> None:
    model, _ = load_run(RunFolder(runs["lora"]))
    tokenizer = model.backbone.tokenizer
    options: dict[str, Any] = {
        "model": server.names["lora"],
        "prompt": PROMPTS[0],
        "max_tokens": 5,
        "temperature": 0,
        "logprobs": 3,
    }
    found = server.client().completions.create(**options).choices[0]
    ids = tokenizer(PROMPTS[0])["input_ids"]
    written = []
    for token, value, top in zip(
        found.logprobs.tokens,
        found.logprobs.token_logprobs,
        found.logprobs.top_logprobs,
        strict=True,
    ):
        with torch.no_grad():
            shares = model(torch.tensor([[*ids, *written]])).logits[0, -1].log_softmax(-1)
        best = int(shares.argmax())
        assert value == pytest.approx(float(shares[best]), abs=1e-4)
        assert next(iter(top)) == token
        assert sorted(top.values(), reverse=True) == pytest.approx(
            shares.topk(3).values.tolist(), abs=1e-4
        )
        written.append(best)
    assert len(found.logprobs.tokens) == 5
    streamed = list(server.client().completions.create(stream=True, **options))
    parts = [event.choices[0].logprobs for event in streamed]
    assert [t for part in parts for t in part.tokens] == found.logprobs.tokens
    assert [o for part in parts for o in part.text_offset] == found.logprobs.text_offset


def test_classify_answers_as_predict_does(server: Running, runs: dict[str, Path]) -> None:
    texts = ["People talk about goals and races.", "Watu wanazungumza kuhusu atoms."]
    for method in ("prefix_tuning", "lora"):
        status, found = server.post("/v1/classify", model=server.names[method], input=texts)
        assert status == 200
        expected = list(answers(runs[method], texts))
        for one, other in zip(found["data"], expected, strict=True):
            assert one["prediction"] == other["prediction"]
            assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-4)
    status, one = server.post("/v1/classify", model=server.names["lora"], input={"text": texts[0]})
    assert one["data"][0]["logprobs"] == pytest.approx(found["data"][0]["logprobs"], abs=1e-4)


def test_chat_needs_a_template_and_uses_it(
    server: Running, train: Callable[..., Path], tiny_folder: Path, module_tmp: Path
) -> None:
    message = [{"role": "user", "content": "rivers"}]
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        server.client().chat.completions.create(model=server.names["lora"], messages=message)
    folder = module_tmp / "chatty"
    shutil.copytree(tiny_folder, folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    with serving([train("soft_prompt", folder)]) as chatty:
        client, name = chatty.client(), chatty.names["soft_prompt"]
        options: dict[str, Any] = {"model": name, "temperature": 0}
        plain = client.completions.create(
            # the tokenizer's <s> is not in the template
            prompt=_ids(folder, "<user>rivers\n<assistant>"),
            max_tokens=8,
            **options,
        )
        for given in ({"max_tokens": 8}, {"max_completion_tokens": 8}):
            found = client.chat.completions.create(messages=message, **given, **options)
            assert found.choices[0].message.content == plain.choices[0].text
            assert found.usage == plain.usage
        pieces = list(
            client.chat.completions.create(
                messages=message,
                max_tokens=8,
                stream=True,
                logprobs=True,
                top_logprobs=2,
                **options,
            )
        )
        assert pieces[0].choices[0].delta.role == "assistant"
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert text == plain.choices[0].text
        logprobs = [p.choices[0].logprobs for p in pieces[1:]]
        content = [item for part in logprobs for item in part.content]
        assert len(content) == plain.usage.completion_tokens
        assert all(item.top_logprobs[0].logprob == item.logprob for item in content)
        with pytest.raises(openai.BadRequestError, match="starts wrongly"):
            client.chat.completions.create(
                messages=[{"role": "assistant", "content": "a"}], **options
            )


def _ids(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)[
        "input_ids"
    ]
    return ids


# What is refused ---------------------------------------------------------------------------------

BAD: list[tuple[str, bytes, int, str]] = [
    ("not JSON", b"{", 400, "not JSON"),
    ("nothing", b"", 400, "empty"),
    ("a list", b"[]", 400, "JSON object"),
    ("not UTF-8", b'{"model": "\xff"}', 400, "cannot be read as JSON"),
    ("a NUL byte", b'{"model": "M", "prompt": "a\0b"}', 400, "not JSON"),
    ("deep nesting", b"[" * 9000, 400, "JSON"),
    ("huge number", b'{"model": "M", "prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}", 400, ""),
    ("no prompt", b'{"model": "M"}', 400, "prompt: Field required"),
    ("empty prompts", b'{"model": "M", "prompt": []}', 400, "an empty list"),
    ("empty ids", b'{"model": "M", "prompt": [[]]}', 400, "item 0 is neither"),
    ("mixed prompts", b'{"model": "M", "prompt": [1, "a"]}', 400, "item 0 is neither"),
    ("number prompt", b'{"model": "M", "prompt": 5}', 400, "expected a text"),
    ("negative id", b'{"model": "M", "prompt": [-1]}', 400, "token ids go from 0"),
    ("soft id", b'{"model": "M", "prompt": [500000]}', 400, "token ids go from 0"),
    ("surrogate", b'{"model": "M", "prompt": "a\\ud800"}', 400, "unpaired surrogate"),
    ("surrogate stop", b'{"model": "M", "prompt": "a", "stop": "\\ud800"}', 400, "surrogate"),
    ("surrogate model", b'{"model": "\\ud800", "prompt": "a"}', 400, "model: "),
    ("surrogate field", b'{"model": "M", "prompt": "a", "\\ud800": 1}', 400, "unicode"),
    ("NaN", b'{"model": "M", "prompt": "a", "temperature": NaN}', 400, "temperature"),
    ("infinity", b'{"model": "M", "prompt": "a", "temperature": 1e999}', 400, "temperature"),
    ("cold", b'{"model": "M", "prompt": "a", "temperature": -1}', 400, "temperature"),
    ("text number", b'{"model": "M", "prompt": "a", "temperature": "1"}', 400, "temperature"),
    ("top_p 0", b'{"model": "M", "prompt": "a", "top_p": 0}', 400, "top_p"),
    ("no effect", b'{"model": "M", "prompt": "a", "top_p": 0.5, "temperature": 0}', 400, "no eff"),
    ("options", b'{"model": "M", "prompt": "a", "stream_options": {}}', 400, "no effect"),
    ("negative", b'{"model": "M", "prompt": "a", "max_tokens": -1}', 400, "max_tokens"),
    ("zero", b'{"model": "M", "prompt": "a", "max_tokens": 0}', 400, "max_tokens"),
    ("true", b'{"model": "M", "prompt": "a", "max_tokens": true}', 400, "max_tokens"),
    ("many", b'{"model": "M", "prompt": "a", "max_tokens": 1025}', 400, "1024 tokens"),
    ("two", b'{"model": "M", "prompt": "a", "n": 2}', 400, "n: Input should be 1"),
    ("typo", b'{"model": "M", "prompt": "a", "max_token": 2}', 400, "Did you mean 'max_tokens'"),
    ("penalty", b'{"model": "M", "prompt": "a", "presence_penalty": 0}', 400, "unknown field"),
    ("echo", b'{"model": "M", "prompt": "a", "echo": true, "logprobs": 1}', 400, "not supported"),
    ("empty stop", b'{"model": "M", "prompt": "a", "stop": ""}', 400, "none of them empty"),
    ("unknown", b'{"model": "gpt", "prompt": "a"}', 404, "unknown model 'gpt'"),
    ("too many", b'{"model": "M", "prompt": ' + json.dumps(["a"] * 65).encode() + b"}", 400, "65"),
]


@pytest.mark.parametrize(
    ("body", "status", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_completions(server: Running, body: bytes, status: int, message: str) -> None:
    name = server.names["lora"]
    found, answer, _ = server.raw(
        "POST", "/v1/completions", body.replace(b'"M"', b'"%s"' % name.encode())
    )
    assert found == status, answer
    error = answer["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}
    if status == 404:
        assert error["code"] == "model_not_found"
        assert name in error["message"]


def test_bad_chats_and_classifications(server: Running) -> None:
    name = server.names["lora"]
    for path, body, message in [
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "me", "content": "a"}]}, "messages.0.role"),
        ("chat/completions", {"messages": [{"role": "user", "content": "a", "nme": 1}]}, "nme"),
        ("chat/completions", {"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
        ("classify", {"input": {"txt": "a"}}, "text"),
        ("classify", {"input": {"text": "a", "more": "b"}}, "more"),
        ("classify", {"input": []}, "empty list"),
        ("classify", {"input": ["\udc00"]}, "surrogate"),
        ("classify", {"input": ["a"] * 257}, "at most 256"),
    ]:
        status, answer = server.post(f"/v1/{path}", model=name, **body)
        assert (status, message in answer["error"]["message"]) == (400, True), answer
    status, answer = server.post("/v1/classify", model=server.names["none"], input="a")
    assert (status, "no task" in answer["error"]["message"]) == (400, True)


def test_too_long_prompts_and_bodies(server: Running, tiny_folder: Path) -> None:
    from transformers import AutoConfig

    context = AutoConfig.from_pretrained(tiny_folder).max_position_embeddings
    room = min(context, Limits().max_length)
    status, answer = server.post(
        "/v1/completions", model=server.names["none"], prompt=[5] * room, max_tokens=1
    )
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert f"room for {room} tokens" in answer["error"]["message"]
    big = json.dumps({"model": "m", "prompt": "a" * 20_000}).encode()
    with pytest.raises(openai.APIStatusError) as refused:
        server.client().completions.create(model=server.names["none"], prompt="a" * 30_000)
    assert (refused.value.status_code, refused.value.code) == (413, "body_too_large")
    # without a Content-Length
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request(
            "POST",
            "/v1/completions",
            iter([big]),
            {"Content-Type": "application/json"},
            encode_chunked=True,
        )
        response = connection.getresponse()
        assert (response.status, json.load(response)["error"]["code"]) == (413, "body_too_large")


def test_nul_characters_are_text(server: Running) -> None:
    status, answer = server.post(
        "/v1/completions", model=server.names["lora"], prompt="a\0b", max_tokens=2, echo=True
    )
    assert status == 200
    assert answer["choices"][0]["text"].startswith("a\0b")


def test_other_paths_methods_and_kinds_of_content(server: Running) -> None:
    status, answer, _ = server.raw("GET", "/v1/embeddings")
    assert (status, "/v1/completions" in answer["error"]["message"]) == (404, True)
    assert server.raw("GET", "/v1/completions")[0] == 405
    body = json.dumps({"model": server.names["lora"], "prompt": "a"}).encode()
    # What a page in a browser may send to this machine without asking.
    status, answer, _ = server.raw("POST", "/v1/completions", body, Content_Type="text/plain")
    assert (status, "application/json" in answer["error"]["message"]) == (400, True)


def test_a_key(runs: dict[str, Path]) -> None:
    with serving([runs["lora"]], key="sécret") as locked:
        assert locked.raw("GET", "/health")[0] == 200
        for path in ("/v1/models", "/metrics", "/nowhere", "/openapi.json"):
            assert locked.raw("GET", path)[0] == 401
            assert locked.raw("GET", path, Authorization="Bearer wrong")[0] == 401
        given = "sécret".encode().decode("latin-1")
        assert locked.raw("GET", "/v1/models", Authorization=f"Bearer {given}")[0] == 200
        with pytest.raises(openai.AuthenticationError, match="wants its key"):
            locked.client(api_key="other").models.list()


# Load and ends -----------------------------------------------------------------------------------


def test_metrics_add_up_under_load(runs: dict[str, Path]) -> None:
    """32 requests at once, all kinds, through a batch of 4 rows."""
    with serving(list(runs.values()), max_rows=4, max_waiting=64) as server:
        names = list(server.names.values())

        async def ask() -> tuple[int, int]:
            async with openai.AsyncOpenAI(
                base_url=server.url, api_key="x", max_retries=0, timeout=120
            ) as client:

                async def one(number: int) -> tuple[int, int]:
                    name = names[number % len(names)]
                    options: dict[str, Any] = {
                        "model": name,
                        "prompt": PROMPTS[number % len(PROMPTS)],
                        "max_tokens": 1 + number % 9,
                        "seed": number,
                    }
                    if number % 3:
                        told = (await client.completions.create(**options)).usage
                    else:
                        told = None
                        stream = await client.completions.create(
                            stream=True, stream_options={"include_usage": True}, **options
                        )
                        async for event in stream:
                            told = event.usage or told
                    assert told is not None
                    return told.prompt_tokens, told.completion_tokens

                found = await asyncio.gather(*(one(number) for number in range(32)))
                return sum(p for p, _ in found), sum(c for _, c in found)

        prompt_tokens, completion_tokens = asyncio.run(ask())
        metrics = server.metrics()

        def total(start: str) -> float:
            return sum(value for name, value in metrics.items() if name.startswith(start))

        path = 'endpoint="/v1/completions"'
        assert total(f"polyprefix_requests_total{{{path}") == 32
        assert total("polyprefix_prompt_tokens_total") == prompt_tokens
        assert total("polyprefix_completion_tokens_total") == completion_tokens
        assert metrics[f"polyprefix_request_seconds_count{{{path}}}"] == 32
        assert metrics["polyprefix_waiting_prompts"] == 0
        assert metrics["polyprefix_running_rows"] == 0
        assert (
            metrics['polyprefix_batch_rows_bucket{le="4.0"}']
            == metrics["polyprefix_batch_rows_count"]
        )
        assert (
            metrics['polyprefix_batch_rows_bucket{le="2.0"}']
            < metrics["polyprefix_batch_rows_count"]
        )


@contextlib.contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The engine does nothing until the event is set."""
    go = threading.Event()
    turn = Engine._turn

    def waiting(self: Engine) -> bool:
        go.wait(60)
        return turn(self)

    monkeypatch.setattr(Engine, "_turn", waiting)
    try:
        yield go
    finally:
        go.set()


def test_a_full_queue_says_when_to_come_again(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(monkeypatch) as go, serving([runs["lora"]], max_waiting=2) as server:
        name = server.names["lora"]
        body = json.dumps({"model": name, "prompt": ["a", "b"], "max_tokens": 1}).encode()
        found: list[int] = []
        first = threading.Thread(
            target=lambda: found.append(server.raw("POST", "/v1/completions", body)[0])
        )
        first.start()
        deadline = time.monotonic() + 30
        while not server.metrics().get(f'polyprefix_prompt_tokens_total{{model="{name}"}}'):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        status, answer, headers = server.raw("POST", "/v1/completions", body)
        assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
        assert int(headers["retry-after"]) > 0
        with pytest.raises(openai.RateLimitError, match="try again later"):
            server.client().completions.create(model=name, prompt="a")
        assert server.post("/v1/classify", model=name, input="a")[0] == 429
        go.set()
        first.join(30)
        assert found == [200]


def test_an_answer_that_takes_too_long(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(monkeypatch) as go, serving([runs["lora"]], timeout=0.3) as server:
        name = server.names["lora"]
        options: dict[str, Any] = {"model": name, "prompt": "a"}
        with pytest.raises(openai.InternalServerError, match=r"within 0\.3 seconds") as late:
            server.client(max_retries=2).completions.create(**options)
        assert late.value.status_code == 504
        with pytest.raises(openai.APIError, match=r"within 0\.3 seconds"):
            list(server.client().completions.create(stream=True, **options))
        path = "/v1/completions"
        found = server.metrics()
        assert (
            found[f'polyprefix_requests_total{{endpoint="{path}",model="{name}",status="504"}}']
            == 1
        ), "the client tried again"
        assert not [name for name in found if 'status="499"' in name]
        go.set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_not_answered(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    slow = Engine._turn

    def turn(self: Engine) -> bool:
        time.sleep(0.02)
        return slow(self)

    monkeypatch.setattr(Engine, "_turn", turn)
    with serving([runs["lora"]]) as server:
        name = server.names["lora"]
        body = json.dumps(
            {"model": name, "prompt": "a", "max_tokens": 1000, "stream": stream, "seed": 1}
        ).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + body)
            deadline = time.monotonic() + 30
            while server.metrics()["polyprefix_completion_tokens_total"] < 3:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        gone = (
            f'polyprefix_requests_total{{endpoint="/v1/completions",model="{name}",status="499"}}'
        )
        while server.metrics().get(gone) != 1 or server.metrics()["polyprefix_running_rows"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert server.metrics()["polyprefix_completion_tokens_total"] < 900


def test_a_batch_that_fails_fails_its_requests_only(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyprefix.serving import engine

    join = engine.RunningBatch.join

    def failing(self: Any, rows: Any) -> None:
        if any(len(row.ids) > 30 for row in rows):
            raise RuntimeError("out of memory")
        join(self, rows)

    monkeypatch.setattr(engine.RunningBatch, "join", failing)
    with serving([runs["lora"]]) as server:
        name = server.names["lora"]
        with pytest.raises(openai.InternalServerError, match="batch failed: RuntimeError"):
            server.client().completions.create(model=name, prompt=[5] * 40)
        with pytest.raises(openai.APIError, match="batch failed"):
            list(server.client().completions.create(model=name, prompt=[5] * 40, stream=True))
        assert server.client().completions.create(model=name, prompt="a").choices[0].text
        assert server.raw("GET", "/health")[0] == 200


def test_what_was_asked_is_answered_before_the_end(
    runs: dict[str, Path], alone: Callable[..., str]
) -> None:
    with serving([runs["lora"]]) as server:
        events = server.client().completions.create(
            model=server.names["lora"], prompt=PROMPTS[0], max_tokens=60, temperature=0, stream=True
        )
        text = next(iter(events)).choices[0].text
        server.server.should_exit = True
        text += "".join(event.choices[0].text for event in events)
    assert text == alone("lora", PROMPTS[0], max_new_tokens=60)
    with pytest.raises(openai.APIConnectionError):
        server.client().models.list()


@pytest.mark.slow
def test_the_process(runs: dict[str, Path], alone: Callable[..., str]) -> None:
    """The command, an answer that is under way when Ctrl-C comes, and the end."""
    command = [sys.executable, "-m", "polyprefix", "serve", str(runs["lora"]), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.match(r"http://127\.0\.0\.1:(\d+)/v1 serves", first)
            assert found, first
            server = Running(int(found[1]), {}, None)  # type: ignore[arg-type]
            events = server.client().completions.create(
                model=runs["lora"].name,
                prompt=PROMPTS[0],
                max_tokens=200,
                temperature=0,
                stream=True,
            )
            text = next(iter(events)).choices[0].text
            process.send_signal(signal.SIGINT)
            text += "".join(event.choices[0].text for event in events)
            assert text == alone("lora", PROMPTS[0], max_new_tokens=200)
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert err == ""
            assert "stopping when what was asked is answered" in out
            assert out.endswith("stopped\n")
        finally:
            process.kill()


# Which runs --------------------------------------------------------------------------------------


def test_runs_that_cannot_be_served_together(
    runs: dict[str, Path],
    train: Callable[..., Path],
    tiny_folder: Path,
    module_tmp: Path,
    cli: Cli,
) -> None:
    other = module_tmp / "other"
    if not other.exists():
        shutil.copytree(tiny_folder, other)
        (other / "added.txt").write_text("another revision")
    with pytest.raises(RunError, match="different backbones"):
        load_runs([runs["lora"], train("lora", other)])
    full = train("full")
    with pytest.raises(RunError, match="serve it alone"):
        load_runs([runs["lora"], full])
    _, served = load_runs([full])
    assert list(served) == [full.name], "a tuned backbone is not the backbone"
    with pytest.raises(ConfigError, match="one name"):
        load_runs([runs["lora"], runs["lora"]])
    code, _, err = cli("serve", str(module_tmp), "--port", "0")
    assert (code, "not a run's folder" in err) == (2, True)
    code, _, err = cli("serve", str(runs["lora"]), "--api-key-variable", "NOT_SET_ANYWHERE")
    assert (code, "NOT_SET_ANYWHERE" in err) == (2, True)
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = cli("serve", str(runs["lora"]), "--port", port)
    assert (code, f"cannot listen on 127.0.0.1, port {port}" in err) == (2, True)
    code, _, err = cli("serve", str(runs["lora"]), "--port", "0", "--max-length", "100000")
    assert (code, "--max-length" in err) == (2, True)


# Pieces of text ----------------------------------------------------------------------------------


def test_pieces_never_split_characters_or_stop_strings() -> None:
    text = "aé€😀 end ENDED"
    raw = text.encode()
    shown = [raw[:n].decode(errors="replace") for n in range(1, len(raw) + 1)]
    deltas = Deltas(stop=("ENDX", "xyz"))
    pieces = [deltas.feed(part, finished=False) for part in shown]
    assert all("�" not in piece for piece in pieces)
    assert "".join(pieces) == text[:-1] + "D"
    held = Deltas(stop=("ENDX",))
    assert held.feed("some END", finished=False) == "some "
    assert held.feed("some ", finished=True) == ""
    let = Deltas(stop=("ENDX",))
    assert let.feed("some END", finished=False) == "some "
    assert let.feed("some END, and", finished=False) == "END, and"
    broken = Deltas()
    assert broken.feed("a\ufffd", finished=False) == "a"
    assert broken.feed("a\ufffd", finished=True) == "\ufffd"
