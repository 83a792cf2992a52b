"""The table of languages: ``languages.tsv`` as immutable records.

One row is one language in one script, named as FLORES-200 names it (``swh_Latn``). The file is
written by ``scripts/build_languages.py``; ``SOURCES.md`` beside it names the source and licence
of every column. Reading it needs the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

Direction = Literal["ltr", "rtl"]


@dataclass(frozen=True, slots=True)
class Language:
    """One language in one script. ``None`` means that the sources do not say."""

    code: str
    """FLORES-200 code: ISO 639-3 and ISO 15924, ``swh_Latn``."""
    iso639_3: str
    """The first part of the code; for some rows (``zho``, ``est``) a macrolanguage's."""
    bcp47: str
    """The shortest BCP-47 tag that means this row: ``sw``, ``zh-Hant``. Unique."""
    name: str
    """English name, unique; a row in a second script names the script."""
    family: str
    """Top-level family as Glottolog names it, ``Isolate (Basque)`` or ``Constructed``."""
    branch: str
    """Genus or branch below the family: ``Germanic``, ``Bantu``."""
    script: str
    """ISO 15924 code."""
    script_name: str
    """English name of the script."""
    direction: Direction
    """Direction of writing."""
    resource_level: int | None
    """Class of Joshi et al. (2020), 0 ("The Left-Behinds") to 5 ("The Winners")."""
    speakers: int | None
    """Estimated speakers of the language, whatever script they write."""
    latitude: float | None
    """Degrees north, a single point for the language."""
    longitude: float | None
    """Degrees east."""
    glottocode: str | None
    """Glottolog's identifier."""
    aliases: tuple[str, ...] = ()
    """Further names and tags that :func:`~polyprefix.languages.resolve` takes for this row."""


COLUMNS = tuple(field.name for field in fields(Language))
"""The file's header: the record's fields in their order."""


@cache
def _table() -> Mapping[str, Language]:
    text = files(__package__).joinpath("languages.tsv").read_text(encoding="utf-8")
    header, *lines = text.splitlines()
    if tuple(header.split("\t")) != COLUMNS:
        raise ValueError(f"languages.tsv: the header is {header!r}, not {COLUMNS}")
    rows = (_parse(line, number) for number, line in enumerate(lines, start=2))
    return MappingProxyType({row.code: row for row in rows})


def _parse(line: str, number: int) -> Language:
    values = line.split("\t")
    if len(values) != len(COLUMNS):
        raise ValueError(f"languages.tsv:{number}: {len(values)} columns, not {len(COLUMNS)}")
    cell = dict(zip(COLUMNS, values, strict=True))
    return Language(
        code=cell["code"],
        iso639_3=cell["iso639_3"],
        bcp47=cell["bcp47"],
        name=cell["name"],
        family=cell["family"],
        branch=cell["branch"],
        script=cell["script"],
        script_name=cell["script_name"],
        direction=cast("Direction", cell["direction"]),
        resource_level=int(cell["resource_level"]) if cell["resource_level"] else None,
        speakers=int(cell["speakers"]) if cell["speakers"] else None,
        latitude=float(cell["latitude"]) if cell["latitude"] else None,
        longitude=float(cell["longitude"]) if cell["longitude"] else None,
        glottocode=cell["glottocode"] or None,
        aliases=tuple(filter(None, cell["aliases"].split(";"))),
    )


def languages() -> dict[str, Language]:
    """Every language by its FLORES-200 code, in the order of the codes.

    The dictionary is the caller's own; changing it changes nothing here.
    """
    return dict(_table())
