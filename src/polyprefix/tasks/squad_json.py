"""Extractive question answering in the format of SQuAD v1.1, and what its tasks have in common.

Rajpurkar et al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP,
https://arxiv.org/abs/1606.05250. XQuAD, MLQA and TyDi QA's gold passage task are files of this
format, one a language. A file is one JSON object::

    {"version": "1.1", "data": [{"title": "Normans", "paragraphs": [
        {"context": "...", "qas": [
            {"id": "56ddde6b", "question": "...", "answers": [{"text": "...", "answer_start": 159}]}
    ]}]}]}

``title``, ``version`` and ``answer_start`` may be missing: a model that writes its answer needs no
offset, so offsets are neither used nor checked, and neither is whether an answer stands in its
passage. Restructured files are read as well: a list of such articles or paragraphs without the
object around it, ``answer`` with one text (or several) in place of ``answers``, and no ids (a
question is then called by the numbers of its article, paragraph and place: ``1-3-2``).

A broken article, paragraph or question costs what is in it and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polyprefix.config import DataError
from polyprefix.tasks.base import AnswerTask
from polyprefix.tasks.examples import (
    BadRow,
    Example,
    Row,
    RowError,
    Split,
    SplitName,
    collect,
    text_in,
)
from polyprefix.tasks.prompt import Prompt
from polyprefix.tasks.rows import BOM

PROMPT = Prompt("{{ context | trim }}\nQuestion: {{ question | trim }}\nAnswer:")
"""The passage first, so that questions about one passage begin alike and share its computation.

