"""An adapted model as lm-evaluation-harness wants it: their tasks, prompts and metrics, our model.

lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness, MIT licence; Gao et al.,
doi:10.5281/zenodo.10256836) asks a model three things: log-probabilities of continuations, of whole
texts, and answers written until a stop string. :class:`HarnessLM` answers them with the adapter in
use, by the scorer and the decoder that runs use, so that a number made here can be compared with a
number published from there. Written against version 0.4.13; 0.4.12 is the first that serves.

Token ids are those of the harness's own ``HFLM`` with its defaults: context and continuation are
encoded together and cut apart, the tokenizer decides about its begin-of-text token unless the text
starts with one, and what is too long loses its beginning, begin-of-text token included (a run's own
encoder keeps that). Soft tokens are put in afterwards, and the context a model has for text is
smaller by their number.

Departures from ``HFLM``: log-probabilities are computed in float32 whatever the model's dtype.
Sampling draws by prompt and seed, not from torch's global state. Arguments of a generation that
would change it and that we do not have (``num_beams: 10``) are refused, not ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from polyprefix.config import ConfigError, DataError, RunError
from polyprefix.evaluation.decoding import Decoding
from polyprefix.evaluation.generation import generate
from polyprefix.evaluation.scoring import score_answers, score_greedy_answers
from polyprefix.methods import AdaptedModel
from polyprefix.models.encoding import Encoded
from polyprefix.results import Progress, Silent

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise ConfigError(
        "this needs lm-evaluation-harness, version 0.4.12 or later: "
        f"pip install 'polyprefix[harness]' ({error})"
    ) from error

T = TypeVar("T")

MAX_NEW_TOKENS = 256
"""Tokens of an answer where a task does not say: ``HFLM.max_gen_toks``."""

NO_LIMIT = 2048
"""Tokens of context where neither model nor tokenizer says: ``HFLM``'s default."""

LOGITS = 1 << 28
"""Values of one logits tensor where every place of a text is scored (1 GiB in float32)."""

