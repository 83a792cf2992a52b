"""Which of a task's languages a user asks for: ``all``, lists, groups and exclusions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from polyprefix.languages.errors import LanguageNotInTask, UnknownLanguage
from polyprefix.languages.lookup import closest, lookup_key, resolve
from polyprefix.languages.table import Language, languages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUPS: dict[str, Callable[[Language], tuple[str, ...]]] = {
    "family": lambda row: (row.family,),
    "branch": lambda row: (row.branch,),
    "script": lambda row: (row.script, row.script_name),
}
"""The texts by which a language belongs to a group; levels are a range and stand apart."""

SHOWN = 20
"""How many of the available languages an error message lists."""


def parse_languages(spec: str | Sequence[str], available: Sequence[str]) -> list[str]:
    """The codes of ``available`` that ``spec`` asks for, in the order of ``available``.

    Args:
        spec: Items, separated by commas where it is one string. An item is ``all``; anything
            :func:`~polyprefix.languages.resolve` takes; ``family:Turkic``, ``branch:Slavic``,
            ``script:Cyrl`` or ``level:0-2``; or one of these after ``-``, which takes it out
            again whatever its position. Exclusions alone are taken out of ``all``.
        available: The FLORES-200 codes that the task has data for.

    Raises:
        UnknownLanguage: an item, or a group's value, means nothing.
        LanguageNotInTask: an item matches no available language, an exclusion takes out nothing
            that was asked for, or nothing is left.
    """
    text = spec if isinstance(spec, str) else ",".join(spec)
    items = [item for part in text.split(",") if (item := part.strip())]
    if not items:
        raise UnknownLanguage("no language named; `all` takes every language of the task")
    excluded = [item[1:].strip() for item in items if item.startswith("-")]
    included = [item for item in items if not item.startswith("-")] or ["all"]
    wanted = {code for item in included for code in _match(item, available)}
    unwanted: set[str] = set()
    for item in excluded:
        codes = _match(item, available)
        if wanted.isdisjoint(codes):
            raise LanguageNotInTask(f"-{item} takes out nothing that is asked for")
        unwanted.update(codes)
    if wanted <= unwanted:
        raise LanguageNotInTask(f"no language is left of {text!r}")
    return [code for code in dict.fromkeys(available) if code in wanted - unwanted]


def _match(item: str, available: Sequence[str]) -> list[str]:
    """The available codes that one item means; never none."""
    if item.casefold() == "all":
        if not available:
            raise LanguageNotInTask("the task has no language")
        return list(available)
    group, colon, value = item.partition(":")
    if colon:
        belongs = _group(group.strip().casefold(), value.strip(), item)
        table = languages()
        codes = [code for code in available if code in table and belongs(table[code])]
        if not codes:
            raise LanguageNotInTask(
                f"the task has no language of {item!r}; it has {_shown(available)}"
            )
        return codes
    # A task from outside the package may have codes that the table lacks.
    if item in available:
        return [item]
    language = resolve(item)
    if language.code in available:
        return [language.code]
    same = [code for code in available if code.startswith(f"{language.iso639_3}_")]
    hint = f"it has the language as {_shown(same)}" if same else f"it has {_shown(available)}"
    raise LanguageNotInTask(f"the task has no {language.code} ({language.name}); {hint}")


def _group(group: str, value: str, item: str) -> Callable[[Language], bool]:
    """Whether a language belongs to the group that ``item`` names."""
    if group == "level":
        return _levels(value, item)
    if group not in GROUPS:
        there = ", ".join(f"{name}:" for name in (*GROUPS, "level"))
        raise UnknownLanguage(f"unknown group {group!r} in {item!r}; there are {there}")
    texts = GROUPS[group]
    known = {lookup_key(text): text for row in languages().values() for text in texts(row)}
    key = lookup_key(value)
    if key not in known:
        near = [known[match] for match in closest(value, known)] or sorted(set(known.values()))
        raise UnknownLanguage(f"unknown {group} {value!r}; there are {_shown(near)}")
    return lambda row: key in map(lookup_key, texts(row))


def _levels(value: str, item: str) -> Callable[[Language], bool]:
    match = re.fullmatch(r"([0-5])(?:\s*-\s*([0-5]))?", value)
    if match is None or (match[2] and match[2] < match[1]):
        raise UnknownLanguage(f"{item!r} is no resource level; levels are 0 to 5, as level:0-2")
    wanted = range(int(match[1]), int(match[2] or match[1]) + 1)
    return lambda row: row.resource_level in wanted


def _shown(codes: Sequence[str]) -> str:
    """The codes in one line, cut after the first :data:`SHOWN`."""
    more = f" and {len(codes) - SHOWN} more" if len(codes) > SHOWN else ""
    return ", ".join(codes[:SHOWN]) + more
