"""The project's own lexicon: 1,409 concepts of everyday themes in all the languages.

`lexicon/concepts.tsv` names the concepts with their themes, `lexicon/<code>.tsv` gives the usual
word for each in one language, in the forms that are most often met in text. Written for this
project by an AI assistant, without a dictionary; not checked by native speakers. CC BY 4.0.

What translations of MultiNLI and of news leave thin, the names of things, it makes dense.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from pretraining.languages import CODES, ENGLISH

FOLDER = Path(__file__).parent / "lexicon"
ROUNDS = 3
"""How often a concept stands in a list of others of its theme."""
LIST = 4
"""Concepts in such a list."""

Forms = dict[str, list[str]]
"""The forms of one concept by language."""


def _rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f"missing part of the lexicon {path}")
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [line.split("\t") for line in lines]


def read_lexicon() -> list[tuple[str, Forms]]:
    """Theme and forms of every concept.

    Raises:
        ValueError: a file does not hold the concepts in their order.
    """
    concepts = _rows(FOLDER / "concepts.tsv")[1:]
    lexicon: list[tuple[str, Forms]] = [(theme, {}) for _, theme, _ in concepts]
    for code in CODES:
        rows = _rows(FOLDER / f"{code}.tsv")
        if [row[0] for row in rows] != [concept[0] for concept in concepts]:
            raise ValueError(f"{FOLDER / code}.tsv does not hold the ids of concepts.tsv in order")
        for (_, forms), (_, cell) in zip(lexicon, rows, strict=True):
            forms[code] = [form.strip() for form in cell.split("|")]
    return lexicon


def lexicon_words() -> list[str]:
    """English words of the lexicon, lower case, as they come."""
    forms = (form for _, concept in read_lexicon() for form in concept[ENGLISH])
    return [form for form in dict.fromkeys(forms) if re.fullmatch("[a-z]+", form)]


def word_lists(seed: int) -> list[dict[str, str]]:
    """Aligned lists of words, as if they were sentences.

    Each concept by itself with all its forms, then, `ROUNDS` times, among others of its theme with
    a form drawn for every language.
    """
    lexicon = read_lexicon()
    lists = [{code: ", ".join(forms[code]) for code in CODES} for _, forms in lexicon]
    rng = random.Random(seed)
    for theme in dict.fromkeys(theme for theme, _ in lexicon):
        concepts = [forms for own, forms in lexicon if own == theme]
        for _ in range(ROUNDS):
            rng.shuffle(concepts)
            for start in range(0, len(concepts) - 1, LIST):
                drawn = concepts[start : start + LIST]
                lists.append(
                    {code: ", ".join(rng.choice(forms[code]) for forms in drawn) for code in CODES}
                )
    return lists
