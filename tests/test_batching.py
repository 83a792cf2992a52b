"""The layout of packed and shared rows, against a trie written out."""

from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyprefix.models import batching
from polyprefix.models.batching import SHARED, Batch, Text, beginnings, common, groups, lay_out

PAD = -1
CPU = torch.device("cpu")

texts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=25)


def laid(ids: list[list[int]], budget: int) -> list[Batch]:
    """With a read at every token."""
    return list(lay_out([Text(row, range(len(row))) for row in ids], budget, PAD, CPU))


def seen(batch: Batch, row: int, place: int) -> list[int]:
    """The places that the token at a place of a row sees."""
    until = batch.until
    return [j for j in range(place + 1) if until is None or int(until[row, j]) >= place]


@settings(max_examples=150, deadline=None)
@given(texts, st.integers(1, 60))
def test_every_token_sees_the_beginning_of_its_own_text(ids: list[list[int]], budget: int) -> None:
    batches = laid(ids, budget)
    assert sorted(i for batch in batches for i in batch.texts) == list(range(len(ids)))
    for batch in batches:
        length = batch.input_ids.shape[1]
        reads = iter(batch.keep.tolist())
        of_row: dict[int, set[tuple[int, ...]]] = {}
        for number in batch.texts:
            for depth, flat in enumerate(next(reads) for _ in ids[number]):
                row, place = divmod(flat, length)
                visible = seen(batch, row, place)
                assert batch.input_ids[row, visible].tolist() == ids[number][: depth + 1]
                assert batch.position_ids[row, visible].tolist() == list(range(depth + 1))
                of_row.setdefault(row, set()).add(tuple(ids[number][: depth + 1]))
        assert next(reads, None) is None
        # The nodes of the row's trie, each stored once, and padding, which sees itself alone.
        for row in range(len(batch.input_ids)):
            assert int((batch.input_ids[row] != PAD).sum()) == len(of_row[row])
            for place in range(len(of_row[row]), length):
                assert batch.input_ids[row, place] == PAD
                if batch.until is not None:
                    assert seen(batch, row, place) == [place]


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(1, 60))
def test_every_token_is_of_one_stretch(ids: list[list[int]], budget: int) -> None:
    for batch in laid(ids, budget):
        flat, positions = batch.input_ids.flatten().tolist(), batch.position_ids.flatten().tolist()
        left = set(range(len(flat)))
        for stretch in batch.stretches:
            for step in range(stretch.length):
                at, place = stretch.flat + step, stretch.place + step
                assert (flat[at], positions[at]) == (ids[stretch.text][place], place)
                left.remove(at)
        assert all(flat[at] == PAD for at in left)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_beginnings_have_a_number_each(ids: list[list[int]]) -> None:
    count, numbers = beginnings(ids)
    found: dict[tuple[int, ...], int] = {}
    for text, own in zip(ids, numbers, strict=True):
        assert len(own) == len(text)
        for end, number in enumerate(own.tolist(), start=1):
            assert found.setdefault(tuple(text[:end]), number) == number
    assert sorted(found.values()) == list(range(count))


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(1, 60))
def test_batches_keep_to_the_budget(ids: list[list[int]], budget: int) -> None:
    for batch in laid(ids, budget):
        one_text = len({tuple(ids[number]) for number in batch.texts}) == 1
        assert batch.input_ids.numel() <= budget or (len(batch.input_ids) == 1 and one_text)


def test_the_drawing_in_the_modules_text() -> None:
    letters = ["abcd", "abcef", "abg", "xy"]
    [batch] = laid([[ord(letter) for letter in word] for word in letters], 100)
    assert "".join(map(chr, batch.input_ids[0].tolist())) == "abcdefgxy"
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3, 4, 2, 0, 1]]
    assert batch.until is not None
    assert batch.until.tolist() == [[6, 6, 5, 3, 5, 5, 6, 8, 8]]


def draw(source: random.Random, length: int) -> list[int]:
    return [source.randrange(1000) for _ in range(length)]


def test_a_shared_beginning_is_stored_once() -> None:
    """Exemplars, passages and questions: about as many tokens as the trie has."""
    source = random.Random(0)
    exemplars = draw(source, 60)
    ids = []
    for _ in range(8):
        passage = draw(source, source.randrange(50, 90))
        ids += [exemplars + passage + draw(source, source.randrange(5, 15)) for _ in range(5)]
    nodes = {tuple(row[: depth + 1]) for row in ids for depth in range(len(row))}
    used = sum(batch.input_ids.numel() for batch in laid(ids, 4096))
    # exemplars are repeated in each row, and rows are padded
    assert len(nodes) <= used < 1.4 * len(nodes)
    assert used < 0.3 * sum(map(len, ids))


