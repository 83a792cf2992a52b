"""A frozen model forward and backward over packed examples: the floor of ``floor.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from polyprefix.training import TrainingExample

SHARED = 16
"""Tokens that examples share at least, for the shared part to be computed once."""


@dataclass
class Packed:
    """Groups of examples in one row.

    Attributes:
        ids: ``[1, T]``.
        positions: ``[1, T]``.
        pieces: of each group, where its shared tokens begin, then where each example's own begin,
            and where the last ends; of an example that is alone, where it begins and ends.
        reads: ``[N]`` places at which an answer's token is predicted.
        targets: ``[N]`` those tokens.
        seen: ``[N, T]``, what is seen from the places that are read.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    pieces: list[list[int]]
    reads: torch.Tensor
    targets: torch.Tensor
    seen: torch.Tensor


def groups_of(examples: Sequence[TrainingExample]) -> list[tuple[int, list[TrainingExample]]]:
    """Examples whose prompts begin alike, and how many tokens they share."""
    groups: list[tuple[int, list[TrainingExample]]] = []
    for example in sorted(examples, key=lambda item: item.prompt):
        # A prompt's last token is never shared: the first token of the answer is read there.
        own = len(example.prompt) - 1
        if groups:
            shared, members = groups[-1]
            pairs = zip(members[0].prompt, example.prompt, strict=False)
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            alike = min(alike, own, shared if len(members) > 1 else len(members[0].prompt) - 1)
            if alike >= max(SHARED, shared // 2):
                groups[-1] = (alike, [*members, example])
                continue
        groups.append((own, [example]))
    return groups


def pack(examples: Sequence[TrainingExample], budget: int, device: str) -> list[Packed]:
    """Groups laid out in rows of about ``budget`` tokens."""
    rows: list[tuple[list[int], list[int], list[list[int]], list[int], list[int]]] = []
    for shared, members in groups_of(examples):
        if not rows or len(rows[-1][0]) >= budget:
            rows.append(([], [], [], [], []))
        ids, positions, pieces, reads, targets = rows[-1]
        bounds = [len(ids)]
        alone = len(members) == 1
        if alone:
            shared = 0
        ids += members[0].prompt[:shared]
        positions += range(shared)
        for member in members:
            first = len(ids)
            bounds += [] if alone else [first]
            ids += [*member.prompt[shared:], *member.answer[:-1]]
            positions += range(shared, shared + len(ids) - first)
            reads += range(len(ids) - len(member.answer), len(ids))
            targets += member.answer
        pieces.append([*bounds, len(ids)])
    return [
        Packed(
            torch.tensor([ids], device=device),
            torch.tensor([positions], device=device),
            pieces,
            torch.tensor(reads, device=device),
            torch.tensor(targets, device=device),
            seen(pieces, reads, len(ids)).to(device),
        )
        for ids, positions, pieces, reads, targets in rows
    ]


def seen(pieces: Sequence[Sequence[int]], reads: Sequence[int], length: int) -> torch.Tensor:
    """``[N, T]``: what each place that is read sees: of its group what is shared, and its own."""
    found = torch.zeros(len(reads), length, dtype=torch.bool)
    for row, place in zip(found, reads, strict=True):
        start, *bounds = next(piece for piece in pieces if place < piece[-1])
        row[start : bounds[0]] = True
        own = max((bound for bound in bounds if bound <= place), default=start)
        row[own : place + 1] = True
        row[place + 1 :] = False
    return found


_pieces: list[list[int]] = []
"""Of the row that is being computed; transformers hands nothing of ours to attention."""


def attend(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of :class:`Packed`, as transformers calls it: ``[1, H, T, D] -> [1, T, H, D]``."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    bounds = [0, *sorted({bound for piece in _pieces for bound in piece} - {0})]
    lengths = [last - first for first, last in pairwise(bounds)]
    parts = [torch.split(states, lengths, dim=2) for states in (query, key, value)]
    own = dict(zip(bounds, zip(*parts, strict=True), strict=False))  # by where they begin
    found = []
    for start, *ends in _pieces:
        trunk = own[start]
        found.append(F.scaled_dot_product_attention(trunk[0], trunk[1], trunk[2], is_causal=True))
        for first in ends[:-1]:
            asked, keys, values = own[first]
            before, count = trunk[1].shape[2], asked.shape[2]
            mask = asked.new_ones(count, before + count, dtype=torch.bool).tril(before)
            found.append(
                F.scaled_dot_product_attention(
                    asked,
                    torch.cat([trunk[1], keys], dim=2),
                    torch.cat([trunk[2], values], dim=2),
                    attn_mask=mask,
                )
            )
    return torch.cat(found, dim=2).transpose(1, 2), None


def last_layer(layer: Any, hidden: torch.Tensor, angles: Any, row: Packed) -> torch.Tensor:
    """A decoder layer of Llama at the places that are read, ``[1, T, d] -> [1, N, d]``."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    key, value, query = (
        linear(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for linear, states in (
            (attention.k_proj, normed),
            (attention.v_proj, normed),
            (attention.q_proj, normed[:, row.reads]),
        )
    )
    _, key = apply_rotary_pos_emb(key, key, *angles)
    query, _ = apply_rotary_pos_emb(query, query, *(angle[:, row.reads] for angle in angles))
    repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=row.seen)
    hidden = hidden[:, row.reads] + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    own: torch.Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return own


class Floor:
    """The frozen model of a folder, differentiated from layer ``lowest`` on."""

    def __init__(self, folder: str, lowest: int, device: str) -> None:
        AttentionInterface.register("floor", attend)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="floor"
        )
        self.model, self.lowest = model.to(device).requires_grad_(False), lowest

    def __call__(self, rows: Sequence[Packed]) -> float:
        """Forward and backward of all rows; the mean loss of their labelled tokens."""
        tokens = sum(len(row.targets) for row in rows)
        decoder, total = self.model.model, 0.0
        for row in rows:
            _pieces[:] = row.pieces
            hidden = decoder.embed_tokens(row.ids)
            angles = decoder.rotary_emb(hidden, row.positions)
            for number, layer in enumerate(decoder.layers):
                if number == self.lowest:
                    hidden = hidden.detach().requires_grad_()
                if number == len(decoder.layers) - 1:
                    hidden = last_layer(layer, hidden, angles, row)
                else:
                    hidden = layer(hidden, attention_mask=None, position_embeddings=angles)
            logits = self.model.lm_head(decoder.norm(hidden)[0])
            loss = F.cross_entropy(logits, row.targets, reduction="sum") / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total
