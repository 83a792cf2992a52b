"""What a sentence may be asked for: its content words, words near it, the topic it belongs to.

All of it comes from the text itself: word frequencies, and the vectors that the alignment of
all languages gives to every sentence. Nothing is labelled by hand.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans

from pretraining.embeddings import Array, Embeddings, ppmi, unit_rows
from pretraining.languages import ENGLISH
from pretraining.text import Corpus

_WORD = re.compile(r"[A-Za-z]{3,}(?![A-Za-z]*['’])")
Mask = npt.NDArray[np.bool_]
Key = tuple[str, int]
"""A group of aligned sentences: its source and its place there."""


@dataclass
class Answers:
    """English answers by group.

    Attributes:
        keywords: content words of the English sentence, rarest first.
        related: words whose vectors are near the sentence's, nearest first.
        topic: which of the topics it is nearest to.
        topics: names of each topic, the word nearest to its centre first.
    """

    keywords: dict[Key, list[str]] = field(default_factory=dict)
    related: dict[Key, list[str]] = field(default_factory=dict)
    topic: dict[Key, int] = field(default_factory=dict)
    topics: list[list[str]] = field(default_factory=list)


def _content_words(texts: list[str]) -> tuple[dict[str, int], list[str]]:
    """Content words with the number of sentences they are in, and those that are no names."""
    frequency: Counter[str] = Counter()
    capitals: Counter[str] = Counter()
    for text in texts:
        found = set(_WORD.findall(text))
        frequency.update({word.lower() for word in found})
        capitals.update({word.lower() for word in found if word[0].isupper()})
    # Sorted, ties by the word: the order of a set is another one in every process.
    common = set(sorted(frequency, key=lambda word: (-frequency[word], word))[:250])
    content = {w: n for w, n in frequency.items() if n >= 4 and w not in common}
    # Names say where a sentence happens, seldom what it is about.
    general = [w for w, n in content.items() if n >= 12 and capitals[w] < 0.5 * n]
    return content, sorted(general)


def _occurrences(texts: list[str], words: list[str]) -> csr_matrix:
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


def _topical(occurrences: csr_matrix, sentences: Array, keep: float) -> Mask:
    """Which words stand in sentences that resemble each other: `already` does not."""
    count = np.asarray(occurrences.sum(axis=1)).ravel()
    resultant = np.linalg.norm(occurrences @ sentences, axis=1) / np.sqrt(count)
    return np.asarray(resultant >= np.quantile(resultant, 1 - keep))


def find_answers(corpus: Corpus, embeddings: Embeddings, topics: int, seed: int) -> Answers:
    """Compute keywords, related words and topics of every aligned sentence."""
    keys = [(source, i) for source, groups in corpus.groups.items() for i in range(len(groups))]
    texts = [corpus.groups[source][i][ENGLISH] for source, i in keys]
    content, words = _content_words(texts)
    sentences = unit_rows(embeddings.sentences - embeddings.sentences.mean(axis=0))

    occurrences = _occurrences(texts, words)
    chosen = np.flatnonzero(_topical(occurrences, sentences, keep=0.6))
    words = [words[i] for i in chosen]
    occurrences = occurrences[chosen]
    vectors = unit_rows(np.asarray(ppmi(occurrences) @ sentences, dtype=np.float32))
    vectors = unit_rows(vectors - vectors.mean(axis=0))
    # A sentence is its own vector and those of its words: a short one says little by itself.
    means = unit_rows(np.asarray(occurrences.T @ vectors, dtype=np.float32))
    points = unit_rows(means + 0.5 * sentences)

    answers = Answers()
    # Some words are near to everything; without their mean nearness they would answer it all.
    hub = (points[:: max(1, len(keys) // 4000)] @ vectors.T).mean(axis=0)
    for start in range(0, len(keys), 4096):
        score = points[start : start + 4096] @ vectors.T - hub
        best = np.argsort(-score, axis=1)[:, :8]
        for row, key in enumerate(keys[start : start + 4096]):
            answers.related[key] = [words[i] for i in best[row]]
    for key, text in zip(keys, texts, strict=True):
        own = {w.lower() for w in _WORD.findall(text)} & content.keys()
        answers.keywords[key] = sorted(own, key=lambda w: (content[w], w))[:8]

    clusters = KMeans(topics, n_init=2, max_iter=60, random_state=seed)
    telling = np.asarray(occurrences.sum(axis=0)).ravel() >= 3
    clusters.fit(points[telling])
    centres = unit_rows(clusters.cluster_centers_.astype(np.float32))
    order = np.argsort(-(centres @ vectors.T - hub), axis=1)
    answers.topics = [[words[i] for i in row[:4]] for row in order]
    for key, cluster in zip(keys, clusters.predict(points), strict=True):
        answers.topic[key] = int(cluster)
    return answers
