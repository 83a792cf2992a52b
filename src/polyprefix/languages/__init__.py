"""The one table of languages, and how its rows are found.

Reads ``languages.tsv`` with the standard library; imports neither torch nor pandas.
"""

from polyprefix.languages.errors import LanguageNotInTask, UnknownLanguage
from polyprefix.languages.lookup import get, resolve
from polyprefix.languages.selection import parse_languages
from polyprefix.languages.table import Language, languages

__all__ = [
    "Language",
    "LanguageNotInTask",
    "UnknownLanguage",
    "get",
    "languages",
    "parse_languages",
    "resolve",
]
