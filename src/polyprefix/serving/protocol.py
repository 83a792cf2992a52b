"""What clients send: the parts of OpenAI's interface that have an effect here, checked strictly."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from polyprefix.evaluation import Decoding
from polyprefix.tasks import unpaired

MAX_STOPS = 16
"""Stop strings of a request."""

MAX_TOP_LOGPROBS = 20
"""Most probable tokens at a place."""

DEFAULT_MAX_TOKENS = 16
"""Of a completion, as OpenAI has it."""


def _text(value: Any) -> Any:
    """A string has to be text that UTF-8 can hold."""
    if isinstance(value, str) and (problem := unpaired(value)) is not None:
        raise ValueError(problem)
    return value


Text = Annotated[str, BeforeValidator(_text)]
"""A string without unpaired surrogates, which JSON can write and UTF-8 cannot."""


def _prompts(value: Any) -> Any:
    """One prompt or several, each a text or token ids: said in one sentence, where pydantic would
    list what each of four kinds lacks."""
    kinds = "expected a text, a list of texts, a list of token ids, or a list of such lists"
    if isinstance(value, str):
        return [_text(value)]
    if not isinstance(value, list):
        raise ValueError(kinds)
    if not value:
        raise ValueError("an empty list; " + kinds)
    if _is_ids(value):
        return [value]
    for number, item in enumerate(value):
        if isinstance(item, str):
            _text(item)
        elif not (isinstance(item, list) and item and _is_ids(item)):
            raise ValueError(f"item {number} is neither a text nor a list of token ids; {kinds}")
    return value


def _is_ids(value: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("expected a text or a list of texts")
    if len(stops) > MAX_STOPS or "" in stops:
        raise ValueError(f"expected at most {MAX_STOPS} texts, none of them empty")
    return [_text(stop) for stop in stops]


Name = Annotated[str, Field(max_length=256)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Strict):
    """``include_usage``: a last event with the numbers of tokens."""

    include_usage: bool = False


class Request(_Strict):
    """What all requests for written text have.

    ``seed`` is allowed where nothing is drawn: the same seed gives the same text there too.
    """

    model: Name
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[str] | None, BeforeValidator(lambda v: v if v is None else _stops(v))] = (
        None
    )
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _effect(self) -> Self:
        if self.temperature == 0 and self.top_p != 1:
            raise ValueError("'top_p' has no effect at temperature 0")
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' has no effect unless stream is true")
        return self

    def decoding(self, max_tokens: int) -> Decoding:
        """How the answer is written. Without a seed one is drawn."""
        return Decoding(
            max_new_tokens=max_tokens,
            stop=tuple(self.stop or ()),
            temperature=self.temperature,
            top_p=self.top_p,
            seed=secrets.randbits(63) if self.seed is None else self.seed,
        )


Tokens = Annotated[int, Field(ge=1)]


class CompletionRequest(Request):
    """``POST /v1/completions``."""

    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompts)]
    max_tokens: Tokens = DEFAULT_MAX_TOKENS
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def _of_the_answer(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise ValueError("'echo' with 'logprobs' is not supported: logprobs are of the answer")
        return self


class Message(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class ChatRequest(Request):
    """``POST /v1/chat/completions``. ``max_tokens`` is the older name of
    ``max_completion_tokens``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give 'max_completion_tokens' or 'max_tokens', not both")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' has no effect unless logprobs is true")
        return self


class ClassifyRequest(_Strict):
    """``POST /v1/classify``: examples of the run's own task, as ``polyprefix predict`` takes
    them: a text where the task has one field, or an object of its fields; or a list of these."""

    model: Name
    input: str | dict[str, str] | list[str | dict[str, str]]

    @model_validator(mode="after")
    def _texts(self) -> Self:
        for item in self.items:
            for text in [item] if isinstance(item, str) else [*item, *item.values()]:
                _text(text)
        if not self.items:
            raise ValueError("'input' is an empty list")
        return self

    @property
    def items(self) -> list[str | dict[str, str]]:
        return self.input if isinstance(self.input, list) else [self.input]


def known_fields(schema: type[BaseModel]) -> dict[str, list[str]]:
    """For messages: the fields of a request, and of the objects in it."""
    found = {"": sorted(schema.model_fields)}
    found["stream_options"] = sorted(StreamOptions.model_fields)
    found["messages"] = sorted(Message.model_fields)
    return found
