"""Decoding, a step at a time: a batch that rows join and leave between steps.

:mod:`polyprefix.evaluation.generation` answers a list of prompts with it, and a server answers what
comes in. A row is a prompt with an answer that grows; rows may carry different adapters and be
decoded differently. A step computes one token a row, and the head at those places only.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from polyprefix.methods import AdaptedModel
from polyprefix.models.budget import training_tokens
from polyprefix.models.cache import TextCache


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are written.

    Attributes:
        max_new_tokens: at most.
        stop: an answer ends before the first of these strings.
        temperature: 0 takes the most probable token; otherwise logits are divided by it.
        top_p: sample from the most probable tokens that have this share together (Holtzman et al.
            2020, arXiv 1904.09751).
        seed: of sampling, with the prompt's own tokens: neither the size of batches nor the order
            of prompts changes an answer.
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The natural log-probability of a token that was written, before temperature and top_p, and of
    the most probable ones at its place, most probable first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(slots=True, eq=False)
class Row:
    """A prompt that is being answered.

    Attributes:
        ids: of the prompt, soft tokens included.
        decoding: how it is answered.
        adapter: the one it carries, ``None`` for none.
        generator: what sampling draws from.
        logprobs: keep log-probabilities, with those of so many of the most probable tokens.
        shared: tokens at the start of ``ids`` that other rows which join with it may have too.
        new: tokens of the answer.
        text: the answer, without what stops it.
        done: it was stopped (by a stop string or the end-of-text token), or is wanted no more.
        kept: log-probabilities of ``new``.
    """

    ids: list[int]
    decoding: Decoding
    adapter: str | None
    generator: torch.Generator | None
    logprobs: int | None = None
    shared: int = 0
    new: list[int] = field(default_factory=list)
    text: str = ""
    done: bool = False
    kept: list[TokenLogprob] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: AdaptedModel,
        prompt: list[int],
        decoding: Decoding,
        adapter: str | None,
        *,
        logprobs: int | None = None,
    ) -> Row:
        """A row of a prompt without soft tokens, under an adapter of the model or none."""
        ids = list(prompt) if adapter is None else model.wrap(prompt, adapter)
        return cls(ids, decoding, adapter, _generator(decoding, prompt), logprobs)

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.ids) + len(self.new)

    @property
    def left(self) -> int:
        """Tokens that may still be written."""
        return 0 if self.done else self.decoding.max_new_tokens - len(self.new)


def _generator(decoding: Decoding, ids: list[int]) -> torch.Generator | None:
    if decoding.temperature == 0:
        return None
    named = hashlib.sha256(repr((decoding.seed, ids)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(named[:8], "big") >> 1)


class RunningBatch:
    """Rows that are answered together.

    Between calls the last token of every answer is not in the cache yet: :meth:`join` runs prompts
    and writes the first token of each, :meth:`step` runs those tokens and writes the next.

    Args:
        model: in evaluation mode. Calls belong under ``torch.inference_mode``.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self.model = model
        self.rows: list[Row] = []
        self._ends = _ends(model.backbone.tokenizer, model.backbone.model)
        self._cache = TextCache(0, 0)
        self._mask = torch.zeros(0, 0)

    @property
    def going(self) -> bool:
        """Whether any row is not finished."""
        return any(row.left for row in self.rows)

    def admit(self, waiting: deque[Row], tokens: int, most: int | None = None) -> list[Row]:
        """Take those from the head of a queue that have room beside the rows that are not finished;
        one at least where there are none.

        Args:
            waiting: they leave it, and are to join.
            tokens: columns of the cache times rows, at most.
            most: rows.
        """
        running = [row for row in self.rows if row.left]
        count, (text, left) = len(running), _longest(running)
        chosen: list[Row] = []
        while waiting:
            row = waiting[0]
            count, text, left = count + 1, max(text, row.length), max(left, row.left)
            if count > 1 and (count * (text + left) > tokens or (most and count > most)):
                break
            chosen.append(waiting.popleft())
        return chosen

    def join(self, rows: Sequence[Row]) -> None:
        """Run the prompts of new rows and write the first token of each.

        Prompts run with others of about their length, as many as fill the device: they need little
        padding. Keys and values of rows that are there already are copied once; rows that are
        finished leave.
        """
        if not self.going:
            self.rows, self._cache = [], TextCache(0, 0)
        parts: list[tuple[TextCache, torch.Tensor]] = []
        joining: list[Row] = []
        for some in alike(rows, self.model.backbone.device):
            logits, cache, mask = self.prefill(some)
            self._write(some, logits)
            parts.append((cache, mask))
            joining += some
        if self.going:
            self._keep([place for place, row in enumerate(self.rows) if row.left])
            parts.insert(0, (self._cache, self._mask))
        self.rows = [*self.rows, *joining]
        # Columns that only rows had which have left.
        skips = [_unused(mask) for _, mask in parts]
        kept = [mask[:, skip:] for (_, mask), skip in zip(parts, skips, strict=True)]
        filled = max(mask.shape[1] for mask in kept)
        left = max(row.left for row in self.rows)
        caches = [cache for cache, _ in parts]
        self._cache = TextCache.joined(list(zip(caches, skips, strict=True)), filled + left)
        self._mask = torch.cat([_aligned(mask, filled) for mask in kept])

    def step(self) -> None:
        """Write the next token of every row that is not finished."""
        left = [place for place, row in enumerate(self.rows) if row.left]
        if not left:
            self.rows = []
            return
        if 2 * len(left) <= len(self.rows):  # each removal halves the batch: few copies in all
            self._keep(left)
        mask = self._mask
        self._mask = mask = torch.cat([mask, mask.new_ones(len(self.rows), 1)], dim=1)
        last = [row.new[-1] if row.new else self._ends[0] for row in self.rows]
        output = self.model(
            torch.tensor(last, device=mask.device)[:, None],
            mask,
            adapters=[row.adapter for row in self.rows],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._write(self.rows, output.logits[:, -1])

    def _keep(self, places: list[int]) -> None:
        if len(places) < len(self.rows):
            kept = torch.tensor(places, device=self._mask.device)
            self._cache.choose(kept)
            self._mask = self._mask[kept]
            self.rows = [self.rows[place] for place in places]

    def _write(self, rows: list[Row], logits: torch.Tensor) -> None:
        """Add a token to each answer. ``logits``: ``[B, V]``."""
        tokens = _next_tokens(logits, rows)
        asked = [place for place, row in enumerate(rows) if row.left and row.logprobs is not None]
        found = _logprobs(logits, rows, tokens, asked)
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if row.left:
                before = len(row.new)
                _append(row, token, self._ends, self.model.backbone.tokenizer)
                if place in found and len(row.new) > before:
                    row.kept.append(found[place])

    def prefill(self, rows: list[Row]) -> tuple[torch.Tensor, TextCache, torch.Tensor]:
        """Run the prompts: logits ``[B, V]`` after them, the cache, and its mask ``[B, S]``."""
        model = self.model
        device = model.backbone.device
        own_stems = [(row.adapter, tuple(row.ids[: row.shared])) for row in rows]
        stems = list(dict.fromkeys(own_stems))
        rests = [row.ids[row.shared :] for row in rows]
        first, rest = max(len(ids) for _, ids in stems), max(map(len, rests))
        cache = TextCache(model.backbone.num_layers, first + rest)
        mask = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
        if first:
            ids, mask = _left_padded([ids for _, ids in stems], model.pad_id, device)
            nowhere = np.zeros(0, dtype=np.int64)
            names = [name for name, _ in stems]
            model(ids, mask, adapters=names, past_key_values=cache, use_cache=True, keep=nowhere)
            place = {stem: number for number, stem in enumerate(stems)}
            chosen = torch.tensor([place[stem] for stem in own_stems], device=device)
            cache.choose(chosen)
            mask = mask[chosen]
        ids, own_mask = _left_padded(rests, model.pad_id, device)
        mask = torch.cat([mask, own_mask], dim=1)
        last = np.arange(1, len(rows) + 1) * ids.shape[1] - 1
        names = [row.adapter for row in rows]
        logits = model(
            ids, mask, adapters=names, past_key_values=cache, use_cache=True, keep=last
        ).logits
        return logits, cache, mask


def _ends(tokenizer: Any, model: Any) -> list[int]:
    """Tokens that end a text: the tokenizer's, and those of the model's own configuration."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [getattr(tokenizer, "eos_token_id", None)]
    found += ends if isinstance(ends, list) else [ends]
    return [token for token in dict.fromkeys(found) if token is not None] or [-1]


def columns(rows: Iterable[Row]) -> int:
    """Columns that a cache needs for rows that are not finished: texts end together, so the longest
    text and the longest rest may be of different rows."""
    return sum(_longest(rows))


def _longest(rows: Iterable[Row]) -> tuple[int, int]:
    """The longest text, and the longest that is still to be written."""
    found = [(row.length, row.left) for row in rows]
    return max((length for length, _ in found), default=0), max((n for _, n in found), default=0)


def alike(rows: Sequence[Row], device: torch.device) -> Iterator[list[Row]]:
    """Parts of rows that fill a device: rows that share their start are next to each other, and
    others by length."""
    filled = training_tokens(None, device)
    order = sorted(rows, key=lambda row: (row.shared, row.ids[: row.shared], len(row.ids)))
    part: list[Row] = []
    stems: set[tuple[str | int | None, ...]] = set()
    longest = 0
    for row in order:  # the last one's shared part is the longest so far
        stem, rest = (row.adapter, *row.ids[: row.shared]), len(row.ids) - row.shared
        size = row.shared * len(stems | {stem}) + max(longest, rest) * (len(part) + 1)
        if part and size > filled:
            yield part
            part, stems, longest = [], set(), 0
        part.append(row)
        stems.add(stem)
        longest = max(longest, rest)
    if part:
        yield part


def _unused(mask: torch.Tensor) -> int:
    """Leading columns of ``[B, S]`` that are padding in every row."""
    return int(mask.any(dim=0).int().argmax())


def _aligned(mask: torch.Tensor, columns: int) -> torch.Tensor:
    """``[B, S] -> [B, columns]``, padded on the left."""
    return torch.nn.functional.pad(mask, (columns - mask.shape[1], 0))


def _left_padded(
    texts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    for number, text in enumerate(texts):
        if text:
            ids[number, -len(text) :] = torch.tensor(text)
            mask[number, -len(text) :] = 1
    return ids.to(device), mask.to(device)


def _next_tokens(logits: torch.Tensor, rows: list[Row]) -> list[int]:
    places = [place for place, row in enumerate(rows) if row.generator is not None]
    if not places:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    tokens = [0] * len(rows)
    if len(places) < len(rows):
        tokens = logits.argmax(-1).tolist()
        logits = logits[places]
    decodings = [rows[place].decoding for place in places]
    temperature, top_p = (
        torch.tensor(values, device=logits.device)[:, None]
        for values in ([d.temperature for d in decodings], [d.top_p for d in decodings])
    )
    total, candidates = to_draw_from(logits, temperature, top_p)
    drawn = torch.tensor([float(torch.rand((), generator=rows[p].generator)) for p in places])
    aim = drawn.to(total.device)[:, None] * total[:, -1:]
    place = torch.searchsorted(total, aim, right=True).clamp_max(total.shape[1] - 1)
    for which, token in zip(places, candidates.gather(1, place)[:, 0].tolist(), strict=True):
        tokens[which] = token
    return tokens


def to_draw_from(
    logits: torch.Tensor, temperature: torch.Tensor | float, top_p: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cumulated probabilities of the tokens that may be drawn, the most probable first, and which
    tokens these are, ``[B, V]`` both. ``temperature`` and ``top_p``: ``[B, 1]``, or of all."""
    shares = torch.softmax(logits.float() / temperature, dim=-1)
    ordered, candidates = shares.sort(dim=-1, descending=True)
    total = ordered.cumsum(-1)
    # The token that crosses top_p still counts.
    ordered = ordered.masked_fill(total - ordered >= top_p, 0.0)
    return ordered.cumsum(-1), candidates


def _logprobs(
    logits: torch.Tensor, rows: list[Row], tokens: list[int], places: list[int]
) -> dict[int, TokenLogprob]:
    """Of the rows at ``places``."""
    if not places:
        return {}
    shares = logits[places].float().log_softmax(-1)
    chosen = torch.tensor([tokens[place] for place in places], device=logits.device)
    own = shares.gather(1, chosen[:, None])[:, 0].tolist()
    most = max(rows[place].logprobs or 0 for place in places)
    values, best = shares.topk(most, dim=-1)
    found = {}
    for place, value, top, ids in zip(places, own, values.tolist(), best.tolist(), strict=True):
        wanted = list(zip(ids, top, strict=True))[: rows[place].logprobs]
        found[place] = TokenLogprob(tokens[place], value, tuple(wanted))
    return found


def _append(row: Row, token: int, ends: list[int], tokenizer: Any) -> None:
    """Add a token to an answer, and see whether it is finished."""
    if token in ends:
        row.done = True
        return
    row.new.append(token)
    row.text = tokenizer.decode(row.new, skip_special_tokens=True)
    stops = row.decoding.stop
    at = min((i for stop in stops if (i := row.text.find(stop)) >= 0), default=-1)
    if at >= 0:
        row.text = row.text[:at]
        row.done = True
