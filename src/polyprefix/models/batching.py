"""Texts laid out for forward passes: end to end in rows, and what several share computed once.

Whoever trains or scores gives texts and the places at which logits are wanted, and reads results
at flat positions; the layout is decided here. Texts that begin with the same tokens become a
**tree**: the shared beginning is a trunk, stored once, and what follows it are branches, which may
share more among themselves (exemplars, then a passage, then a question, then its answers). Trees
stand end to end in rows, each in depth-first order::

    texts         a b c d     a b c e f     a b g     x y
    input_ids     a b c d e f g x y
    position_ids  0 1 2 3 3 4 2 0 1      the place in the text itself
    until         6 6 5 3 5 5 6 8 8      the last place of what follows it

In depth-first order a token's subtree is a stretch of its row, so one number a token says who sees
it: the query at place i sees the key at place j if ``j <= i <= until[j]``. Those are the tokens of
its own text up to itself, no more and no less, so every logit is what it is for the text alone.

Two lists in the order of token ids are all that is needed to find trees: neighbours in that order
share most, and any two texts share the least that neighbours between them share (as with a suffix
array and its LCP array, Manber and Myers 1993).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isinf

import numpy as np
import numpy.typing as npt
import torch

SHARED = 16
"""Tokens that texts must share for it to matter which of them stand in one batch."""

SHARE = 1 / 3
"""... and the share of their mean length that these must be."""

ATTENTION_LENGTH = 1500
"""Length of a row at which attention takes as long as all else in a layer. Measured on a CPU with
d = 512 (where rows of 1024 take 1.6 times as long as rows of 64 with as many tokens); it grows with
d. Rows that are somewhat too short cost little: a shared beginning is repeated a few times more."""

STEP = 1.2
"""Ratio of the row lengths that are tried."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text and what is read from it.

    Attributes:
        ids: token ids, soft tokens included.
        reads: places in ``ids`` at which logits are wanted.
        adapter: the adapter that it is read with; ``None`` for the one in use. Hidden states depend
            on it, so texts of different adapters share neither a row nor a beginning.
    """

    ids: list[int]
    reads: Sequence[int]
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens that stand side by side in a batch and in a text.

    Attributes:
        text: which of the texts that were given.
        place: of the first token in that text.
        flat: position of the first token in the batch, of ``B * T``.
        length: tokens.
    """

    text: int
    place: int
    flat: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts laid out for one forward pass.

    Attributes:
        texts: which of the texts that were given these are.
        input_ids: ``[B, T]``.
        position_ids: ``[B, T]``, the place of each token in its text.
        until: ``[B, T]``, the last place in the row that sees a token; padding is seen by itself
            alone. ``None`` where every row holds one text, for which causal attention suffices.
            In main memory, as ``keep`` is: from both it is decided what is computed.
        keep: ``[N]`` flat positions of all reads, text after text in the order of ``texts``.
            Texts that read the same token of a shared beginning name the same position.
        stretches: where each token comes from; a shared one from the first of its texts. What is in
            none is padding.
        adapters: of each row.
    """

    texts: list[int]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    until: npt.NDArray[np.int64] | None
    keep: npt.NDArray[np.int64]
    stretches: list[Stretch]
    adapters: list[str | None]


def common(one: list[int], other: list[int]) -> int:
    """How many tokens two texts have in common at their start."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def groups(texts: Sequence[list[int]], most: int | None = None) -> list[list[int]]:
    """Indices of texts that belong together, because they share a long beginning.

    A group shares ``SHARED`` tokens, and ``SHARE`` of its mean length. A group of more than
    ``most`` texts is divided into those that share more; what is then left alone stays one group,
    which the caller may cut anywhere, since all of it shares the same.

    Args:
        texts: token ids.
        most: texts in a group, ``None`` for any number.

    Returns:
        Every index once, in the order of the token ids within a group; groups in the order of
        their first texts.
    """
    order = _Order.of(texts)
    return sorted(([order.texts[rank] for rank in group] for group in order.groups(most)), key=min)


