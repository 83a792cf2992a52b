"""Reading the text: aligned sentences, inference pairs and monolingual sentences.

Every reader takes a folder that holds either the archives (`ntrex.tar.xz`) or what they
unpack to (`ntrex/`), and returns NFC-normalised text.
"""

from __future__ import annotations

import re
import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pretraining.languages import ENGLISH, LANGUAGES
from pretraining.lexicon import word_lists

SOURCES = ("ntrex", "mnli_translations", "tatoeba", "ud_pud", "common_voice")
HELD_OUT = 100
"""The last lines of NTREX, kept from every step of the recipe, for evaluation."""

Sentences = dict[str, str]
"""The same sentence in several languages, by FLORES code."""


@dataclass
class Corpus:
    """All text of the recipe.

    Attributes:
        groups: aligned sentences by source (`ntrex`, `premise`, `hypothesis`, `pud`), and
            lists of words (`lexicon`).
        labels: the inference label of `premise[i]`, `hypothesis[i]`.
        monolingual: sentences by language.
        held_out: NTREX lines for evaluation only.
    """

    groups: dict[str, list[Sentences]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    monolingual: dict[str, list[str]] = field(default_factory=dict)
    held_out: list[Sentences] = field(default_factory=list)


def unpack(text: Path, work: Path) -> Path:
    """Return a folder with every source unpacked, unpacking archives to `work` where needed."""
    if all((text / source).is_dir() for source in SOURCES):
        return text
    target = work / "text"
    for source in SOURCES:
        if (target / source).is_dir():
            continue
        archive = text / f"{source}.tar.xz"
        if not archive.is_file():
            raise FileNotFoundError(f"{text} holds neither {source}/ nor {archive.name}")
        partial = target / f".{source}.partial"
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        (partial / source).rename(target / source)
    return target


_NO_SPACE_BEFORE = re.compile(r"\s+([.,;:!?%)\]}…،؛؟۔।]|'(?:s|re|ve|ll|d|m|t)\b|n't\b)")
_NO_SPACE_AFTER = re.compile(r"([(\[{¿¡])\s+")
_APOSTROPHE = re.compile(r"(?<=\w)\s*'\s+(?=\w)")
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\u3000-\u303f\uff00-\uffef"
_AROUND_HAN = re.compile(rf"(?<=[{_HAN}])\s+|\s+(?=[{_HAN}])")


def clean(line: str) -> str:
    """NFC, single spaces."""
    return " ".join(unicodedata.normalize("NFC", line).split())


def detokenise(line: str, language: str) -> str:
    """Undo the tokenisation of MultiNLI's translations (`word , word .`, segmented Chinese)."""
    line = clean(line)
    if language == "zho_Hans":
        line = _AROUND_HAN.sub("", line)
    if language in ("fra_Latn", "eng_Latn"):
        line = _APOSTROPHE.sub("'", line) if language == "fra_Latn" else line
    return _NO_SPACE_AFTER.sub(r"\1", _NO_SPACE_BEFORE.sub(r"\1", line))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"missing text file {path}")
    return path.read_text(encoding="utf-8").rstrip("\n").split("\n")


def _ntrex(folder: Path) -> list[Sentences]:
    columns: dict[str, list[str]] = {}
    for language in LANGUAGES:
        kind = "src" if language.flores == ENGLISH else "ref"
        lines = _lines(folder / "ntrex" / f"newstest2019-{kind}.{language.ntrex}.txt")
        columns[language.flores] = [clean(line) for line in lines]
    lengths = {code: len(column) for code, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"NTREX files have different numbers of lines: {lengths}")
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def mnli_rows(folder: Path, code: str) -> Iterator[list[str]]:
    """Rows (premise, hypothesis, label) of one language's MultiNLI file, as written."""
    path = folder / "mnli_translations" / f"multinli.train.{code}.tsv"
    for number, line in enumerate(_lines(path)[1:], start=2):
        cells = line.split("\t")
        if len(cells) != 3:
            raise ValueError(f"{path}:{number}: 3 columns expected, found {len(cells)}")
        yield cells


def _tatoeba(folder: Path, code: str) -> list[str]:
    """Everyday sentences of one language.

    XTREME sorts the English side of these files, to hide which line translates which: the two
    sides hold the same sentences and are *not* aligned line by line.
    """
    return [clean(line) for line in _lines(folder / "tatoeba" / f"{code}-en.{code}")]


def _pud(folder: Path) -> list[Sentences]:
    by_id: dict[str, Sentences] = {}
    for language in LANGUAGES:
        if language.pud is None:
            continue
        for line in _lines(folder / "ud_pud" / f"{language.pud}.tsv"):
            sent_id, _, sentence = line.partition("\t")
            by_id.setdefault(sent_id, {})[language.flores] = clean(sentence)
    return [group for group in by_id.values() if ENGLISH in group]


def read_corpus(folder: Path, monolingual_limit: int = 20_000) -> Corpus:
    """Read all sources from the unpacked `folder`; at most so many monolingual lines each."""
    corpus = Corpus()
    ntrex = _ntrex(folder)
    corpus.groups["ntrex"], corpus.held_out = ntrex[:-HELD_OUT], ntrex[-HELD_OUT:]
    premises: list[Sentences] = []
    hypotheses: list[Sentences] = []
    for language in LANGUAGES:
        if language.mnli is None:
            continue
        for index, (premise, hypothesis, label) in enumerate(mnli_rows(folder, language.mnli)):
            if index == len(premises):
                premises.append({})
                hypotheses.append({})
                corpus.labels.append(label)
            premises[index][language.flores] = detokenise(premise, language.flores)
            hypotheses[index][language.flores] = detokenise(hypothesis, language.flores)
    corpus.groups["premise"], corpus.groups["hypothesis"] = premises, hypotheses
    corpus.groups["pud"] = _pud(folder)
    corpus.groups["lexicon"] = word_lists(seed=0)
    for language in LANGUAGES:
        sentences: list[str] = []
        for path in sorted((folder / "common_voice" / language.common_voice).glob("*.txt")):
            sentences += [clean(line) for line in _lines(path)]
        step = max(1, len(sentences) // monolingual_limit)
        sentences = sentences[::step]
        if language.tatoeba is not None:
            sentences += _tatoeba(folder, language.tatoeba)
        corpus.monolingual[language.flores] = [s for s in sentences if len(s) > 10]
    return corpus
