"""Whole English words as single tokens, added to a BPE tokenizer after it was trained.

Eighteen languages share the vocabulary, so BPE alone leaves ` sports` as ` sp`, `orts`. Answers
and labels are English words: as one token, a word has a vector that means it, and the position
that answers can be read by that vector alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

from tokenizers import Tokenizer

from pretraining.languages import ENGLISH
from pretraining.text import Corpus

_WORD = re.compile(r"\b[a-z]{3,}\b")


def frequent_words(corpus: Corpus, at_least: int) -> list[str]:
    """English words of the corpus, lower case, the most frequent first."""
    counts: Counter[str] = Counter()
    for groups in corpus.groups.values():
        for group in groups:
            counts.update(_WORD.findall(group[ENGLISH]))
    for sentence in corpus.monolingual[ENGLISH]:
        counts.update(_WORD.findall(sentence))
    chosen = [word for word, n in counts.items() if n >= at_least]
    return sorted(chosen, key=lambda word: (-counts[word], word))


def _apply(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """BPE over `pieces` with the added merges, the earliest first."""
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, 1 << 30))
        if best not in ranks:
            break
        at = pairs.index(best)
        pieces = [*pieces[:at], best[0] + best[1], *pieces[at + 2 :]]
    return pieces


def add_words(tokenizer: Tokenizer, words: list[str], limit: int) -> Tokenizer:
    """Append the merges that make ` word` one token, until `limit` tokens were added.

    They come after every merge that was learned, so what BPE learned is applied first.
    """
    state = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    merges: list[list[str]] = state["model"]["merges"]
    full = len(vocabulary) + limit
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = tokenizer.encode(" " + word, add_special_tokens=False).tokens
        pieces = _apply(pieces, ranks)
        if len(vocabulary) + len(pieces) - 1 > full:
            break
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            vocabulary.setdefault(pair[0] + pair[1], len(vocabulary))
            ranks[pair] = len(ranks)
            merges.append([*pair])
            pieces = _apply(pieces, ranks)
    return Tokenizer.from_str(json.dumps(state))
