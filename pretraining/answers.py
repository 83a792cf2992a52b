"""What a sentence may be asked for: its content words, the words near it, its topic.

All of it comes from the text itself: word frequencies, and the vectors that the alignment of
all languages gives to sentences and tokens. Nothing is labelled by hand.

The words near a sentence are a distribution and not a choice: the decoder learns from all of it
at one position, the end of the cue, so a sentence teaches as much as many samples would.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from tokenizers import Tokenizer

from pretraining.embeddings import Array, Embeddings, ppmi, unit_rows
from pretraining.languages import CODES, ENGLISH
from pretraining.text import Corpus

_WORD = re.compile(r"[A-Za-z]{3,}(?![A-Za-z]*['’])")
NEAR = 24
"""Words in the distribution over words near a sentence."""
TOPICAL = 0.5
"""Share of the general content words, the most topical, that may be near a sentence."""
TEMPERATURE = 0.12
"""Of the softmax that makes nearness a distribution."""
CHOICE_TEMPERATURE = 0.1
"""Likewise, for the choice among a few words."""

MONOLINGUAL = "monolingual/"
"""Source of a sentence without translation: this and its language."""

Ids = npt.NDArray[np.int64]
Soft = list[tuple[int, float]]
"""Tokens and their probabilities."""
Key = tuple[str, int]
"""A sentence: its source (a group of aligned sentences, or `monolingual/<code>`), its place."""


@dataclass
class Near:
    """The words near to each sentence of one source, the nearest first.

    Attributes:
        points: [N, meaning] unit vectors of the sentences.
        words: [N, NEAR] indices into `Answers.words`.
        shares: [N, NEAR] their probabilities.
        topic: [N] the topic nearest to the sentence.
    """

    points: Array
    words: Ids
    shares: Array
    topic: Ids


@dataclass
class Answers:
    """English answers.

    Attributes:
        words: single-token words that may be answers.
        tokens: the token of each, with the space before it.
        vectors: [words, meaning] their unit vectors.
        hub: [words] their mean nearness to English sentences: some words are near to everything,
            and would answer it all if this were not taken away.
        near: by source.
        keywords: content words of aligned sentences that are single tokens, rarest first.
        keyword_tokens: the token of each keyword.
        topics: words that name each topic, the nearest to its centre first.
    """

    words: list[str]
    tokens: list[int]
    vectors: Array
    hub: Array
    near: dict[str, Near] = field(default_factory=dict)
    keywords: dict[Key, list[str]] = field(default_factory=dict)
    keyword_tokens: dict[str, int] = field(default_factory=dict)
    topics: list[list[int]] = field(default_factory=list)

    def soft(self, key: Key) -> Soft:
        """The words near a sentence, as a distribution over tokens."""
        near = self.near[key[0]]
        tokens = (self.tokens[word] for word in near.words[key[1]].tolist())
        return list(zip(tokens, near.shares[key[1]].tolist(), strict=True))

    def nearest(self, key: Key, count: int) -> list[str]:
        """The words nearest to a sentence."""
        source, place = key
        return [self.words[i] for i in self.near[source].words[place, :count]]

    def label(self, rng: random.Random, key: Key) -> int:
        """A word to sort a sentence under: a name of its topic, or a word near to it."""
        source, place = key
        near = self.near[source]
        if rng.random() < 0.5:
            return rng.choice(self.topics[int(near.topic[place])])
        return int(near.words[place, rng.randrange(4)])

    def shares(self, key: Key, options: Sequence[int]) -> list[float]:
        """Probability of each of a few words, were one of them to be chosen for a sentence."""
        source, place = key
        score = self.vectors[options] @ self.near[source].points[place] - self.hub[options]
        share = np.exp((score - score.max()) / CHOICE_TEMPERATURE)
        return [float(each) for each in share / share.sum()]


def single_token(tokenizer: Tokenizer, word: str) -> int | None:
    """The token of ` word`, or None where it is several."""
    ids = tokenizer.encode(" " + word, add_special_tokens=False).ids
    return ids[0] if len(ids) == 1 else None


def _content_words(texts: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Content words with the number of sentences they are in, and those that are no names."""
    frequency: Counter[str] = Counter()
    capitals: Counter[str] = Counter()
    for text in texts:
        found = set(_WORD.findall(text))
        frequency.update({word.lower() for word in found})
        capitals.update({word.lower() for word in found if word[0].isupper()})
    # Sorted, ties by the word: the order of a set is another one in every process.
    common = set(sorted(frequency, key=lambda word: (-frequency[word], word))[:300])
    content = {w: n for w, n in frequency.items() if n >= 4 and w not in common}
    # Names say where a sentence happens, seldom what it is about.
    general = [w for w, n in content.items() if n >= 12 and capitals[w] < 0.5 * n]
    return content, sorted(general)


def _occurrences(texts: Sequence[str], words: list[str]) -> csr_matrix:
    place = {word: i for i, word in enumerate(words)}
    pairs = {
        (place[word.lower()], column)
        for column, text in enumerate(texts)
        for word in _WORD.findall(text)
        if word.lower() in place
    }
    rows, columns = zip(*sorted(pairs), strict=True)
    ones = np.ones(len(rows), dtype=np.float32)
    return csr_matrix((ones, (rows, columns)), shape=(len(words), len(texts)))