def test_little_is_padding() -> None:
    source = random.Random(1)
    ids = [draw(source, source.randrange(5, 120)) for _ in range(400)]
    batches = laid(ids, 2048)
    tokens = sum(map(len, ids))
    assert sum(batch.input_ids.numel() for batch in batches) < 1.06 * tokens
    # full batches: none but the last is small
    assert len(batches) <= 1.1 * tokens / 2048 + 1
    # short rows, since long ones take longer to attend in
    assert max(batch.input_ids.shape[1] for batch in batches) < 300


def test_rows_of_single_texts_need_no_mask() -> None:
    source = random.Random(2)
    [batch] = laid([draw(source, 30) for _ in range(8)], 1000)
    assert batch.input_ids.shape == (8, 30)
    assert batch.until is None


def test_no_texts_no_batches() -> None:
    assert laid([], 100) == []
    assert groups([]) == []


def test_large_trees_are_cut_where_branches_part() -> None:
    source = random.Random(3)
    passage = draw(source, 50)
    ids = [passage + draw(source, 10) for _ in range(30)]
    batches = laid(ids, 200)
    assert all(batch.input_ids.numel() <= 200 for batch in batches)
    assert sum(batch.input_ids.numel() for batch in batches) <= (30 * 10) + 50 * 4 + 60


# Groups ------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_groups_share_what_they_claim(data: st.DataObject) -> None:
    source = random.Random(data.draw(st.integers(0, 10**6)))
    most = data.draw(st.sampled_from([None, 1, 2, 5]))
    stems: list[list[int]] = [[]]
    for _ in range(data.draw(st.integers(0, 8))):
        stems.append(source.choice(stems) + draw(source, source.randrange(4, 40)))
    ids = [source.choice(stems) + draw(source, source.randrange(1, 30)) for _ in range(20)]
    found = groups(ids, most)
    assert sorted(i for group in found for i in group) == list(range(len(ids)))
    assert [min(group) for group in found] == sorted(min(group) for group in found)
    for group in found:
        assert group == sorted(group, key=lambda i: ids[i])
        if len(group) > 1:
            alike = min(common(ids[group[0]], ids[i]) for i in group)
            assert alike >= SHARED
            if most is None:
                assert alike >= batching.SHARE * sum(len(ids[i]) for i in group) / len(group)


def test_questions_about_a_passage_are_a_group() -> None:
    source = random.Random(5)
    start = draw(source, 12)  # an instruction
    passages = [start + draw(source, length) for length in (20, 60, 300)]
    ids = [passage + draw(source, source.randrange(5, 40)) for passage in passages for _ in "abcde"]
    ids += [start + draw(source, 40) for _ in range(5)]
    ids.append(passages[1] + draw(source, 200))  # a long question is one of them
    expected = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 20], [10, 11, 12, 13, 14]]
    found = [sorted(group) for group in groups(ids)]
    assert found == [*expected, [15], [16], [17], [18], [19]]


def test_groups_of_a_few_are_found_within_large_ones() -> None:
    source = random.Random(4)
    exemplars = draw(source, 100)
    passages = [exemplars + draw(source, 60) for _ in range(6)]
    ids = [passage + draw(source, 10) for passage in passages for _ in range(4)]
    ids += [exemplars + draw(source, 20) for _ in range(10)]
    assert sorted(map(len, groups(ids))) == [34]
    assert sorted(map(len, groups(ids, 5))) == [4] * 6 + [10]


def test_texts_of_different_adapters_share_nothing() -> None:
    """A row has one adapter; what two adapters' texts begin with is computed for each; every text
    reads what it reads by itself."""
    source = random.Random(3)
    trunk = [source.randrange(1, 90) for _ in range(30)]
    texts = [
        Text([*trunk, *(source.randrange(1, 90) for _ in range(1 + n % 7))], [29 + n % 7], name)
        for n in range(24)
        for name in ("a", "b", None)
    ]
    for budget in (40, 200, 10_000):
        batches = list(lay_out(texts, budget, PAD, CPU))
        assert sorted(i for batch in batches for i in batch.texts) == list(range(len(texts)))
        for batch in batches:
            length = batch.input_ids.shape[1]
            rows = (batch.keep // length).tolist()
            assert len(batch.adapters) == len(batch.input_ids)
            for text, row, place in zip(batch.texts, rows, batch.keep.tolist(), strict=True):
                assert batch.adapters[row] == texts[text].adapter
                assert batch.input_ids.flatten()[place] == texts[text].ids[texts[text].reads[0]]
    [whole] = lay_out(texts, 10_000, PAD, CPU)
    used = int((whole.input_ids != PAD).sum())
    alone = 0
    for name in ("a", "b", None):
        for batch in lay_out([text for text in texts if text.adapter == name], 10_000, PAD, CPU):
            alone += int((batch.input_ids != PAD).sum())
    assert used == alone
    assert used < len(texts) * len(trunk) / 2  # within an adapter the beginning is shared