White space around passage and question is left out: some files end passages in a line break, and
up to 6% of the questions of a file begin or end in a space.
"""

SQUAD = ("rajpurkar/squad", "plain_text")
"""SQuAD v1.1 on the hub, its only configuration: 87,599 training and 10,570 dev questions."""

SQUAD_TRAIN, SQUAD_DEV = 87599, 10570


class ExtractiveTask(AnswerTask):
    """A question about a passage that holds the answer. Fields: ``context``, ``question``.

    Metrics: exact match and F1 of SQuAD v1.1, by whose F1 results on all these tasks are usually
    given, and those of MLQA, which know the language's articles and are the ones to look at where a
    script has no spaces (Chinese, Thai).
    """

    metrics = ("squad", "mlqa")
    headline = "f1"
    passage = "context"
    prompt = PROMPT
    stop = ("\n",)
    max_new_tokens = 64
    columns = ("context", "question", "answers")

    def example(self, position: int, row: Row) -> Example:
        """A question, from a file or as the hub has it; see :func:`squad_example`."""
        return squad_example(position, row)

    def read_file(self, path: Path, split: SplitName) -> Split:
        """A file in the format of SQuAD v1.1; see :func:`read_squad`."""
        return read_squad(path, numbered=split == "train")


@dataclass(frozen=True, slots=True)
class BadQuestion(BadRow):
    """An entry of a JSON file that cannot be used; ``line`` is its number among the questions."""

    def __str__(self) -> str:
        return f"{self.file}, {self.reason}"


def squad_example(position: int, row: Row) -> Example:
    """A question as an example.

    Args:
        position: of the question, its id where it has none.
        row: with ``context``, ``question`` and ``answers`` (``[{"text": ...}]`` as in files,
            ``{"text": [...]}`` as on the hub) or ``answer`` (one text or several).

    Raises:
        RowError: a text is missing or empty, or there is no answer.
    """
    fields = {name: text_in(row, name) for name in ("context", "question")}
    number = row.get("id")
    name = str(position) if number is None or not str(number).strip() else str(number)
    return Example(name, fields, answers=_answers(row))


def _answers(row: Row) -> tuple[str, ...]:
    """The gold answers, each once. Space around an answer is no part of it."""
    given: Any = row.get("answers", row.get("answer"))
    if isinstance(given, dict):
        given = given.get("text")
    if isinstance(given, str):
        given = [given]
    if given is None:
        raise RowError(f"no 'answers'; there are {', '.join(row)}")
    if not isinstance(given, list):
        raise RowError(f"'answers' holds {given!r}, not a list")
    if not given:
        raise RowError("no answer (SQuAD 2.0 has such questions; they are none of this task)")
    texts: list[str] = []
    for answer in given:
        text = answer.get("text") if isinstance(answer, dict) else answer
        if not isinstance(text, str):
            raise RowError(f"an answer holds {text!r}, not a text")
        if not text.strip():
            raise RowError(
                "an answer is empty (XTREME's download script empties those of its test files; "
                "take the files from where the task comes from)"
            )
        texts.append(text.strip())
    return tuple(dict.fromkeys(texts))


def read_squad(path: Path, *, numbered: bool) -> Split:
    """The questions of a file.

    Args:
        path: the file.
        numbered: what to do with an id that is taken: number it (``12``, ``12.2``, ``12.3``), or
            refuse the question. XTREME's training files of TyDi QA, for one, repeat ids.

    Raises:
        DataError: the file is missing, is not JSON, or has neither ``data`` nor a list.
    """
    rows = _with_ids(_questions(_entries(path)), numbered=numbered)
    split = collect(str(path), enumerate(rows, start=1), squad_example)
    bad = [BadQuestion(row.file, row.line, row.reason) for row in split.bad_rows]
    return replace(split, bad_rows=list[BadRow](bad))


def _entries(path: Path) -> list[Any]:
    """The articles (or paragraphs) of a file."""
    try:
        content: Any = json.loads(path.read_bytes().removeprefix(BOM).decode("utf-8"))
    except FileNotFoundError:
        raise DataError(f"file {str(path)!r} does not exist") from None
    except OSError as error:
        raise DataError(f"cannot read file {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (at byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON: {error.msg} at character {error.colno}; "
            "expected a file in the format of SQuAD v1.1"
        ) from None
    except (ValueError, RecursionError) as error:  # digits or brackets without end
        raise DataError(f"{path}: not JSON: {error}") from None
    entries = content.get("data") if isinstance(content, dict) else content
    if isinstance(entries, list):
        return entries
    found = f"an object with {', '.join(content)[:80]}" if isinstance(content, dict) else "no list"
    raise DataError(
        f"{path}: {found}; expected the format of SQuAD v1.1, an object whose 'data' is a list of "
        "articles"
    )


def _questions(entries: list[Any]) -> Iterator[tuple[str, str, Row | RowError]]:
    """Every question: its place in words and in numbers, and its row or what is wrong."""
    for number, entry in enumerate(entries, start=1):
        is_article = isinstance(entry, dict) and "paragraphs" in entry
        place = f"{'article' if is_article else 'paragraph'} {number}"
        if not is_article:
            yield from _of_paragraph(entry, place, str(number))
        elif not isinstance(entry["paragraphs"], list):
            yield place, "", RowError("'paragraphs' is not a list")
        else:
            for n, paragraph in enumerate(entry["paragraphs"], start=1):
                yield from _of_paragraph(paragraph, f"{place}, paragraph {n}", f"{number}-{n}")


def _of_paragraph(
    paragraph: Any, place: str, number: str
) -> Iterator[tuple[str, str, Row | RowError]]:
    if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
        found = ", ".join(paragraph) if isinstance(paragraph, dict) else type(paragraph).__name__
        yield place, "", RowError(f"expected 'context' and a list 'qas', found {found[:80]}")
        return
    try:
        context = text_in(paragraph, "context")
    except RowError as error:
        yield place, "", RowError(f"{error}; its {len(paragraph['qas'])} questions are left out")
        return
    for n, question in enumerate(paragraph["qas"], start=1):
        where = f"{place}, question {n}"
        if isinstance(question, dict):
            yield where, f"{number}-{n}", {**question, "context": context}
        else:
            found = type(question).__name__
            yield where, "", RowError(f"expected an object, found {found}")


def _with_ids(
    questions: Iterator[tuple[str, str, Row | RowError]], *, numbered: bool
) -> Iterator[Row | RowError]:
    """Rows with ids that are not taken, or what is wrong with them and where they stand."""
    taken: dict[str, int] = {}
    for place, number, row in questions:
        if isinstance(row, RowError):
            yield RowError(f"{place}: {row}")
            continue
        given = row.get("id")
        own = str(given) if isinstance(given, str | int) and str(given).strip() else number
        try:
            squad_example(0, row)
        except RowError as error:
            yield RowError(f"{place} (id {own!r}): {error}")
            continue
        name = own
        while numbered and name in taken:
            taken[own] += 1
            name = f"{own}.{taken[own]}"
        if name in taken:
            yield RowError(f"{place} (id {own!r}): the id is taken by a question before")
            continue
        taken[name] = 1
        yield {**row, "id": name}
