"""Answers in the words of OpenAI's interface: completions and chats, whole and in pieces."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from polyprefix.evaluation.decoding import TokenLogprob

LOWEST = -9999.0
"""What JSON has for a log-probability that is not finite."""


class Answers(Protocol):
    """One way to word answers."""

    def whole(
        self, number: int, text: str, reason: str, logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        """The choice of a prompt."""

    def piece(
        self, number: int, text: str, reason: str | None, logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        """A part of it."""

    def first(self, number: int) -> dict[str, Any] | None:
        """What comes before any part."""

    def envelope(self, choices: list[dict[str, Any]], *, streamed: bool) -> dict[str, Any]:
        """What a message has around choices."""


class _Worded:
    """What is the same for all.

    Args:
        model: the name that was asked for.
        fingerprint: of the backbone.
        tokenizer: its.
        logprobs: they were asked for.
    """

    def __init__(self, model: str, fingerprint: str | None, tokenizer: Any, logprobs: bool) -> None:
        self.tokenizer, self.logprobs = tokenizer, logprobs
        self._common = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    prefix = ""
    kinds = ("", "")

    def envelope(self, choices: list[dict[str, Any]], *, streamed: bool) -> dict[str, Any]:
        return {"object": self.kinds[streamed], **self._common, "choices": choices}

    def _token(self, token: int) -> str:
        """Its text; bytes that are no character as the tokenizer writes them, so that different
        tokens stay different."""
        text: str = self.tokenizer.decode([token])
        return str(self.tokenizer.convert_ids_to_tokens(token)) if "�" in text else text


class Completion(_Worded):
    """``text_completion``."""

    prefix = "cmpl"
    kinds = ("text_completion", "text_completion")

    def __init__(self, *common: Any) -> None:
        super().__init__(*common)
        self._written: dict[int, list[int]] = {}  # tokens of each prompt whose offsets are told

    def whole(
        self, number: int, text: str, reason: str | None, logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        return {
            "index": number,
            "text": text,
            "logprobs": self._told(number, logprobs) if self.logprobs else None,
            "finish_reason": reason,
        }

    piece = whole

    def first(self, number: int) -> dict[str, Any] | None:
        return None

    def _told(self, number: int, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        written = self._written.setdefault(number, [])
        offsets = []
        for item in logprobs:
            offsets.append(len(self.tokenizer.decode(written, skip_special_tokens=True)))
            written.append(item.token)
        return {
            "tokens": [self._token(item.token) for item in logprobs],
            "token_logprobs": [_finite(item.logprob) for item in logprobs],
            "top_logprobs": [
                {self._token(token): _finite(value) for token, value in item.top}
                for item in logprobs
            ],
            "text_offset": offsets,
        }


class Chat(_Worded):
    """``chat.completion``."""

    prefix = "chatcmpl"
    kinds = ("chat.completion", "chat.completion.chunk")

    def whole(
        self, number: int, text: str, reason: str, logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": number, "message": message, **self._end(reason, logprobs)}

    def piece(
        self, number: int, text: str, reason: str | None, logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        delta = {"content": text} if text else {}
        return {"index": number, "delta": delta, **self._end(reason, logprobs)}

    def first(self, number: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def _end(self, reason: str | None, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        told = None
        if self.logprobs:
            told = {
                "content": [
                    {
                        **self._told(item.token, item.logprob),
                        "top_logprobs": [self._told(*top) for top in item.top],
                    }
                    for item in logprobs
                ],
                "refusal": None,
            }
        return {"logprobs": told, "finish_reason": reason}

    def _told(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._token(token)
        whole = "�" not in self.tokenizer.decode([token])
        return {
            "token": text,
            "logprob": _finite(logprob),
            "bytes": list(text.encode()) if whole else None,
        }


def _finite(value: float) -> float:
    return value if value > LOWEST else LOWEST


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The numbers of tokens; soft tokens are not counted."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
