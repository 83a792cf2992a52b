"""Rows of datasets on the Hugging Face hub.

``datasets`` takes a second to import, so it is imported when a dataset is read and not before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polyprefix.config import DataError

HUB = "hub:"
"""How the names of what was read from the hub begin; a file's name is its path."""


def commit_of(repository: str, revision: str | None) -> str | None:
    """The commit that a revision of a dataset means now; ``None`` if the hub does not say."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(repository, revision=revision, timeout=20).sha
    except Exception:
        # Without a connection the dataset may still be in the cache; if it is not, reading it
        # says what is wrong. Here only the commit's name is at stake.
        return None


def read_rows(
    repository: str, config: str, split: str, revision: str | None
) -> list[dict[str, Any]]:
    """The rows of one split of a dataset; numbered classes are given by their names.

    ``datasets`` fetches and caches all splits of a configuration when one is asked for (its issue
    7580), for XNLI also the translated training data.

    Args:
        repository: a dataset's name on the hub, or a folder laid out like one.
        config: the name of a configuration; tasks have one a language.
        split: the hub's name of a split, ``validation`` for instance.
        revision: a branch, tag or commit; ``None``: ``main``.

    Raises:
        DataError: no connection and not in the cache, or no such dataset, configuration or split.
    """
    import datasets

    try:
        with _quiet():
            data = datasets.load_dataset(repository, config, split=split, revision=revision)
        rows: list[dict[str, Any]] = data.to_list()
    except Exception as error:
        # The libraries below raise their own, requests', httpx' and the standard library's.
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"cannot read {repository!r}, configuration {config!r}, split {split!r} from the "
            f"Hugging Face hub: {type(error).__name__}: {reason}"
        ) from error
    for column, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                row[column] = _class_name(feature.names, row[column])
    return rows


def _class_name(names: list[str], value: int | None) -> str | None:
    """The name of a class; a number that names none (-1 is "no label") as it is."""
    if value is None:
        return None
    return names[value] if 0 <= value < len(names) else str(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars: three a language, in the middle of the run's own."""
    from datasets import utils

    were_on = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if were_on:
            utils.enable_progress_bars()
