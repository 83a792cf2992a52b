"""Errors of the language table."""

from __future__ import annotations

from polyprefix.config import DataError


class UnknownLanguage(DataError):
    """A text that names no language of the table; the message suggests what may be meant."""


class LanguageNotInTask(UnknownLanguage):
    """A known language, or group of languages, that the task at hand has no data for."""
