"""The fields that sentences belong to: sports, science, food.

A field is what people call the themes of the lexicon: `lexicon/fields.tsv` names each theme by one
or two common words, and several themes may share one (physics and chemistry are science too).
Which fields a sentence belongs to is found as everything else is, by nearness: of its vector to
the vectors of a theme's words in all the languages. No sentence is labelled by hand.

Words near a sentence say what it is about in its own terms. People, and tasks, ask in general ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from pretraining.answers import NEAR, Answers, Key, Soft, vectors_of
from pretraining.embeddings import Array, Embeddings, unit_rows
from pretraining.languages import CODES
from pretraining.lexicon import FOLDER, read_lexicon

TEMPERATURE = 0.06
"""Of the softmax over themes."""


@dataclass
class Fields:
    """Field words, and the share of each in every sentence.

    Attributes:
        words: English words.
        tokens: the first token of each, with the space before it.
        of: by source, [N, fields], rows that add up to 1.
    """

    words: list[str]
    tokens: list[int]
    of: dict[str, Array]

    def soft(self, key: Key) -> Soft:
        """The `NEAR` most probable fields of a sentence, as a distribution over tokens."""
        share = self.of[key[0]][key[1]]
        best = np.argsort(-share)[:NEAR].tolist()
        total = float(share[best].sum())
        return [(self.tokens[i], float(share[i]) / total) for i in best]

    def label(self, rng: random.Random, key: Key) -> int:
        """A field to sort a sentence under."""
        share = self.of[key[0]][key[1]].tolist()
        return rng.choices(range(len(share)), share)[0]

    def shares(self, key: Key, options: Sequence[int]) -> list[float]:
        """Probability of each of a few fields, were one of them to be chosen for a sentence."""
        share = self.of[key[0]][key[1]][options] + 1e-6
        return [float(each) for each in share / share.sum()]


def read_fields() -> dict[str, list[str]]:
    """The words of every theme that has some; themes of mere actions or qualities have none."""
    lines = (FOLDER / "fields.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {theme: words.split(", ") for theme, words in rows}


def find_fields(answers: Answers, tokenizer: Tokenizer, embeddings: Embeddings) -> Fields:
    """Compute the fields of every sentence that `answers` knows."""
    named = read_fields()
    lexicon = read_lexicon()
    unknown = named.keys() - {theme for theme, _ in lexicon}
    if unknown:
        raise ValueError(f"{FOLDER / 'fields.tsv'}: no such themes: {sorted(unknown)}")
    names = list(dict.fromkeys(name for words in named.values() for name in words))
    encoded = tokenizer.encode_batch([" " + name for name in names], add_special_tokens=False)
    # [themes, fields]: a theme's share is divided among its words
    naming = np.array([[float(name in words) for name in names] for words in named.values()])
    naming /= naming.sum(axis=1, keepdims=True)
    centres = []
    for theme in named:
        concepts = [
            unit_rows(
                vectors_of(
                    [form for code in CODES for form in forms[code]], tokenizer, embeddings
                ).mean(axis=0, keepdims=True)
            )
            for own, forms in lexicon
            if own == theme
        ]
        centres.append(unit_rows(np.mean(concepts, axis=0))[0])
    themes = np.array(centres)
    themes = unit_rows(themes - themes.mean(axis=0))
    shares = {}
    for source, near in answers.near.items():
        score = near.points @ themes.T
        # Some themes are near to everything.
        score -= score.mean(axis=0)
        share = np.exp((score - score.max(axis=1, keepdims=True)) / TEMPERATURE)
        share /= share.sum(axis=1, keepdims=True)
        shares[source] = np.asarray(share @ naming, dtype=np.float32)
    return Fields(names, [encoding.ids[0] for encoding in encoded], shares)
