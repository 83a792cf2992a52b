"""What every request passes: the key, the size of its body, and the count."""

from __future__ import annotations

import hmac
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polyprefix.serving.errors import ApiError
from polyprefix.serving.metrics import Metrics
from polyprefix.serving.requests import CLIENT_GONE

NOTES = "polyprefix"
"""Key of the scope under which a request's endpoint says what it is about."""

OPEN = frozenset({"/health"})
"""Paths that need no key."""


class Gate:
    """ASGI middleware.

    Args:
        app: behind it.
        metrics: to count in.
        paths: endpoints; others are counted together.
        max_body: bytes.
        key: what clients have to send as ``Authorization: Bearer``, ``None`` for nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        paths: frozenset[str],
        max_body: int,
        key: str | None,
    ) -> None:
        self.app, self.metrics, self.paths, self.max_body = app, metrics, paths, max_body
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        notes: dict[str, str] = scope.setdefault(NOTES, {})
        started = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"] if scope["path"] in self.paths else "other"
        try:
            if (refusal := self._refusal(scope)) is not None:
                await refusal.response()(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        finally:
            status = CLIENT_GONE if "gone" in notes else status
            self.metrics.requests.labels(path, notes.get("model", ""), str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._key is not None and scope["path"] not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode("latin-1"), self._key)
            if kind.lower() != "bearer" or not same:
                return ApiError(
                    401,
                    "this server wants its key: Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.max_body:
            return too_large(self.max_body)
        return None


def too_large(most: int) -> ApiError:
    """The body has too many bytes. The connection ends: the rest of it is not read."""
    return ApiError(
        413,
        f"the body is larger than {most} bytes",
        code="body_too_large",
        headers={"Connection": "close"},
    )
