"""Decoding: answers written token by token, for every method by the same code.

Prompts are put in batches under a budget of tokens. What prompts of a batch share at their start,
a passage that several questions are about, is computed once; each row then gets a copy of its keys
and values. A step computes one token a row and the head at those places only; rows that are
finished leave the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from polyprefix.methods import AdaptedModel
from polyprefix.models.batching import common, groups
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


@dataclass(slots=True)
class _Row:
    """A prompt that is being answered."""

    number: int
    ids: list[int]
    generator: torch.Generator | None
    shared: int = 0
    new: list[int] = field(default_factory=list)
    text: str = ""
    done: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer: its text without what stops it, its tokens, and whether it was stopped (by a
    stop string or the end-of-text token) before it reached ``max_new_tokens``."""

    text: str
    tokens: int
    finished: bool


def generate(
    model: AdaptedModel,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    *,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Generated]:
    """Answer every prompt under the adapter in use.

    Args:
        model: put into evaluation mode for the call.
        prompts: token ids without soft tokens; they are put in here.
        decoding: how.
        batch_tokens: of one batch, prompts and answers with padding.
        advance: called with the number of answers that are done.

    Returns:
        The answers, in the order of ``prompts``.
    """
    rows = [
        _Row(number, model.wrap(ids), _generator(decoding, ids))
        for number, ids in enumerate(prompts)
    ]
    answers: list[Generated | None] = [None] * len(rows)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            # A window counts columns: the padding between a shared part and a shorter rest would
            # move what a query sees.
            sharing = model.backbone.sliding_window is None
            for batch in _batches(rows, decoding.max_new_tokens, batch_tokens, sharing=sharing):
                _answer(model, batch, decoding)
                for row in batch:
                    answers[row.number] = Generated(row.text, len(row.new), row.done)
                advance(len(batch))
    finally:
        model.train(training)
    return [answer for answer in answers if answer is not None]


def _generator(decoding: Decoding, ids: list[int]) -> torch.Generator | None:
    if decoding.temperature == 0:
        return None
    named = hashlib.sha256(repr((decoding.seed, ids)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(named[:8], "big") >> 1)


# Batches -----------------------------------------------------------------------------------------


def _batches(rows: list[_Row], new: int, budget: int, *, sharing: bool) -> list[list[_Row]]:
    """Rows that begin alike stand together; then batches of similar length, longest first."""
    together = groups([row.ids for row in rows]) if sharing else [[i] for i in range(len(rows))]
    alike = [[rows[i] for i in group] for group in together]
    for group in alike:
        # At least one token is left to each row: its logits begin the answer.
        shortest = min(len(row.ids) for row in group) - 1
        shared = min(common(group[0].ids, group[-1].ids), shortest) if len(group) > 1 else 0
        for row in group:
            row.shared = shared
    alike.sort(key=lambda group: (-max(len(row.ids) for row in group), group[0].number))
    batches: list[list[_Row]] = []
    longest = 0
    for row in (row for group in alike for row in group):
        # The longest shared part and the longest rest may be of different rows.
        size = max(longest, len(row.ids) + new)
        if batches and size * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
            longest = size
        else:
            batches.append([row])
            longest = len(row.ids) + new
    return batches


# One batch ---------------------------------------------------------------------------------------


def _answer(model: AdaptedModel, rows: list[_Row], decoding: Decoding) -> None:
    """Write the answers of a batch into its rows."""
    tokenizer = model.backbone.tokenizer
    ends = _ends(tokenizer, model.backbone.model)
    logits, cache, mask = _prefill(model, rows, decoding.max_new_tokens)
    alive = list(rows)
    for _ in range(decoding.max_new_tokens):
        tokens = _next_tokens(logits, alive, decoding)
        for row, token in zip(alive, tokens, strict=True):
            if not row.done:
                _append(row, token, ends, tokenizer, decoding)
        left = [place for place, row in enumerate(alive) if not row.done]
        if not left or len(alive[left[0]].new) == decoding.max_new_tokens:
            return
        if 2 * len(left) <= len(alive):  # each removal halves the batch: few copies in all
            kept = torch.tensor(left, device=mask.device)
            cache.choose(kept)
            mask = mask[kept]
            alive = [alive[place] for place in left]
        last = [row.new[-1] if row.new else ends[0] for row in alive]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        ids = torch.tensor(last, device=mask.device)[:, None]
        logits = model(ids, mask, past_key_values=cache, use_cache=True).logits[:, -1]


def _ends(tokenizer: Any, model: Any) -> list[int]:
    """Tokens that end a text: the tokenizer's, and those of the model's own configuration."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [getattr(tokenizer, "eos_token_id", None)]
    found += ends if isinstance(ends, list) else [ends]
    return [token for token in dict.fromkeys(found) if token is not None] or [-1]


def _prefill(
    model: AdaptedModel, rows: list[_Row], new: int
) -> tuple[torch.Tensor, TextCache, torch.Tensor]:
    """Run the prompts: logits ``[B, V]`` after them, the cache, and its mask ``[B, S]``."""
    device = model.backbone.device
    stems = list(dict.fromkeys(tuple(row.ids[: row.shared]) for row in rows))
    rests = [row.ids[row.shared :] for row in rows]
    first, rest = max(map(len, stems)), max(map(len, rests))
    cache = TextCache(model.backbone.num_layers, first + rest + new)
    mask = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
    if first:
        ids, mask = _left_padded(stems, model.pad_id, device)
        nowhere = torch.zeros(0, dtype=torch.long, device=device)
        model(ids, mask, past_key_values=cache, use_cache=True, keep=nowhere)
        place = {stem: number for number, stem in enumerate(stems)}
        own = [place[tuple(row.ids[: row.shared])] for row in rows]
        chosen = torch.tensor(own, device=device)
        cache.choose(chosen)
        mask = mask[chosen]
    ids, own_mask = _left_padded(rests, model.pad_id, device)
    mask = torch.cat([mask, own_mask], dim=1)
    last = torch.arange(1, len(rows) + 1, device=device) * ids.shape[1] - 1
    logits = model(ids, mask, past_key_values=cache, use_cache=True, keep=last).logits
    return logits, cache, mask


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


def _next_tokens(logits: torch.Tensor, rows: list[_Row], decoding: Decoding) -> list[int]:
    if decoding.temperature == 0:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    shares = torch.softmax(logits.float() / decoding.temperature, dim=-1)
    ordered, tokens = shares.sort(dim=-1, descending=True)
    total = ordered.cumsum(-1)
    # The token that crosses top_p still counts.
    ordered = ordered.masked_fill(total - ordered >= decoding.top_p, 0.0)
    total = ordered.cumsum(-1)
    drawn = torch.tensor([float(torch.rand((), generator=row.generator)) for row in rows])
    aim = drawn.to(total.device)[:, None] * total[:, -1:]
    place = torch.searchsorted(total, aim, right=True).clamp_max(total.shape[1] - 1)
    sampled: list[int] = tokens.gather(1, place)[:, 0].tolist()
    return sampled


def _append(row: _Row, token: int, ends: list[int], tokenizer: Any, decoding: Decoding) -> None:
    """Add a token to an answer, and see whether it is finished."""
    if token in ends:
        row.done = True
        return
    row.new.append(token)
    row.text = tokenizer.decode(row.new, skip_special_tokens=True)
    at = min((i for stop in decoding.stop if (i := row.text.find(stop)) >= 0), default=-1)
    if at >= 0:
        row.text = row.text[:at]
        row.done = True
