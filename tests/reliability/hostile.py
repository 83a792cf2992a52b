"""Texts that break what does not expect them, and every local format of every task to put them in.

A case is a column of a format: :func:`Format.write` makes a folder that is whole but for one row,
in whose column the text stands, and ``turns_up`` says where the example should have it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TEXTS = {
    "a megabyte": "word and " * 120_000,
    "NUL": "a\0b",
    "unpaired surrogate": "a\ud800b",
    "right to left": "\u202eabc\u202c \u2066def",
    "HTML": "</script></title><script>alert(1)</script><b onclick='x'>&amp;&lt;",
    "Jinja": "{{ 7*7 }} {% for x in y %} {# c #} {% raw %} {{ label }}",
    "shell": "${HOME} $(id) `id` $1",
    "percent": "%s %(text)s %n %",
    "braces": "{0} {text} {} {",
    "terminal": "\x1b[31mred\x1b[0m\x07\x9b1m",
    "line breaks": "one\ntwo\r\nthree\rfour",
    "backslashes": r"one\ntwo\t\\ \u0041 \x00",
    "tab": "one\ttwo",
    "quotes": '"one" \'two\' ""',
    "an open quote": '"one',
    "separators": "one\u2028two\u2029three\x85four\x0bfive",
    "formula": "=1+1,2;3",
    "markup of tokenizers": "<s></s><pad><|endoftext|>",
    "zero width": "\ufeffa\u200bb",
    "a number": "1e999",
    "digits": "9" * 5000,
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """How a task's data stands in files.

    Attributes:
        task: its name.
        row: from a row's number to its columns, all of them good.
        turns_up: for each column where an example has it: a field, ``id``, ``answer``, or ``no
            text``, for labels and numbers.
        files: from the rows of each split to the files of a folder.
        target: a language that is tested beside English.
        splits: whose rows stand in this format.
    """

    task: str
    row: Callable[[int], Row]
    turns_up: Mapping[str, str]
    files: Callable[[Mapping[str, Sequence[Row]]], Mapping[str, bytes]]
    target: str
    splits: tuple[str, str] = ("train", "target")

    def write(self, folder: Path, split: str, column: str, text: str) -> str:
        """The folder; what names the task in a configuration."""
        numbers = {"train": range(8), "dev": range(20, 24), "test": range(40, 44), "target": None}
        rows = {
            name: [self.row(n) for n in numbers[name] or range(40, 44)]
            for name in ("train", "dev", "test", "target")
        }
        rows[split][1][column] = text
        for name, content in self.files(rows).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(folder / self.task) if self.task.endswith(".yaml") else self.task


def as_table(
    rows: Sequence[Row],
    columns: Sequence[str],
    kind: Literal["quoted", "bare", "csv"],
    header: bool = True,
) -> bytes:
    """A table; where there are no quotes, what breaks it breaks it."""
    lines = [list(columns)] * header + [[str(row[name]) for name in columns] for row in rows]
    if kind == "bare":
        text = "".join("\t".join(line) + "\n" for line in lines)
    else:
        file = io.StringIO()
        delimiter = "," if kind == "csv" else "\t"
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(lines)
        text = file.getvalue()
    return text.encode("utf-8", "surrogatepass")


def as_lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_squad(rows: Sequence[Row]) -> bytes:
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": [{"text": row["answer"], "answer_start": 0}],
                }
            ],
        }
        for row in rows
    ]
    return json.dumps(
        {"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]}
    ).encode()


def _sib200(n: int) -> Row:
    topic = ("sports", "travel", "health", "politics")[n % 4]
    return {"index_id": str(n), "category": topic, "text": f"A sentence, number {n}."}


def _nli(n: int) -> Row:
    label = ("entailment", "neutral", "contradiction")[n % 3]
    return {"premise": f"He saw {n}.", "hypothesis": f"Somebody saw {n}.", "label": label}


def _paws(n: int) -> Row:
    return {"id": str(n), "sentence1": f"One {n} .", "sentence2": f"{n} one .", "label": str(n % 2)}


def _copa(n: int) -> Row:
    texts = {
        "premise": f"It rained {n}.",
        "choice1": f"It is wet {n}.",
        "choice2": f"It is dry {n}.",
    }
    return {**texts, "question": "effect", "label": n % 2, "idx": str(n)}


def _belebele(n: int) -> Row:
    answers = {f"mc_answer{i}": f"answer {i} of {n}" for i in range(1, 5)}
    question = {"flores_passage": f"A passage {n}.", "question": f"What is {n}?"}
    return {
        "link": f"x/{n}",
        "question_number": 1,
        **question,
        **answers,
        "correct_answer_num": "2",
    }


def _squad(n: int) -> Row:
    context = f"In {n} there was a garden of {n} trees."
    return {
        "id": f"q{n}",
        "context": context,
        "question": f"How many in {n}?",
        "answer": f"{n} trees",
    }


def _problem(n: int) -> Row:
    return {"question": f"{n} and one more?", "answer_number": str(n + 1)}


def _solution(n: int) -> Row:
    return {"question": f"{n} and two more?", "answer": f"{n} + 2 = {n + 2}\n#### {n + 2}"}


def _review(n: int) -> Row:
    return {"n": str(n), "text": f"A book, number {n}.", "sentiment": ("good", "bad")[n % 2]}


def _written(n: int) -> Row:
    return {"n": f"w{n}", "text": f"A word, number {n}.", "answers": [f"word {n}"]}


SIB = ("index_id", "category", "text")
NLI = ("premise", "hypothesis", "label")
PAWS = ("id", "sentence1", "sentence2", "label")
REVIEW = ("n", "text", "sentiment")
TEXT_FIELDS = {"context": "context", "question": "question", "id": "id", "answer": "answer"}
CHOICES = {
    name: name for name in ("flores_passage", "question", *(f"mc_answer{i}" for i in "1234"))
}

YAML_CHOICE = """\
name: reviews
kind: choice
files: "{split}-{language}.%s"
columns: {label: sentiment, id: n}
languages: [en, de]
prompt: "{{ text }}\\nIs it good?"
choices: {good: "yes", bad: "no"}
"""

YAML_ANSWER = """\
name: words
kind: answer
files: "{split}-{language}.jsonl"
columns: {answers: answers, id: n}
languages: [en, de]
prompt: "{{ text }}\\nWhich word?"
metrics: squad
"""


def _yaml(name: str, spec: str, end: str, write: Callable[[Sequence[Row]], bytes]) -> Any:
    def files(r: Mapping[str, Sequence[Row]]) -> dict[str, bytes]:
        names = {"train": "train-en", "dev": "dev-en", "test": "test-en", "target": "test-de"}
        found = {f"{names[split]}.{end}": write(rows) for split, rows in r.items()}
        return {**found, name: spec.encode()}

    return files


FORMATS = {
    "sib200": Format(
        "sib200",
        _sib200,
        {"index_id": "id", "category": "no text", "text": "text"},
        lambda r: {
            "eng_Latn/train.tsv": as_table(r["train"], SIB, "quoted"),
            "eng_Latn/dev.tsv": as_table(r["dev"], SIB, "quoted"),
            "eng_Latn/test.tsv": as_table(r["test"], SIB, "quoted"),
            "deu_Latn/test.tsv": as_table(r["target"], SIB, "quoted"),
        },
        "de",
    ),
    "xnli": Format(
        "xnli",
        _nli,
        {"premise": "premise", "hypothesis": "hypothesis", "label": "no text"},
        lambda r: {
            "train-en.tsv": as_table(r["train"], NLI, "bare", header=False),
            "dev-en.tsv": as_table(r["dev"], NLI, "bare", header=False),
            "test-en.tsv": as_table(r["test"], NLI, "bare", header=False),
            "test-de.tsv": as_table(r["target"], NLI, "bare"),
        },
        "de",
    ),
    "paws_x": Format(
        "paws_x",
        _paws,
        {"id": "id", "sentence1": "sentence1", "sentence2": "sentence2", "label": "no text"},
        lambda r: {
            "en/train.tsv": as_table(r["train"], PAWS, "bare"),
            "en/dev_2k.tsv": as_table(r["dev"], PAWS, "bare"),
            "en/test_2k.tsv": as_table(r["test"], PAWS, "bare"),
            "de/test_2k.tsv": as_table(r["target"], PAWS, "bare"),
        },
        "de",
    ),
    "xcopa": Format(
        "xcopa",
        _copa,
        {
            **{name: name for name in ("premise", "choice1", "choice2")},
            "question": "no text",
            "label": "no text",
            "idx": "id",
        },
        lambda r: {
            "data/en/train.en.jsonl": as_lines(r["train"]),
            "data/en/val.en.jsonl": as_lines(r["dev"]),
            "data/en/test.en.jsonl": as_lines(r["test"]),
            "data/sw/test.sw.jsonl": as_lines(r["target"]),
        },
        "sw",
    ),
    "belebele": Format(
        "belebele",
        _belebele,
        {**CHOICES, "correct_answer_num": "no text", "link": "in the id"},
        lambda r: {
            "train.jsonl": as_lines(r["train"]),
            "dev.jsonl": as_lines(r["dev"]),
            "eng_Latn.jsonl": as_lines(r["test"]),
            "deu_Latn.jsonl": as_lines(r["target"]),
        },
        "de",
    ),
    "belebele's training set": Format(
        "belebele",
        lambda n: _belebele(n) | {"split": "train" if n < 20 else "dev"},
        {**CHOICES, "correct_answer_num": "no text"},
        lambda r: {
            "belebele_training_set.tsv": as_table(
                [*r["train"], *r["dev"]], (*CHOICES, "correct_answer_num", "split"), "quoted"
            ),
            "eng_Latn.jsonl": as_lines(r["test"]),
            "deu_Latn.jsonl": as_lines(r["target"]),
        },
        "de",
        ("train", "dev"),
    ),
    "xquad": Format(
        "xquad",
        _squad,
        TEXT_FIELDS,
        lambda r: {
            "train.json": as_squad(r["train"]),
            "dev.json": as_squad(r["dev"]),
            "xquad.en.json": as_squad(r["test"]),
            "xquad.de.json": as_squad(r["target"]),
        },
        "de",
    ),
    "mlqa": Format(
        "mlqa",
        _squad,
        TEXT_FIELDS,
        lambda r: {
            "train.json": as_squad(r["train"]),
            "dev-context-en-question-en.json": as_squad(r["dev"]),
            "test-context-en-question-en.json": as_squad(r["test"]),
            "test-context-de-question-de.json": as_squad(r["target"]),
        },
        "de",
    ),
    "tydiqa_goldp": Format(
        "tydiqa_goldp",
        _squad,
        TEXT_FIELDS,
        lambda r: {
            "tydiqa.goldp.en.train.json": as_squad(r["train"]),
            "dev.json": as_squad(r["dev"]),
            "tydiqa.goldp.en.dev.json": as_squad(r["test"]),
            "tydiqa.goldp.sw.dev.json": as_squad(r["target"]),
        },
        "sw",
    ),
    "mgsm": Format(
        "mgsm",
        _problem,
        {"question": "question", "answer_number": "answer"},
        lambda r: {
            "train.jsonl": as_lines([_solution(n) for n in range(8)]),
            "test.jsonl": as_lines([_solution(n) for n in range(20, 24)]),
            "mgsm_en.tsv": as_table(r["test"], ("question", "answer_number"), "bare", header=False),
            "mgsm_de.tsv": as_table(
                r["target"], ("question", "answer_number"), "bare", header=False
            ),
        },
        "de",
        ("test", "target"),
    ),
    "gsm8k": Format(
        "mgsm",
        _solution,
        {"question": "question", "answer": "no text"},
        lambda r: {
            "train.jsonl": as_lines(r["train"]),
            "test.jsonl": as_lines(r["dev"]),
            "mgsm_en.tsv": as_table(
                [_problem(n) for n in range(4)], ("question", "answer_number"), "bare", header=False
            ),
            "mgsm_de.tsv": as_table(
                [_problem(n) for n in range(4)], ("question", "answer_number"), "bare", header=False
            ),
        },
        "de",
        ("train", "dev"),
    ),
    "a YAML task with CSV": Format(
        "reviews.yaml",
        _review,
        {"n": "id", "text": "text", "sentiment": "no text"},
        _yaml("reviews.yaml", YAML_CHOICE % "csv", "csv", lambda r: as_table(r, REVIEW, "csv")),
        "de",
    ),
    "a YAML task with tabs": Format(
        "reviews.yaml",
        _review,
        {"n": "id", "text": "text", "sentiment": "no text"},
        _yaml("reviews.yaml", YAML_CHOICE % "tsv", "tsv", lambda r: as_table(r, REVIEW, "quoted")),
        "de",
    ),
    "a YAML task with JSON": Format(
        "words.yaml",
        _written,
        {"n": "id", "text": "text", "answers": "answer"},
        _yaml("words.yaml", YAML_ANSWER, "jsonl", as_lines),
        "de",
    ),
}