def _topicality(occurrences: csr_matrix, sentences: Array) -> Array:
    """How much the sentences of each word resemble each other: those of `already` do not."""
    count = np.asarray(occurrences.sum(axis=1)).ravel()
    resultant = np.linalg.norm(occurrences @ sentences, axis=1) / np.sqrt(count)
    return np.asarray(resultant, dtype=np.float32)


def vectors_of(texts: Sequence[str], tokenizer: Tokenizer, embeddings: Embeddings) -> Array:
    """Unit vectors of texts by their tokens alone, common tokens weighted down."""
    weighted = embeddings.tokens * embeddings.salience[:, None]
    points = np.zeros((len(texts), weighted.shape[1]), dtype=np.float32)
    encoded = tokenizer.encode_batch([" " + text for text in texts], add_special_tokens=False)
    for row, encoding in enumerate(encoded):
        points[row] = weighted[encoding.ids].sum(axis=0)
    return unit_rows(points)


def _points_of_tokens(texts: Sequence[str], tokenizer: Tokenizer, embeddings: Embeddings) -> Array:
    """Unit vectors of sentences known by their tokens alone, their mean taken away."""
    points = vectors_of(texts, tokenizer, embeddings)
    return unit_rows(points - points.mean(axis=0))


def find_answers(
    corpus: Corpus, tokenizer: Tokenizer, embeddings: Embeddings, topics: int, seed: int
) -> Answers:
    """Compute what every sentence may be asked for."""
    keys = [(source, i) for source, groups in corpus.groups.items() for i in range(len(groups))]
    aligned = [corpus.groups[source][i][ENGLISH] for source, i in keys]
    english = [*aligned, *corpus.monolingual[ENGLISH]]
    content, general = _content_words(english)
    words = [word for word in general if single_token(tokenizer, word) is not None]

    # English sentences: those with translations by the vector all of them share, the others by
    # their tokens.
    shared = unit_rows(embeddings.sentences - embeddings.sentences.mean(axis=0))
    alone = _points_of_tokens(corpus.monolingual[ENGLISH], tokenizer, embeddings)
    sentences = np.concatenate([shared, alone])
    occurrences = _occurrences(english, words)
    topicality = _topicality(occurrences, sentences)
    chosen = np.flatnonzero(topicality >= np.quantile(topicality, 1 - TOPICAL))
    words = [words[i] for i in chosen]
    occurrences, topicality = occurrences[chosen], topicality[chosen]
    vectors = unit_rows(np.asarray(ppmi(occurrences) @ sentences, dtype=np.float32))
    vectors = unit_rows(vectors - vectors.mean(axis=0))
    # A sentence is its own vector and those of its words: a short one says little by itself.
    telling = vectors * (topicality[:, None] / topicality.mean()) ** 2
    means = unit_rows(np.asarray(occurrences.T @ telling, dtype=np.float32))
    points = unit_rows(means + sentences)

    clusters = KMeans(topics, n_init=2, max_iter=60, random_state=seed)
    clusters.fit(points[np.asarray(occurrences.sum(axis=0)).ravel() >= 3])
    centres = unit_rows(clusters.cluster_centers_.astype(np.float32))

    hub = (points[:: max(1, len(points) // 4000)] @ vectors.T).mean(axis=0)

    def near(points: Array) -> Near:
        found: list[Ids] = []
        shares: list[Array] = []
        own_hub = (points[:: max(1, len(points) // 4000)] @ vectors.T).mean(axis=0)
        for start in range(0, len(points), 4096):
            score = points[start : start + 4096] @ vectors.T - own_hub
            best = np.argsort(-score, axis=1)[:, :NEAR]
            value = np.take_along_axis(score, best, axis=1)
            share = np.exp((value - value[:, :1]) / TEMPERATURE)
            found.append(best)
            shares.append((share / share.sum(axis=1, keepdims=True)).astype(np.float32))
        topic = (points @ centres.T).argmax(axis=1)
        return Near(points, np.concatenate(found), np.concatenate(shares), topic)

    tokens = [single_token(tokenizer, word) for word in words]
    answers = Answers(words, [token for token in tokens if token is not None], vectors, hub)
    everything = near(points[: len(aligned)])
    start = 0
    for source, groups in corpus.groups.items():
        part = slice(start, start + len(groups))
        answers.near[source] = Near(
            everything.points[part],
            everything.words[part],
            everything.shares[part],
            everything.topic[part],
        )
        start += len(groups)
    for code in CODES:
        own = (
            points[len(aligned) :]
            if code == ENGLISH
            else _points_of_tokens(corpus.monolingual[code], tokenizer, embeddings)
        )
        answers.near[MONOLINGUAL + code] = near(own)
    for word in content:
        if (token := single_token(tokenizer, word)) is not None:
            answers.keyword_tokens[word] = token
    for key, text in zip(keys, aligned, strict=True):
        own_words = {w.lower() for w in _WORD.findall(text)} & answers.keyword_tokens.keys()
        answers.keywords[key] = sorted(own_words, key=lambda w: (content[w], w))[:8]
    order = np.argsort(-(centres @ vectors.T - hub), axis=1)
    answers.topics = [[int(i) for i in row[:3]] for row in order]
    return answers
