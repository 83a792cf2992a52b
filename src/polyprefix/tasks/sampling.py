"""Taking a part of a split, by seed and nothing else.

A smaller sample of the same seed is a part of a larger one, so scores over a growing number of
examples differ by the added examples alone. Samples keep the order of the file.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain

from polyprefix.config import DataError
from polyprefix.tasks.examples import Example, SplitName


def sample(
    examples: Sequence[Example], count: int | None, *, seed: int, split: SplitName
) -> list[Example]:
    """``count`` of the examples, or all of them if it is ``None``.

    Raises:
        DataError: there are fewer.
    """
    if count is None:
        return list(examples)
    if count > len(examples):
        raise DataError(
            f"task.{split}_samples is {count}, but there are {len(examples)} {split} examples"
        )
    return [examples[index] for index in sorted(_shuffled(len(examples), seed, split)[:count])]


def sample_per_class(
    examples: Sequence[Example], count: int, labels: Sequence[str], *, seed: int
) -> list[Example]:
    """``count`` training examples of each label.

    Raises:
        DataError: a label has fewer.
    """
    chosen: dict[int, list[int]] = {label: [] for label in range(len(labels))}
    for index in _shuffled(len(examples), seed, "train"):
        of_label = chosen[examples[index].label]
        if len(of_label) < count:
            of_label.append(index)
    few = [
        f"{len(chosen[n])} of {name!r}" for n, name in enumerate(labels) if len(chosen[n]) < count
    ]
    if few:
        raise DataError(
            f"task.train_per_class is {count}, but among the training examples there are only "
            f"{', '.join(few)}"
        )
    return [examples[index] for index in sorted(chain.from_iterable(chosen.values()))]


def sample_languages(
    test: Mapping[str, Sequence[Example]], count: int | None, *, seed: int, parallel: bool
) -> dict[str, list[Example]]:
    """``count`` test examples of each language.

    Where languages are parallel, the first language's sample decides and the others take the
    examples with the same ids: the languages stay comparable example by example. A language that
    lost one of them to a bad row has one less.

    Raises:
        DataError: the first language (any language, where they are not parallel) has fewer, or a
            language has none of the ids.
    """
    if count is None or not parallel:
        return {code: sample(part, count, seed=seed, split="test") for code, part in test.items()}
    first = next(iter(test))
    ids = {example.id for example in sample(test[first], count, seed=seed, split="test")}
    result = {code: [e for e in examples if e.id in ids] for code, examples in test.items()}
    for code, examples in result.items():
        if not examples:
            raise DataError(f"no test example of {code} has an id of {first}'s test sample")
    return result


def _shuffled(count: int, seed: int, split: SplitName) -> list[int]:
    """The numbers below ``count`` in an order of their own for each seed and split."""
    order = list(range(count))
    random.Random(f"{seed}-{split}").shuffle(order)
    return order