def lay_out(
    texts: Sequence[Text],
    budget: int,
    pad_id: int,
    device: torch.device,
    attention_length: float = ATTENTION_LENGTH,
) -> Iterator[Batch]:
    """Lay texts out for forward passes of at most ``budget`` tokens each, padding included.

    Groups that share a long beginning stand together, long texts before short ones, so that the
    rows of a batch are of one length. Texts of one adapter stand together too: the fewer a batch
    has, the less it takes. A text longer than the budget is a batch of its own.

    ``attention_length``: of rows at which attention takes as long as all else in a layer; infinite
    where it skips what the mask hides."""
    order = _Order.of([text.ids for text in texts], [text.adapter for text in texts])
    longest: dict[str, int] = {}
    for adapter, length in zip(order.adapters, order.lengths, strict=True):
        longest[adapter] = max(length, longest.get(adapter, 0))

    def first(group: list[int]) -> tuple[int, str, int]:
        adapter = order.adapters[group[0]]
        return -longest[adapter], adapter, -max(order.lengths[rank] for rank in group)

    together = sorted(order.groups(), key=first)
    waiting = deque(rank for group in together for rank in group)
    while waiting:
        ranks = _take(waiting, order, budget)
        pool = order.choose(ranks)
        rows = sorted(_rows(pool, budget, attention_length), key=pool.size, reverse=True)
        most = max(1, budget // pool.size(rows[0]))
        later = [ranks[place] for row in rows[most:] for place in row]
        waiting.extendleft(reversed(later))
        yield _batch(texts, [pool.choose(row) for row in rows[:most]], pad_id, device)


def beginnings(texts: Sequence[list[int]]) -> tuple[int, list[npt.NDArray[np.int64]]]:
    """Number the distinct beginnings of texts, from 0.

    Args:
        texts: token ids.

    Returns:
        How many there are; and for each text, ``[T]``, the number of its beginning that ends with
        each token. Texts have the same numbers where they begin with the same tokens.
    """
    order = _Order.of(texts)
    numbers: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * len(texts)
    path = np.empty(0, dtype=np.int64)
    end = 0
    for which, length, shared in zip(order.texts, order.lengths, order.shared, strict=True):
        path = np.concatenate([path[:shared], np.arange(end, end + length - shared)])
        end += length - int(shared)
        numbers[which] = path
    return end, numbers


@dataclass(frozen=True, slots=True)
class _Order:
    """Texts in the order of their token ids; a text's rank is its place in that order.

    Attributes:
        texts: the text of each rank.
        lengths: tokens of each rank.
        shared: tokens that each rank has in common with the one before it; 0 for the first.
        adapters: of each rank. Those of one adapter stand together and share nothing with others.
    """

    texts: list[int]
    lengths: list[int]
    shared: npt.NDArray[np.int64]
    adapters: list[str]

    @classmethod
    def of(cls, texts: Sequence[list[int]], adapters: Sequence[str | None] | None = None) -> _Order:
        of_texts = [name or "" for name in adapters or [None] * len(texts)]
        order = sorted(range(len(texts)), key=lambda i: (of_texts[i], texts[i]))
        shared = np.zeros(len(texts), dtype=np.int64)
        for rank, (before, this) in enumerate(pairwise(order), start=1):
            if of_texts[before] == of_texts[this]:
                shared[rank] = common(texts[before], texts[this])
        return cls(order, [len(texts[i]) for i in order], shared, [of_texts[i] for i in order])

    def choose(self, ranks: Sequence[int]) -> _Order:
        """Some ascending ranks by themselves."""
        return _Order(
            [self.texts[rank] for rank in ranks],
            [self.lengths[rank] for rank in ranks],
            self._between(ranks),
            [self.adapters[rank] for rank in ranks],
        )

    def size(self, ranks: Sequence[int]) -> int:
        """Tokens of the trees of some ascending ranks."""
        return sum(self.lengths[rank] for rank in ranks) - int(self._between(ranks).sum())

    def _between(self, ranks: Sequence[int]) -> npt.NDArray[np.int64]:
        """What each of some ascending ranks shares with the one before it; 0 for the first."""
        shared = np.zeros(len(ranks), dtype=np.int64)
        if len(ranks) > 1:
            starts = np.array(ranks[:-1]) - ranks[0]
            found = self.shared[ranks[0] + 1 : ranks[-1] + 1]
            shared[1:] = np.minimum.reduceat(found, starts)
        return shared

    def groups(self, most: int | None = None) -> list[list[int]]:
        """See :func:`groups`; ranks."""
        found: list[list[int]] = []
        lengths = np.array(self.lengths)
        ranges = [(0, len(lengths))] if len(lengths) else []
        while ranges:
            first, last = ranges.pop()
            if last - first == 1:
                found.append([first])
                continue
            trunk = int(self.shared[first + 1 : last].min())
            alike = trunk >= max(SHARED, SHARE * float(lengths[first:last].mean()))
            if alike and (most is None or last - first <= most):
                found.append(list(range(first, last)))
                continue
            branches = _branches(self.shared, first, last, trunk)
            alone = [start for start, end in branches if end - start == 1]
            ranges += [(start, end) for start, end in branches if end - start > 1]
            if alone:
                found += [alone] if alike else [[rank] for rank in alone]
        return found


def _branches(
    shared: npt.NDArray[np.int64], first: int, last: int, trunk: int
) -> list[tuple[int, int]]:
    """The ranges that share clearly more than the ``trunk`` that all from first to last share."""
    cuts = np.flatnonzero(shared[first + 1 : last] < trunk + SHARED) + first + 1
    edges = [first, *cuts.tolist(), last]
    return list(pairwise(edges))


def _take(waiting: deque[int], order: _Order, budget: int) -> list[int]:
    """Ranks from the left, as many as fill a batch, ascending."""
    pool: list[int] = []
    total = 0
    while waiting:
        rank = waiting[0]
        new = order.lengths[rank]
        if pool and pool[-1] == rank - 1:
            new -= int(order.shared[rank])
        if pool and total + new > budget:
            break
        total += new
        pool.append(waiting.popleft())
    return sorted(pool)


# Rows --------------------------------------------------------------------------------------------


def _rows(pool: _Order, budget: int, attention_length: float) -> list[list[int]]:
    """Ascending ranks of each row, at the row length that is estimated to take the least time.

    Longer rows repeat fewer shared beginnings and need less padding, and take longer to attend in:
    a row of T tokens is taken to cost ``T (1 + T / attention_length)``."""
    tokens = pool.size(range(len(pool.texts)))
    best: list[list[int]] = []
    least = float("inf")
    room = max(pool.lengths)
    if isinf(attention_length):  # nothing speaks for shorter rows
        room = max(room, min(tokens, budget))
    # No row length can do with fewer tokens than there are.
    while tokens * (1 + room / attention_length) < least:
        pieces = _pieces(pool, room)
        longest = max(size for size, _ in pieces)
        cost = len(pieces) * longest * (1 + longest / attention_length)
        if cost < least:
            least, best = cost, [members for _, members in pieces]
        if room >= min(tokens, budget):
            break
        room = min(int(room * STEP) + 1, budget)
    return best


def _pieces(pool: _Order, room: int) -> list[tuple[int, list[int]]]:
    """Trees cut to fit in rows of ``room`` tokens: size and ascending ranks of each row.

    A tree that does not fit is cut where its branches part, and each piece repeats the trunk.
    Branches are put together by best fit, the largest first; a row has one adapter."""
    lengths, shared = pool.lengths, pool.shared
    ends = np.concatenate([[0], np.cumsum(np.array(lengths) - shared)])

    def cut(first: int, last: int, depth: int, room: int) -> list[tuple[int, list[int]]]:
        """Pieces of a range whose first ``depth`` tokens are counted already."""
        size = lengths[first] - depth + int(ends[last] - ends[first + 1])
        if size <= room or last - first == 1:
            return [(size, list(range(first, last)))]
        trunk = int(shared[first + 1 : last].min())
        own = trunk - depth
        parts = [
            part
            for start, end in _branches(shared, first, last, trunk)
            for part in cut(start, end, trunk, room - own)
        ]
        return [(size + own, members) for size, members in _best_fit(parts, room - own)]

    count = len(lengths)
    changes = [i for i in range(1, count) if pool.adapters[i] != pool.adapters[i - 1]]
    return [
        piece
        for first, last in pairwise([0, *changes, count])
        for piece in cut(first, last, 0, room)
    ]


def _best_fit(parts: list[tuple[int, list[int]]], room: int) -> list[tuple[int, list[int]]]:
    """Parts put together up to ``room`` tokens; members ascending."""
    left: list[int] = []  # ascending
    held: list[list[int]] = []
    for size, members in sorted(parts, key=lambda part: -part[0]):
        place = bisect_left(left, size)
        if place < len(left):
            free, members = left.pop(place) - size, held.pop(place) + members
        else:
            free = room - size
        place = bisect_left(left, free)
        left.insert(place, free)
        held.insert(place, members)
    return [(room - free, sorted(members)) for free, members in zip(left, held, strict=True)]


def _batch(
    texts: Sequence[Text], rows: Sequence[_Order], pad_id: int, device: torch.device
) -> Batch:
    length = max(row.size(range(len(row.texts))) for row in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    positions = np.zeros_like(ids)
    until = np.tile(np.arange(length), (len(rows), 1))
    numbers: list[int] = []
    keep: list[int] = []
    stretches: list[Stretch] = []
    branched = False
    for number, row in enumerate(rows):
        path: list[int] = []  # the places of the tokens of one text
        end = 0
        for which, shared in zip(row.texts, row.shared.tolist(), strict=True):
            text = texts[which]
            branched |= shared < len(path)
            until[number, path[shared:]] = end - 1
            new = len(text.ids) - shared
            path[shared:] = range(end, end + new)
            ids[number, end : end + new] = text.ids[shared:]
            positions[number, end : end + new] = np.arange(shared, shared + new)
            stretches.append(Stretch(which, shared, number * length + end, new))
            end += new
            numbers.append(which)
            keep += [number * length + path[place] for place in text.reads]
        until[number, path] = end - 1
    return Batch(
        texts=numbers,
        input_ids=torch.from_numpy(ids).to(device),
        position_ids=torch.from_numpy(positions).to(device),
        until=until if branched else None,
        keep=np.array(keep, dtype=np.int64),
        stretches=stretches,
        adapters=[texts[row.texts[0]].adapter for row in rows],
    )
