"""Texts that somebody else wrote, as they can be shown in a line."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

# Controls (cursor, colours, breaks), what turns the text around it, and surrogates.
_HARMFUL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """A text that neither moves the cursor of a terminal nor colours or turns around what stands
    beside it: such characters are written as escapes (``\\x1b``).

    Args:
        text: any.
        keep: characters that stay as they are, such as line breaks.
    """

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        return character if character in keep else character.encode("unicode_escape").decode()

    return _HARMFUL.sub(escape, text)


def _line(text: str) -> str:
    if found := _HARMFUL.search(text):
        raise ValueError(f"the character {found[0]!r} has no place in one line of text")
    return text


Line = Annotated[str, StringConstraints(min_length=1), AfterValidator(_line)]
"""What is shown in terminals and tables: it moves no cursor, and turns nothing around."""
