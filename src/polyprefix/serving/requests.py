"""A request's way: from texts to rows, through the engine, to an answer or a stream of events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from polyprefix.config import unknown
from polyprefix.evaluation.decoding import Row, TokenLogprob
from polyprefix.methods import AdaptedModel
from polyprefix.models.encoding import Encoder
from polyprefix.serving.deltas import Deltas
from polyprefix.serving.engine import Closing, Engine, QueueFull, Ticket, Update
from polyprefix.serving.errors import LONGEST, ApiError
from polyprefix.serving.runs import Served
from polyprefix.serving.wording import Answers, usage

T = TypeVar("T")

ENDLESS = 1 << 62
"""Tokens that no prompt has: what is too long is refused, not cut."""

RETRY_AFTER = 1
"""Seconds after which a client may try again when the queue is full."""

CLIENT_GONE = 499
"""What nginx calls a request whose client went away; nobody sees it but the metrics."""


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        max_rows: answered at once.
        batch_tokens: of the batch, prompts and answers with padding.
        max_waiting: prompts that may wait.
        max_length: tokens of a prompt and its answer.
        max_tokens: of an answer.
        max_body: bytes of a request.
        timeout: seconds from a request to the end of its answer.
    """

    max_rows: int = 16
    batch_tokens: int = 16384
    max_waiting: int = 128
    max_length: int = 2048
    max_tokens: int = 1024
    max_body: int = 1 << 20
    timeout: float = 300.0


@dataclass
class Asked:
    """What was asked: prompts as rows, with what their answer is worded by.

    Attributes:
        served: by whom.
        rows: one a prompt.
        prompt_tokens: of all, without soft tokens.
        answers: how to word them.
        before: what the text of each choice begins with: the prompt, where it is echoed.
        include_usage: a stream ends with the numbers of tokens.
    """

    served: Served
    rows: list[Row]
    prompt_tokens: int
    answers: Answers
    before: list[str]
    include_usage: bool = False


class Prompts:
    """Makes rows of what clients send; safe to call from any thread.

    Args:
        model: the engine's; it is not computed with.
        served: by name.
        limits: of lengths.
    """

    def __init__(self, model: AdaptedModel, served: dict[str, Served], limits: Limits) -> None:
        self.served, self.limits = served, limits
        self.tokenizer = model.backbone.tokenizer
        self._model = model
        self._encoder = Encoder(self.tokenizer, ENDLESS)
        self._lock = threading.Lock()  # of the tokenizer
        longest = min(limits.max_length, limits.batch_tokens)
        self.room = {name: model.room(longest, entry.adapter) for name, entry in served.items()}

    def named(self, name: str) -> Served:
        """What a request names.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name not in self.served:
            message = unknown("model", name[:LONGEST], self.served)
            raise ApiError(404, message, param="model", code="model_not_found")
        return self.served[name]

    def encode(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        """Token ids of texts, with what the tokenizer puts before them; ids as they are.

        Raises:
            ApiError: 400, an id that the vocabulary does not have.
        """
        size = self._model.backbone.vocab_size
        for prompt in prompts:
            if not isinstance(prompt, str) and not all(0 <= token < size for token in prompt):
                raise ApiError(400, f"prompt: token ids go from 0 to {size - 1}", param="prompt")
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        with self._lock:
            encoded = iter(self._encoder.encode(texts, [()] * len(texts)))
        return [next(encoded).prompt if isinstance(p, str) else p for p in prompts]

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, up to where the answer begins.

        Raises:
            ApiError: 400, there is no chat template, or it refuses the messages.
        """
        if not self.tokenizer.chat_template:
            raise ApiError(
                400,
                f"the tokenizer of {self._model.backbone.name!r} has no chat template: use "
                "/v1/completions",
                code="no_chat_template",
            )
        try:
            with self._lock:
                text = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
                ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)[
                    "input_ids"
                ]
        except Exception as error:  # templates raise what they like
            raise ApiError(
                400, f"the chat template refuses these messages: {error}", param="messages"
            ) from error
        if not ids:
            raise ApiError(400, "the chat template makes nothing of these messages")
        return ids

    def fits(self, served: Served, ids: list[int], max_tokens: int | None, param: str) -> int:
        """Tokens that the answer to a prompt may have: as asked, or what there is room for.

        Raises:
            ApiError: 400, there is not enough.
        """
        room = self.room[served.name]
        if max_tokens is not None and max_tokens > self.limits.max_tokens:
            raise ApiError(
                400,
                f"max_tokens: {max_tokens} is more than the {self.limits.max_tokens} tokens that "
                "this server writes at most",
                param="max_tokens",
            )
        left = room - len(ids)
        if left < (max_tokens or 1):
            raise ApiError(
                400,
                f"{served.name!r} has room for {room} tokens of prompt and answer; the prompt has "
                f"{len(ids)}, and the answer may have {max_tokens or 1}",
                param=param,
                code="context_length_exceeded",
            )
        return min(left, self.limits.max_tokens) if max_tokens is None else max_tokens


