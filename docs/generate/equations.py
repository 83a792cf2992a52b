"""LaTeX as MathML, which browsers show by themselves."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FOUND = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)
"""What the Markdown extension ``arithmatex`` leaves where an equation was."""


def as_mathml(page: str, where: str) -> str:
    """A page whose equations are MathML.

    Raises:
        PluginError: one is not LaTeX; names the page.
    """

    def made(found: re.Match[str]) -> str:
        latex = html.unescape(found["latex"]).strip()
        inline = found["open"] == "("
        try:
            math = convert(latex, display="inline" if inline else "block")
        except Exception as error:
            raise PluginError(f"{where}: equation {latex!r}: {error!r}") from error
        if unknown := re.search(r"\\[A-Za-z]+", math):  # what it does not know it leaves as it is
            raise PluginError(f"{where}: equation {latex!r}: {unknown[0]} is not known")
        label = html.escape(latex, quote=True)
        math = math.replace("<math ", f'<math alttext="{label}" ', 1)
        return math if inline else f'<div class="equation" tabindex="0">{math}</div>'

    return FOUND.sub(made, page)
