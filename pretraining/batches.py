"""Packing documents into rows; every batch depends on the seed and the step alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pretraining.documents import Document, Writer
from pretraining.tokenizer import BOS_ID, EOS_ID, PAD_ID


@dataclass(frozen=True)
class Batch:
    """Packed rows, B rows of T tokens.

    Attributes:
        tokens: [B, T].
        positions: [B, T], from 0 in every document.
        mask: [B, 1, T, T] bool, true where a query may look: earlier in its own document.
        scored: [S] flat positions whose next token is predicted.
        targets: [S] those next tokens.
        weights: [S] 1, or more for an answer.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    scored: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Packer:
    """Makes the batch of a step."""

    writer: Writer
    tokenizer: Tokenizer
    rows: int = 16
    length: int = 256
    sentence_share: float = 0.25
    """Share of the positions outside answers that are scored: full logits at all of them
    would cost more than the decoder itself."""
    answer_weight: float = 1.5
    seed: int = 0

    def _encode(self, document: Document) -> tuple[list[int], list[bool]]:
        ids, answer = [BOS_ID], [False]
        for text, is_answer in document:
            piece = self.tokenizer.encode(text, add_special_tokens=False).ids
            ids += piece
            answer += [is_answer] * len(piece)
        ids.append(EOS_ID)
        answer.append(document[-1][1])
        return ids, answer

    def batch(self, step: int) -> Batch:
        """The batch of `step`: documents are put whole into the first row with room."""
        rng = random.Random(f"{self.seed}-{step}")
        rows: list[list[tuple[list[int], list[bool]]]] = [[] for _ in range(self.rows)]
        room = [self.length] * self.rows
        misses = 0
        while misses < 12:
            document = self._encode(self.writer.write(rng))
            size = len(document[0])
            row = next((r for r in range(self.rows) if room[r] >= size), None)
            if row is None:
                misses += 1
                continue
            rows[row].append(document)
            room[row] -= size
        return self._tensors(rows, rng)

    def _tensors(self, rows: list[list[tuple[list[int], list[bool]]]], rng: random.Random) -> Batch:
        shape = (self.rows, self.length)
        tokens = torch.full(shape, PAD_ID)
        positions = torch.zeros(shape, dtype=torch.long)
        owner = torch.full(shape, -1)
        scored: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        for r, documents in enumerate(rows):
            at = 0
            for number, (ids, answer) in enumerate(documents):
                end = at + len(ids)
                tokens[r, at:end] = torch.tensor(ids)
                positions[r, at:end] = torch.arange(len(ids))
                owner[r, at:end] = number
                for i in range(len(ids) - 1):
                    if answer[i + 1] or rng.random() < self.sentence_share:
                        scored.append(r * self.length + at + i)
                        targets.append(ids[i + 1])
                        weights.append(self.answer_weight if answer[i + 1] else 1.0)
                at = end
        causal = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        mask = (owner[:, :, None] == owner[:, None, :]) & causal
        return Batch(
            tokens,
            positions,
            mask[:, None],
            torch.tensor(scored),
            torch.tensor(targets),
            torch.tensor(weights),
        )
