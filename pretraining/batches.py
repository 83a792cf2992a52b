"""Packing documents into rows; every batch depends on the seed and the step alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pretraining.answers import NEAR, Soft
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
        soft: [N] places in `scored` where a distribution is expected in place of a token.
        soft_tokens: [N, K] the tokens of that distribution.
        soft_shares: [N, K] their probabilities, 0 where there are fewer than K.
        gist: [G] flat positions inside and at the end of sentences.
        gist_tokens: [G, K] what they should bring to mind.
        gist_shares: [G, K]
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    scored: Tensor
    targets: Tensor
    weights: Tensor
    soft: Tensor
    soft_tokens: Tensor
    soft_shares: Tensor
    gist: Tensor
    gist_tokens: Tensor
    gist_shares: Tensor


@dataclass(frozen=True)
class Encoded:
    """A document as tokens; `answer` says which belong to an answer, `soft` what is expected in
    place of the token at a position, `gist` what the state at a position should bring to mind."""

    ids: list[int]
    answer: list[bool]
    soft: dict[int, Soft]
    gist: dict[int, Soft]


@dataclass(frozen=True)
class Packer:
    """Makes the batch of a step."""

    writer: Writer
    tokenizer: Tokenizer
    rows: int = 16
    length: int = 256
    sentence_share: float = 0.12
    """Share of the positions outside answers that are scored: full logits at all of them
    would cost more than the decoder itself."""
    answer_weight: float = 2.0
    seed: int = 0

    def _encode(self, document: Document, rng: random.Random) -> Encoded:
        ids, answer = [BOS_ID], [False]
        soft: dict[int, Soft] = {}
        gist: dict[int, Soft] = {}
        for segment in document:
            if segment.soft is not None:
                soft[len(ids)] = segment.soft
            piece = self.tokenizer.encode(segment.text, add_special_tokens=False).ids
            ids += piece
            if segment.gist is not None:
                # At the end all has been read; somewhere in the second half, most of it.
                gist[len(ids) - 1] = segment.gist
                gist[len(ids) - 1 - rng.randrange((len(piece) + 1) // 2)] = segment.gist
            answer += [segment.answer] * len(piece)
        ids.append(EOS_ID)
        answer.append(document[-1].answer)
        return Encoded(ids, answer, soft, gist)

    def batch(self, step: int) -> Batch:
        """The batch of `step`: documents are put whole into the first row with room."""
        rng = random.Random(f"{self.seed}-{step}")
        rows: list[list[Encoded]] = [[] for _ in range(self.rows)]
        room = [self.length] * self.rows
        misses = 0
        while misses < 12:
            document = self._encode(self.writer.write(rng), rng)
            size = len(document.ids)
            row = next((r for r in range(self.rows) if room[r] >= size), None)
            if row is None:
                misses += 1
                continue
            rows[row].append(document)
            room[row] -= size
        return self._tensors(rows, rng)

    def _tensors(self, rows: list[list[Encoded]], rng: random.Random) -> Batch:
        shape = (self.rows, self.length)
        tokens = torch.full(shape, PAD_ID)
        positions = torch.zeros(shape, dtype=torch.long)
        owner = torch.full(shape, -1)
        scored: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        soft: list[int] = []
        expected: list[Soft] = []
        gist: dict[int, Soft] = {}
        for r, documents in enumerate(rows):
            at = 0
            for number, document in enumerate(documents):
                size = len(document.ids)
                tokens[r, at : at + size] = torch.tensor(document.ids)
                positions[r, at : at + size] = torch.arange(size)
                owner[r, at : at + size] = number
                for i in range(1, size):
                    if not document.answer[i] and rng.random() >= self.sentence_share:
                        continue
                    if i in document.soft:
                        soft.append(len(scored))
                        expected.append(document.soft[i])
                    scored.append(r * self.length + at + i - 1)
                    targets.append(document.ids[i])
                    weights.append(self.answer_weight if document.answer[i] else 1.0)
                gist |= {r * self.length + at + i: words for i, words in document.gist.items()}
                at += size
        causal = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        mask = (owner[:, :, None] == owner[:, None, :]) & causal
        return Batch(
            tokens,
            positions,
            mask[:, None],
            torch.tensor(scored),
            torch.tensor(targets),
            torch.tensor(weights),
            torch.tensor(soft, dtype=torch.long),
            *_distributions(expected),
            torch.tensor(list(gist), dtype=torch.long),
            *_distributions(list(gist.values())),
        )


def _distributions(expected: list[Soft]) -> tuple[Tensor, Tensor]:
    """[N, K] tokens and [N, K] probabilities."""
    tokens = torch.zeros(len(expected), NEAR, dtype=torch.long)
    shares = torch.zeros(len(expected), NEAR)
    for n, distribution in enumerate(expected):
        ids, probabilities = zip(*distribution, strict=True)
        tokens[n, : len(ids)] = torch.tensor(ids)
        shares[n, : len(ids)] = torch.tensor(probabilities)
    return tokens, shares
