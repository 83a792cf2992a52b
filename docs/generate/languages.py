"""The table of languages as a page."""

from __future__ import annotations

from collections import Counter

from docs.generate.text import ROOT, code, table
from polyprefix.languages import languages

INTRODUCTION = """# Languages

{count} rows, a language in a script each, in {scripts} scripts and {families} families, named as
FLORES-200 names them: ISO 639-3 for the language, ISO 15924 for the script. Wherever a language is
asked for, its code, its BCP-47 tag and its English name will do: `swh_Latn`, `sw` and `Swahili` are
the same.

| item of `--languages` | means |
|---|---|
| `sw`, `Swahili`, `swh_Latn` | a language |
| `family:Uralic`, `branch:Slavic` | all of the task's languages of a family or branch |
| `script:Cyrl`, `script:Cyrillic` | all in a script |
| `level:0-2` | all with these resource levels (Joshi et al. 2020), of 0 to 5 |
| `all` | all |
| `-en`, `-script:Latn` | not these |

Items are joined by commas, and exclusions count wherever they stand. `polyprefix list languages`
prints the table in a terminal.

"""


def page() -> str:
    """All languages, then where their data come from."""
    rows, known = [], list(languages().values())
    for language in known:
        rows.append(
            (
                language.name,
                code(language.code),
                code(language.bcp47),
                language.family,
                language.branch,
                f"{language.script_name}{' ←' if language.direction == 'rtl' else ''}",
                "" if language.resource_level is None else str(language.resource_level),
                "" if language.speakers is None else f"{language.speakers:,}",
            )
        )
    columns = ("language", "code", "BCP-47", "family", "branch", "script", "level", "speakers")
    text = INTRODUCTION.format(
        count=len(known),
        scripts=len(Counter(language.script for language in known)),
        families=len(Counter(language.family for language in known)),
    )
    sources = (ROOT / "src/polyprefix/languages/SOURCES.md").read_text(encoding="utf-8")
    # Its title becomes a section of this page, and its sections stand below that.
    sources = sources.replace("\n### ", "\n#### ").replace("\n## ", "\n### ")
    sources = sources.replace("# Sources of the tables", "\n## Sources")
    return f"{text}{table(columns, rows)}\n← is written from right to left.\n{sources}"
