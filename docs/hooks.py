"""Hooks of mkdocs: what the site has that is not written by hand, and so cannot go stale.

Pages that are made whole: see :func:`pages`. Parts of pages: a line ``<!-- generate: NAME -->``
becomes what :data:`PARTS` or :data:`METHOD_PARTS` has under that name. Equations become MathML
while the site is built, so that a page needs no script and no font for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "src")) if path not in sys.path]

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.exceptions import PluginError  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from docs.generate import (  # noqa: E402  # noqa: E402
    cli,
    configuration,
    equations,
    families,
    included,
    languages,
    methods,
    offline,
    python,
    tables,
    tasks,
)

PARTS: dict[str, Callable[[], str]] = {
    "methods": methods.overview,
    "learning rates": methods.rates,
    "parameters": methods.parameters,
    "studies": tables.studies,
    "families": families.table_of,
    "score names": tables.score_names,
    "two commands": partial(included.section, "README.md", "Two commands"),
    "why not PEFT": partial(included.section, "README.md", "Why not PEFT alone"),
    "papers": partial(included.section, "README.md", "The papers"),
}
"""Parts of any page."""

METHOD_PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "diagram": lambda meta: methods.diagram(meta["method"]),
    "method": lambda meta: methods.facts(meta["method"], meta["formula"]),
    "method keys": lambda meta: methods.keys(meta["method"]),
}
"""Parts of a method's page, from its front matter."""

OPTIONAL = {"benchmarks.md"}
"""Pages that the navigation leaves out where they are not there."""


def pages() -> dict[str, str]:
    """The pages that are made whole, by their place below ``docs``."""
    return {
        **tasks.pages(),
        "models/languages.md": languages.page(),
        "models/nano.md": included.page("src/polyprefix/models/packaged/nano/README.md"),
        "reference/cli.md": cli.page(),
        "reference/configuration.md": configuration.page(),
        **python.pages(),
        "explanation/architecture.md": included.page("ARCHITECTURE.md"),
        "explanation/speed.md": included.page("benchmarks/README.md"),
        "changelog.md": included.page("CHANGELOG.md"),
        "contributing.md": included.page("CONTRIBUTING.md"),
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made; put what is there into the navigation."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    config.nav = expanded(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def expanded(nav: Any, known: list[str]) -> Any:
    """A navigation whose ``FOLDER/*`` are the pages of a folder."""
    if isinstance(nav, dict):
        return {name: expanded(below, known) for name, below in nav.items()}
    if not isinstance(nav, list):
        return nav
    found: list[Any] = []
    for item in nav:
        if isinstance(item, str) and item.endswith("/*"):
            inside = item.removesuffix("*")
            found += [p for p in known if p.startswith(inside) and p != f"{inside}index.md"]
        elif not (
            isinstance(item, dict) and OPTIONAL.difference(known) & set(map(str, item.values()))
        ):
            found.append(expanded(item, known))
    return found


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in the parts that are made.

    Raises:
        PluginError: a page asks for a part that there is not.
    """

    def made(name: str) -> str:
        if name in PARTS:
            return PARTS[name]()
        if name in METHOD_PARTS:
            return METHOD_PARTS[name](page.meta)
        raise PluginError(f"{page.file.src_uri}: nothing generates {name!r}")

    return included.filled(markdown, made)


def on_post_build(config: MkDocsConfig) -> None:
    """Nothing that a page loads is elsewhere.

    Raises:
        PluginError: a page asks another place for something.
    """
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        for address in offline.loaded(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(config.site_dir)} loads {address}")


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Equations as MathML."""
    return equations.as_mathml(html, page.file.src_uri)
