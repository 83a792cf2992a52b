"""From what people write ("sw", "zh-TW", "Swahili") to a row of the table."""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from polyprefix.languages.errors import UnknownLanguage
from polyprefix.languages.table import Language, languages

if TYPE_CHECKING:
    from collections.abc import Iterable

TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(-(?P<script>[a-z]{4}))?"
    r"(-([a-z]{2}|[0-9]{3}))?(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"
)
"""A BCP-47 tag in lower case: language, script, region, variants (RFC 5646, section 2.1)."""

APOSTROPHES = "'`\u02bb\u02bc\u2018\u2019"


def lookup_key(text: str) -> str:
    """The form in which texts are compared: no case, accents or apostrophes, hyphens between."""
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c) and c not in APOSTROPHES)
    return re.sub(r"[\s_-]+", "-", plain.strip().casefold())


@cache
def _index() -> dict[str, Language]:
    """Every key that means a row. Defaults come last so that ISO 639-3 codes mean them."""
    index: dict[str, Language] = {}
    for language in sorted(languages().values(), key=lambda row: "-" not in row.bcp47):
        texts = [language.code, language.bcp47, language.iso639_3, language.name]
        texts += language.aliases
        index.update((lookup_key(text), language) for text in texts)
    return index


def get(code: str) -> Language:
    """The language of one exact FLORES-200 code.

    Raises:
        UnknownLanguage: the table lacks the code; the message suggests what may be meant.
    """
    language = languages().get(code)
    if language is None:
        raise UnknownLanguage(f"unknown language code {code!r}{suggestion(code)}")
    return language


def resolve(text: str) -> Language:
    """The language that a code, tag or English name means; case and accents do not matter.

    Taken are FLORES-200 codes, BCP-47 tags, ISO 639-3 codes, English names and the table's
    aliases. A tag's script picks the row (``zh-Hant``, ``hi-Latn``), and a script that the table
    lacks for the language is an error; a region or variant is passed over (``pt-BR``) unless the
    table lists the tag (``zh-TW``, ``fa-AF``).

    A macrolanguage means one variety: ``ar`` arb_Arab, ``az`` azj_Latn, ``et`` est_Latn, ``fa``
    pes_Arab, ``ku`` kmr_Latn, ``lv`` lvs_Latn, ``mn`` khk_Cyrl, ``ms`` zsm_Latn, ``ne``
    npi_Deva, ``no`` nob_Latn, ``om`` gaz_Latn, ``or`` ory_Orya, ``ps`` pbt_Arab, ``qu``
    quy_Latn, ``sq`` als_Latn, ``sw`` swh_Latn, ``uz`` uzn_Latn, ``zh`` zho_Hans; all of them
    stand in the table's ``bcp47`` and ``aliases``. A language with rows in two scripts means the
    one whose ``bcp47`` names no script.

    Raises:
        UnknownLanguage: nothing of the kind is in the table; the message suggests what may be
            meant.
    """
    index = _index()
    key = lookup_key(text)
    if key in index:
        return index[key]
    if (tag := TAG.fullmatch(key)) and not re.search(r"\s", text.strip()):
        row = index.get(tag["language"])
        if row is not None and tag["script"] is None:
            return row
        if row is not None:
            return _in_script(row, tag["script"], text)
    raise UnknownLanguage(f"unknown language {text!r}{suggestion(text)}")


def _in_script(language: Language, script: str, text: str) -> Language:
    """The row of the same language in another script."""
    rows = [row for row in languages().values() if row.iso639_3 == language.iso639_3]
    for row in rows:
        if row.script.casefold() == script:
            return row
    there = " and ".join(row.code for row in rows)
    raise UnknownLanguage(f"unknown language {text!r}; the table has {language.name} as {there}")


def suggestion(text: str) -> str:
    """``"; did you mean swh_Latn (Swahili)?"``, or how to see the list where nothing is close."""
    index = _index()
    # Several keys may mean one language.
    found = dict.fromkeys(index[key] for key in closest(text, index))
    if not found:
        return "; `polyprefix list languages` shows those there are"
    return f"; did you mean {' or '.join(f'{row.code} ({row.name})' for row in found)}?"


def closest(text: str, keys: Iterable[str]) -> list[str]:
    """The keys, as :func:`lookup_key` makes them, that ``text`` may be a slip for; best first."""
    key = lookup_key(text)
    return [key] if key in (known := list(keys)) else get_close_matches(key, known, cutoff=0.7)
