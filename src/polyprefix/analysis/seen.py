"""Which languages a backbone has read in pretraining, and how much of each.

``languages/pretraining.tsv`` holds the languages of XGLM and BLOOM with their share of the training
text, and those of the packaged model; ``languages/SOURCES.md`` says where that comes from. Of any
other backbone nothing is known here.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import PurePath

NAMES = {
    # Not xglm-4.5B, which read 134 languages.
    "xglm": re.compile(r"xglm-(564M|1\.7B|2\.9B|7\.5B)", re.IGNORECASE),
    # bloomz was tuned further, in BLOOM's own languages.
    "bloom": re.compile(r"bloomz?(-\w+)*", re.IGNORECASE),
}
"""By architecture: the last part of the names of the backbones whose text the table describes."""

PACKAGED = "polyprefix/nano"


def pretraining_shares(name: str, model_type: str) -> dict[str, float | None] | None:
    """Shares of the pretraining text by FLORES-200 code; languages not in it were not read.

    Args:
        name: of the backbone: on the hub, a folder's, or ``polyprefix/nano``.
        model_type: its architecture; a folder called ``bloom`` with something else is unknown.

    Returns:
        A share is ``None`` where the language was read, how much is not known. ``None`` for a
        backbone that the table lacks.
    """
    if name == PACKAGED:
        return _table()["nano"]
    pattern = NAMES.get(model_type)
    if pattern is None or not pattern.fullmatch(PurePath(name).name):
        return None
    return _table()[model_type]


@cache
def _table() -> dict[str, dict[str, float | None]]:
    text = files("polyprefix.languages").joinpath("pretraining.tsv").read_text(encoding="utf-8")
    found: dict[str, dict[str, float | None]] = {}
    for line in text.splitlines()[1:]:
        model, code, share = line.split("\t")
        found.setdefault(model, {})[code] = float(share) if share else None
    return found
