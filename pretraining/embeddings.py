"""Embeddings that are aligned across languages before any training.

A token is described by the aligned sentences it occurs in, whatever their language: positive
pointwise mutual information of token and sentence id, then a truncated SVD. After Levy,
Søgaard and Goldberg, "A Strong Baseline for Learning Cross-Lingual Word Embeddings from
Sentence Alignments" (EACL 2017).

Departures from the paper: tokens are BPE pieces, and a few dimensions are set apart for a token's
form: its language, and chance. A frequent token is mostly form and a rare one mostly meaning, at
the same length: a mean of rows, such as attention takes after its norm, weights meaning by rarity
(SIF, Arora, Liang and Ma, ICLR 2017), and the decoder still knows one frequent token from another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.utils.extmath import randomized_svd
from tokenizers import Tokenizer

from pretraining.languages import CODES
from pretraining.text import Corpus

Array = npt.NDArray[np.float32]
FORM = 32
"""Dimensions of a row, the last ones, that hold the token's form."""
MEANING = 0.95
"""Length of the meaning of the rarest tokens, of 1."""
SALIENCE = 3e-5
"""Relative frequency at which a token counts half in a mean of tokens."""


@dataclass(frozen=True)
class Embeddings:
    """The outcome of the alignment.

    Attributes:
        table: [V, d], unit rows; all but the last `FORM` columns hold meaning, times `salience`.
        sentences: [N, meaning], a unit vector of every aligned sentence, in the order of
            `corpus.groups`.
        tokens: [V, meaning], a unit vector of every token in the space of `sentences`; zeros for
            tokens too rare to have one.
        salience: [V], the weight of a token in a mean of tokens: near 1 for a rare one, near 0
            for a frequent one (SIF, Arora, Liang and Ma, ICLR 2017).
    """

    table: Array
    sentences: Array
    tokens: Array
    salience: Array


def unit_rows(vectors: Array) -> Array:
    """Each row divided by its length; rows of zeros stay."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-6), dtype=np.float32)


def _counts(corpus: Corpus, tokenizer: Tokenizer) -> tuple[csr_matrix, npt.NDArray[np.float64]]:
    """Token x sentence id counts, and token x language counts."""
    vocabulary = tokenizer.get_vocab_size()
    by_language = np.zeros((vocabulary, len(CODES)))
    rows: list[npt.NDArray[np.int64]] = []
    columns: list[npt.NDArray[np.int64]] = []
    offset = 0
    for groups in corpus.groups.values():
        for column, code in enumerate(CODES):
            present = [i for i, group in enumerate(groups) if code in group]
            texts = [" " + groups[i][code] for i in present]
            encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
            for i, encoding in zip(present, encoded, strict=True):
                ids, times = np.unique(np.asarray(encoding.ids), return_counts=True)
                by_language[ids, column] += times
                rows.append(ids)
                columns.append(np.full(len(ids), offset + i))
        offset += len(groups)
    row, column_ids = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(row), dtype=np.float32)
    return csr_matrix((ones, (row, column_ids)), shape=(vocabulary, offset)), by_language


def ppmi(counts: csr_matrix, smoothing: float = 0.75) -> csr_matrix:
    """Positive PMI with context distribution smoothing (Levy et al. 2015)."""
    token = np.asarray(counts.sum(axis=1)).ravel()
    context = np.asarray(counts.sum(axis=0)).ravel() ** smoothing
    context /= context.sum()
    coo = counts.tocoo()
    ratio = coo.data / (np.maximum(token[coo.row], 1) * np.maximum(context[coo.col], 1e-12))
    values = np.maximum(np.log(ratio), 0).astype(np.float32)
    matrix = csr_matrix((values, (coo.row, coo.col)), shape=counts.shape)
    matrix.eliminate_zeros()
    return matrix


def _centred(
    vectors: npt.NDArray[np.float64],
    by_language: npt.NDArray[np.float64],
    share: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
) -> Array:
    """Unit vectors, each language's mean taken away; zeros for tokens not `known`.

    A language with little aligned text has vectors that share a large common part, which says
    where its text came from and not what it means.
    """
    unit = unit_rows(vectors.astype(np.float32))
    for column in range(share.shape[1]):
        own = (share[:, column] > 0.5) & known
        weight = np.sqrt(by_language[own, column]).astype(np.float32)
        if weight.sum() > 0:
            unit[own] -= (unit[own] * weight[:, None]).sum(axis=0) / weight.sum()
    unit[~known] = 0.0
    return unit_rows(unit)


def _forms(share: npt.NDArray[np.float64], rng: np.random.Generator) -> Array:
    """[V, FORM] unit vectors: one direction that all tokens share, so that a state can ask for a
    frequent one, a dimension for each language [V, languages], and chance."""
    vocabulary, languages = share.shape
    chance = unit_rows(rng.normal(size=(vocabulary, FORM - languages - 1)).astype(np.float32))
    return unit_rows(np.concatenate([np.ones((vocabulary, 1)), share, chance], axis=1))


def aligned_embeddings(
    corpus: Corpus, tokenizer: Tokenizer, width: int, seed: int, rare: int = 3
) -> Embeddings:
    """Build the table; tokens seen in fewer than `rare` sentences are all form."""
    counts, by_language = _counts(corpus, tokenizer)
    meaning = width - FORM
    left, singular, right = randomized_svd(ppmi(counts), meaning, n_iter=4, random_state=seed)
    known = np.asarray(counts.sum(axis=1)).ravel() >= rare
    total = by_language.sum(axis=1)
    share = by_language / np.maximum(total, 1)[:, None]
    salience = SALIENCE / (SALIENCE + total / total.sum())
    # Half of the singular values: with all of them a few broad subjects fill the vectors.
    aligned = _centred(left * np.sqrt(singular), by_language, share, known)
    form = _forms(share, np.random.default_rng(seed))
    own = np.where(known, MEANING * salience, 0.0)[:, None]
    table = np.concatenate([own * aligned, np.sqrt(1 - own**2) * form], axis=1)
    table[0] = 0.0
    return Embeddings(
        table.astype(np.float32),
        unit_rows(right.T.astype(np.float32)),
        _centred(left * singular, by_language, share, known),
        salience.astype(np.float32),
    )
