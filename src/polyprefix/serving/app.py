"""The endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from polyprefix.config import DataError
from polyprefix.evaluation.decoding import Row
from polyprefix.methods import AdaptedModel
from polyprefix.serving.engine import Engine
from polyprefix.serving.errors import ApiError, invalid
from polyprefix.serving.gate import NOTES, Gate, too_large
from polyprefix.serving.metrics import Metrics
from polyprefix.serving.protocol import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    known_fields,
)
from polyprefix.serving.requests import (
    Asked,
    EventStream,
    Limits,
    Prompts,
    answered,
    events,
    submit,
    taking,
    while_connected,
)
from polyprefix.serving.runs import Served
from polyprefix.serving.wording import Chat, Completion

SCHEMAS: dict[str, type[BaseModel]] = {
    "/v1/completions": CompletionRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/classify": ClassifyRequest,
}

PATHS = frozenset({*SCHEMAS, "/v1/models", "/health", "/metrics"})

CLASSIFIED = 256
"""Examples of one request."""


def make_app(
    model: AdaptedModel, served: dict[str, Served], limits: Limits, *, key: str | None = None
) -> Gate:
    """The application; its lifespan starts and ends the engine.

    Args:
        model: used by nobody else from now on.
        served: what it serves, by name.
        limits: what it takes on.
        key: what clients have to send, ``None`` for nothing.
    """
    metrics = Metrics()
    engine = Engine(
        model,
        max_rows=limits.max_rows,
        batch_tokens=limits.batch_tokens,
        max_waiting=limits.max_waiting,
        watcher=metrics,
    )
    prompts = Prompts(model, served, limits)
    fingerprint = model.backbone.revision

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await run_in_threadpool(engine.close, limits.timeout)

    app = FastAPI(
        title="Polyprefix",
        lifespan=lifespan,
        max_body_size=limits.max_body,
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
    )
    _word_errors(app, limits)

    @app.get("/health")
    async def health() -> Response:
        alive = engine.alive
        return JSONResponse({"status": "ok" if alive else "stopping"}, 200 if alive else 503)

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_listed(e) for e in served.values()]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        return JSONResponse(_listed(prompts.named(name)))

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        entry = named(body.model, request)
        ids = await run_in_threadpool(prompts.encode, body.prompt)
        rows = []
        for own in ids:
            most = prompts.fits(entry, own, body.max_tokens, "prompt")
            row = Row.of(model, own, body.decoding(most), entry.adapter, logprobs=body.logprobs)
            rows.append(row)
        before = [""] * len(ids)
        if body.echo:
            decode = prompts.tokenizer.decode
            before = [
                prompt if isinstance(prompt, str) else decode(own, skip_special_tokens=True)
                for prompt, own in zip(body.prompt, ids, strict=True)
            ]
        wording = Completion(body.model, fingerprint, prompts.tokenizer, body.logprobs is not None)
        asked = Asked(entry, rows, sum(map(len, ids)), wording, before, _usage_wanted(body))
        return await answer(asked, request, stream=body.stream)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        entry = named(body.model, request)
        messages = [message.model_dump() for message in body.messages]
        ids = await run_in_threadpool(prompts.chat, messages)
        wanted = body.max_tokens or body.max_completion_tokens
        most = prompts.fits(entry, ids, wanted, "messages")
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        row = Row.of(model, ids, body.decoding(most), entry.adapter, logprobs=logprobs)
        wording = Chat(body.model, fingerprint, prompts.tokenizer, body.logprobs)
        asked = Asked(entry, [row], len(ids), wording, [""], _usage_wanted(body))
        return await answer(asked, request, stream=body.stream)

    @app.post("/v1/classify")
    async def classify(body: ClassifyRequest, request: Request) -> Response:
        entry = named(body.model, request)
        items = _examples(entry, body.items)
        predictor = entry.predictor
        assert predictor is not None
        future = taking(lambda: engine.call(lambda: predictor.answers(items)))
        try:
            rows = await while_connected(request, asyncio.wrap_future(future), limits.timeout)
        except DataError as error:
            raise ApiError(400, str(error), param="input") from None
        data = [
            {"index": number, **{k: v for k, v in row.items() if k not in items[number]}}
            for number, row in enumerate(rows)
        ]
        return JSONResponse({"object": "list", "model": body.model, "data": data})

    def named(name: str, request: Request) -> Served:
        entry = prompts.named(name)
        request.scope[NOTES]["model"] = name
        return entry

    async def answer(asked: Asked, request: Request, *, stream: bool) -> Response:
        ticket, inbox = submit(engine, asked, stream=stream)
        metrics.prompt_tokens.labels(asked.served.name).inc(asked.prompt_tokens)
        if stream:

            def ended(whole: bool) -> None:
                if not whole:
                    request.scope[NOTES]["gone"] = "yes"
                engine.cancel(ticket)

            return EventStream(events(asked, inbox, limits.timeout), ended)
        try:
            body = await while_connected(request, answered(asked, inbox), limits.timeout)
        finally:
            engine.cancel(ticket)
        return JSONResponse(body)

    # Outermost: the framework's own limit of the body would put its words over ours.
    return Gate(app, metrics, PATHS, limits.max_body, key)


def _usage_wanted(body: CompletionRequest | ChatRequest) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def _listed(entry: Served) -> dict[str, Any]:
    """An entry of the list of models."""
    told: dict[str, Any] = {"id": entry.name, "object": "model", "owned_by": "polyprefix"}
    if entry.record is None:
        return {**told, "created": 0}
    record = entry.record
    return {
        **told,
        "created": int(datetime.fromisoformat(record["finished"]).timestamp()),
        "parent": record["model"]["name"],
        "method": record["method"]["name"],
        "task": record["task"]["name"],
    }


def _examples(entry: Served, items: Sequence[str | dict[str, str]]) -> list[dict[str, str]]:
    """Fields of the run's task.

    Raises:
        ApiError: 400, the model has no task, or the examples do not fit it.
    """
    if entry.predictor is None:
        raise ApiError(400, f"{entry.name!r} is no run and has no task", param="model")
    if len(items) > CLASSIFIED:
        raise ApiError(
            400, f"input: {len(items)} examples; at most {CLASSIFIED} at once", param="input"
        )
    try:
        examples = entry.predictor.examples(items)
    except DataError as error:
        raise ApiError(400, f"input: {error}", param="input") from None
    for number, (item, fields) in enumerate(zip(items, examples, strict=True), start=1):
        extra = [] if isinstance(item, str) else sorted(item.keys() - fields.keys())
        if extra:
            raise ApiError(
                400,
                f"input: example {number} has fields that the task does not: "
                f"{', '.join(extra)[:200]}",
                param="input",
            )
    return examples


def _word_errors(app: FastAPI, limits: Limits) -> None:
    """Errors of all kinds in one form."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        fields = known_fields(SCHEMAS[request.scope["route"].path])
        return invalid(error.errors(), fields).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code == 404:
            message = (
                f"there is no {request.url.path[:200]!r} here; there is {', '.join(sorted(PATHS))}"
            )
        elif error.status_code == 405:
            message = f"{request.method} is not for {request.url.path}"
        elif error.status_code == 413:
            return too_large(limits.max_body).response()
        elif error.status_code == 400:
            message = "the body cannot be read as JSON"
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def any_error(_: Request, __: Exception) -> Response:
        return ApiError(500, "internal error; the server's log says more").response()