_SAMPLING = frozenset({"top_p", "top_k", "min_p", "typical_p"})
"""Arguments of a generation that are without effect where it is greedy."""

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the longest answer, the first one given counts."""


class HarnessLM(TemplateLM):  # type: ignore[misc]
    """What lm-evaluation-harness asks of a language model, under the adapter in use.

    Args:
        model: a backbone with an adapter, or without one.
        batch_tokens: padded tokens of one forward pass.
        max_length: tokens of context and continuation; by default the model's context, less what
            the adapter's soft tokens take.
        seed: of sampling. Copies of one request are drawn with the seeds that follow.
        progress: shown what is going on.

    Attributes:
        truncated: contexts that lost their beginning, so far.
    """

    def __init__(
        self,
        model: AdaptedModel,
        *,
        batch_tokens: int = 16384,
        max_length: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer = model.backbone.tokenizer
        self.batch_tokens, self.seed = batch_tokens, seed
        self.progress = progress or Silent()
        self.truncated = 0
        room = model.room(_context_length(model))
        if max_length is not None and not 1 < max_length <= room:
            raise ConfigError(f"max_length={max_length}: the model has room for 2 to {room} tokens")
        self._max_length = room if max_length is None else max_length

    # What the harness wants to know ------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.model.backbone.device

    @property
    def max_length(self) -> int:
        """Tokens of context and continuation, without soft tokens."""
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        return MAX_NEW_TOKENS

    @property
    def eot_token_id(self) -> int | None:
        end: int | None = self.tokenizer.eos_token_id
        return end

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: begin of text, or else end of text."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise DataError("a text without a context needs a tokenizer that has a bos or eos token")

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """For the ``config`` of the harness's results."""
        backbone = self.model.backbone
        name = self.model.active
        return {
            "model_num_parameters": backbone.num_parameters,
            "model_dtype": str(backbone.dtype).removeprefix("torch."),
            "model_revision": backbone.revision,
            "adapter": None if name is None else self.model.adapter(name).method,
        }

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids. ``None`` leaves special tokens to the tokenizer, unless the text starts with
        the one that would be put there."""
        if add_special_tokens is None:
            start = self.tokenizer.bos_token_id
            start = self.tokenizer.eos_token_id if start is None else start
            written = start is not None and string.startswith(self.tokenizer.decode(start))
            add_special_tokens = not written
        # quietly: what is too long is cut later
        encoded = self.tokenizer(string, add_special_tokens=add_special_tokens, verbose=False)
        ids: list[int] = encoded["input_ids"]
        return ids

    # Log-probabilities -------------------------------------------------------------------------

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """For each context and continuation the log-probability, and whether greedy decoding would
        write it."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        encoded, place = self._together(requests)
        scores, greedy = self._scores(score_greedy_answers, encoded, self.batch_tokens)
        return [(scores[which][answer], greedy[which][answer]) for which, answer in place]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """For each text its log-probability; one longer than the context in windows, each of which
        sees as much of what came before as has room."""
        windows, of = [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            for window in get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            ):
                windows.append(("", *make_disjoint_window(window)))
                of.append(number)
        encoded, place = self._together(windows)
        everywhere = max(1, LOGITS // self.model.backbone.vocab_size)
        scores = self._scores(score_answers, encoded, min(self.batch_tokens, everywhere))
        totals = [0.0] * len(requests)
        for number, (which, answer) in zip(of, place, strict=True):
            totals[number] += scores[which][answer]
        return totals

    def _together(
        self, requests: Sequence[tuple[Any, list[int], list[int]]]
    ) -> tuple[list[Encoded], list[tuple[int, int]]]:
        """Contexts, each with all its continuations; and where each request has gone."""
        contexts: dict[tuple[int, ...], int] = {}
        answers: list[list[list[int]]] = []
        place = []
        for texts, context, continuation in requests:
            # The last token is predicted and never read: it needs no room.
            room = self.max_length + 1 - len(continuation)
            if not continuation or room < 1:
                raise DataError(
                    f"a continuation of {len(continuation)} tokens cannot be scored in a context "
                    f"of {self.max_length}: {texts!r}"
                )
            key = tuple(self._cut(context, room))
            which = contexts.setdefault(key, len(contexts))
            if which == len(answers):
                answers.append([])
            place.append((which, len(answers[which])))
            answers[which].append(continuation)
        encoded = [
            Encoded(list(key), tuple(found)) for key, found in zip(contexts, answers, strict=True)
        ]
        return encoded, place

    def _cut(self, ids: list[int], room: int) -> list[int]:
        self.truncated += len(ids) > room
        return ids[-room:]

    def _scores(self, score: Callable[..., T], encoded: list[Encoded], batch_tokens: int) -> T:
        self.progress.start("scoring", len(encoded))
        try:
            return score(
                self.model, encoded, batch_tokens=batch_tokens, advance=self.progress.advance
            )
        finally:
            self.progress.finish()

    # Answers -----------------------------------------------------------------------------------

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """For each context what the model writes after it, up to a stop string."""
        groups: dict[Decoding, list[int]] = {}
        copies: Counter[tuple[str, Decoding]] = Counter()
        for number, request in enumerate(requests):
            context, arguments = request.args
            decoding = self._decoding(arguments)
            if decoding.temperature:
                copies[context, decoding] += 1
                seed = decoding.seed + copies[context, decoding] - 1
                decoding = replace(decoding, seed=seed)
            groups.setdefault(decoding, []).append(number)
        answers = [""] * len(requests)
        self.progress.start("writing answers", len(requests))
        try:
            for decoding, numbers in groups.items():
                room = self.max_length - decoding.max_new_tokens
                if room < 1:
                    raise RunError(
                        f"answers of up to {decoding.max_new_tokens} tokens leave no room for a "
                        f"prompt in a context of {self.max_length}; the task says how long they "
                        "are, in generation_kwargs.max_gen_toks"
                    )
                prompts = []
                for number in numbers:
                    ids = self.tok_encode(requests[number].args[0])
                    prompts.append(self._cut(ids or [self.prefix_token_id], room))
                written = generate(
                    self.model,
                    prompts,
                    decoding,
                    batch_tokens=self.batch_tokens,
                    advance=self.progress.advance,
                )
                for number, answer in zip(numbers, written, strict=True):
                    answers[number] = answer.text
        finally:
            self.progress.finish()
        return answers

    def _decoding(self, arguments: Mapping[str, Any]) -> Decoding:
        """A task's ``generation_kwargs``, which are named as transformers' or as the harness's."""
        left = dict(arguments)
        lengths = [value for name in _LENGTHS if (value := left.pop(name, None)) is not None]
        until = left.pop("until", None) or []
        until = [until] if isinstance(until, str) else list(until)
        temperature = float(left.pop("temperature", None) or 0.0)
        sample = left.pop("do_sample", None)
        if sample and not temperature:
            raise ConfigError("a task's generation_kwargs: do_sample needs a temperature above 0")
        if sample is False:
            temperature = 0.0
        top_p = 1.0
        if temperature:
            top_p = float(left.pop("top_p", None) or 1.0)
        else:
            left = {name: value for name, value in left.items() if name not in _SAMPLING}
        if left.get("num_beams") == 1:
            del left["num_beams"]
        if left:
            named = ", ".join(f"{name}={value!r}" for name, value in left.items())
            raise ConfigError(f"a task's generation_kwargs: {named} is not supported")
        end = self.eot_token_id
        stops = [*until, *([] if end is None else [self.tokenizer.decode(end)])]
        return Decoding(
            max_new_tokens=int(lengths[0]) if lengths else MAX_NEW_TOKENS,
            stop=tuple(stop for stop in stops if stop),
            temperature=temperature,
            top_p=top_p,
            seed=self.seed,
        )


def _context_length(model: AdaptedModel) -> int:
    """Positions of the model, or what its tokenizer says, or ``HFLM``'s default."""
    told = model.backbone.context_length
    if told is None:
        told = getattr(model.backbone.tokenizer, "model_max_length", None)
    # Tokenizers without a limit say 1e30.
    return NO_LIMIT if told is None or told > 1 << 40 else int(told)
