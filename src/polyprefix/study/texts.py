"""How long the test texts of each language are to the backbone's tokenizer, for the record."""

from __future__ import annotations

from typing import Any

from polyprefix.tasks import Example, TaskData

MEASURED = 200
"""Test examples of a language that are counted: enough for a mean, and soon done."""


def text_counts(data: TaskData, tokenizer: Any) -> dict[str, dict[str, int]]:
    """Sizes of the first test texts by language: ``examples``, ``characters``, ``words`` (between
    white space) and ``tokens`` (without those that a tokenizer puts around a text).

    A text is the fields that the language's prompt shows, without the prompt's own words. Where
    languages are parallel the same examples are counted in all of them, so that tokens can be
    compared.
    """
    counts = {}
    for code, examples in _measured(data).items():
        fields = data.prompts[code].fields
        texts = [example.fields[name] for example in examples for name in fields]
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        counts[code] = {
            "examples": len(examples),
            "characters": sum(map(len, texts)),
            "words": sum(len(text.split()) for text in texts),
            "tokens": sum(map(len, ids)),
        }
    return counts


def _measured(data: TaskData) -> dict[str, list[Example]]:
    if not data.task.parallel:
        return {code: examples[:MEASURED] for code, examples in data.test.items()}
    everywhere = set.intersection(*({e.id for e in examples} for examples in data.test.values()))
    first = [e.id for e in data.test[data.source_language] if e.id in everywhere][:MEASURED]
    wanted = set(first)
    return {
        code: [example for example in examples if example.id in wanted]
        for code, examples in data.test.items()
    }
