"""Texts dealt out to processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyprefix.models.batching import common, groups


@dataclass(frozen=True, slots=True)
class _Piece:
    """Texts that are computed together: ``trunk`` tokens that they share, once, and the rest."""

    members: list[int]
    trunk: int
    cost: int


def split(texts: Sequence[list[int]], parts: int) -> list[list[int]]:
    """Indices of texts for each of some processes, every index once, ascending.

    Texts that share a long beginning, a passage, stay together, where it is computed once; a group
    of them is cut only where there would be less than one group for each process. The costliest
    goes first to the process that has least to do (Graham 1969), by tokens. A function of its
    arguments alone: every process comes to the same.

    Args:
        texts: token ids.
        parts: processes.

    Returns:
        ``parts`` lists; some are empty where there are fewer texts.
    """
    pieces = [_piece(texts, members) for members in groups(texts)]
    while len(pieces) < parts:
        widest = max((p for p in pieces if len(p.members) > 1), key=_order, default=None)
        if widest is None:
            break
        pieces.remove(widest)
        half = len(widest.members) // 2
        pieces += [_piece(texts, part) for part in (widest.members[:half], widest.members[half:])]
    found: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for piece in sorted(pieces, key=_order, reverse=True):
        least = loads.index(min(loads))
        found[least] += piece.members
        loads[least] += piece.cost
    return [sorted(part) for part in found]


def _piece(texts: Sequence[list[int]], members: list[int]) -> _Piece:
    # They stand in the order of their tokens: all share what the first and the last do.
    trunk = common(texts[members[0]], texts[members[-1]]) if len(members) > 1 else 0
    cost = trunk + sum(len(texts[i]) - trunk for i in members)
    return _Piece(members, trunk, cost)


def _order(piece: _Piece) -> tuple[int, int]:
    return piece.cost, -piece.members[0]