class _Inbox:
    """Where the engine's thread leaves what an event loop waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Sequence[Update] | Exception] = asyncio.Queue()

    def post(self, found: Sequence[Update] | Exception) -> None:
        # After the loop is closed there is nobody to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, found)

    async def take(self) -> Sequence[Update]:
        found = await self._queue.get()
        if isinstance(found, Exception):
            raise ApiError(500, f"the batch failed: {type(found).__name__}") from found
        return found


def submit(engine: Engine, asked: Asked, *, stream: bool) -> tuple[Ticket, _Inbox]:
    """Queue what was asked.

    Raises:
        ApiError: 400, 429 or 503, there is no room for it, now or ever.
    """
    if len(asked.rows) > engine.max_waiting:
        raise ApiError(
            400,
            f"prompt: {len(asked.rows)} prompts; at most {engine.max_waiting} may wait at once",
            param="prompt",
        )
    inbox = _Inbox()
    ticket = Ticket(asked.rows, inbox.post, stream)
    taking(lambda: engine.submit(ticket))
    return ticket, inbox


def taking(submitted: Callable[[], T]) -> T:
    """Submit, and word what the engine says.

    Raises:
        ApiError: 429, the queue is full; 503, the server is being stopped.
    """
    try:
        return submitted()
    except QueueFull:
        raise ApiError(
            429,
            "too many prompts wait already: try again later",
            code="queue_full",
            headers={"Retry-After": str(RETRY_AFTER)},
        ) from None
    except Closing:
        raise ApiError(503, "the server is being stopped") from None


async def answered(asked: Asked, inbox: _Inbox) -> dict[str, Any]:
    """The whole answer."""
    found: dict[int, Update] = {}
    while len(found) < len(asked.rows):
        found |= {update.number: update for update in await inbox.take() if update.reason}
    choices = [
        asked.answers.whole(
            number,
            asked.before[number] + found[number].text,
            found[number].reason or "",
            found[number].logprobs,
        )
        for number in range(len(asked.rows))
    ]
    written = sum(update.tokens for update in found.values())
    body = asked.answers.envelope(choices, streamed=False)
    return body | {"usage": usage(asked.prompt_tokens, written)}


@dataclass
class _Choice:
    """One choice of a stream: what is sent, and log-probabilities that wait for their text."""

    deltas: Deltas
    logprobs: list[TokenLogprob] = field(default_factory=list)


async def events(asked: Asked, inbox: _Inbox, timeout: float) -> AsyncIterator[bytes]:
    """The answer as server-sent events. What goes wrong is one too: the status is sent already."""
    answers = asked.answers
    choices = [_Choice(Deltas(row.decoding.stop)) for row in asked.rows]
    left = len(choices)
    written = 0
    for number, before in enumerate(asked.before):
        if (first := answers.first(number)) is not None:
            yield event(answers.envelope([first], streamed=True))
        if before:
            yield event(answers.envelope([answers.piece(number, before, None, ())], streamed=True))
    try:
        async with asyncio.timeout(timeout):
            while left:
                for update in await inbox.take():
                    choice = choices[update.number]
                    choice.logprobs += update.logprobs
                    text = choice.deltas.feed(update.text, finished=bool(update.reason))
                    if text or update.reason:
                        piece = answers.piece(
                            update.number, text, update.reason, tuple(choice.logprobs)
                        )
                        choice.logprobs.clear()
                        yield event(answers.envelope([piece], streamed=True))
                    if update.reason:
                        left -= 1
                        written += update.tokens
    except TimeoutError:
        yield event(timed_out(timeout).body)
        return
    except ApiError as error:
        yield event(error.body)
        return
    if asked.include_usage:
        told = {"usage": usage(asked.prompt_tokens, written)}
        yield event(answers.envelope([], streamed=True) | told)
    yield b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n".encode()


def timed_out(timeout: float) -> ApiError:
    """The answer has taken too long. Clients of OpenAI's would try again and wait as long."""
    return ApiError(
        504,
        f"not answered within {timeout:g} seconds: ask for fewer tokens, or try when less is going "
        "on",
        code="timeout",
        headers={"x-should-retry": "false"},
    )


async def while_connected(request: Request, work: Awaitable[T], timeout: float) -> T:
    """Wait for work as long as the client does.

    Raises:
        ApiError: 499, the client went away; 504, it took too long.
    """
    waiting = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        done, _ = await asyncio.wait(
            {waiting, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if waiting in done:
            return waiting.result()
        raise ApiError(CLIENT_GONE, "the client went away") if gone in done else timed_out(timeout)
    finally:
        waiting.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events.

    Args:
        content: the events.
        ended: called when the response is over, with whether that was after all events; also when
            none of them was asked for.
    """

    def __init__(self, content: AsyncIterator[bytes], ended: Callable[[bool], None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._all(content), headers=headers, media_type="text/event-stream")
        self._ended, self._whole = ended, False

    async def _all(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for item in content:
            yield item
        self._whole = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended(self._whole)
