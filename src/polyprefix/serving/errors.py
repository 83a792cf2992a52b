"""Errors as OpenAI's interface words them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import Response

from polyprefix.config import unknown

SHOWN = 5
"""Mistakes of one request that are listed."""

LONGEST = 80
"""Characters of a client's own words that a message repeats."""


class ApiError(Exception):
    """What a client is told.

    Args:
        status: of HTTP.
        message: what was wrong, and what to do.
        param: the field of the request.
        code: for programs.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
        if status == 429:
            kind = "rate_limit_error"
        error = {"message": message, "type": kind, "param": param, "code": code}
        self.body = {"error": error}

    def response(self) -> Response:
        """ASCII: a message may quote what is no Unicode text."""
        content = json.dumps(self.body, ensure_ascii=True)
        return Response(content, self.status, self.headers, media_type="application/json")


def invalid(errors: Sequence[Any], fields: Mapping[str, Sequence[str]]) -> ApiError:
    """The error for a body that is not as it should be.

    Args:
        errors: pydantic's.
        fields: those of the request's schema, and of objects in it by the path of their key.
    """
    messages = []
    param = None
    for error in errors[:SHOWN]:
        place = [str(part)[:LONGEST] for part in error["loc"][1:]]
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "json_invalid":
            return ApiError(
                400, f"the body is not JSON: {error['ctx']['error']} at character {place[0]}"
            )
        if not place and error["type"] in ("model_attributes_type", "dict_type"):
            message = "the body has to be a JSON object, with Content-Type: application/json"
        if error["type"] == "missing" and not place:
            message = "the body is empty; it has to be a JSON object"
        path = ".".join(place)
        if error["type"] == "extra_forbidden":
            known = fields.get(".".join(p for p in place[:-1] if not p.isdigit()), ())
            message = unknown("field", place[-1], known)
            message += " (A field that would have no effect is refused.)"
        param = param or path or None
        messages.append(f"{path}: {message}" if path else message)
    if len(errors) > SHOWN:
        messages.append(f"and {len(errors) - SHOWN} more")
    return ApiError(400, "; ".join(messages), param=param)
