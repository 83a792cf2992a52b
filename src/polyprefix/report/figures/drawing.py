"""The look of all figures, and the SVG that a page can hold.

matplotlib draws in the light colours. In a page they are CSS variables with the light colour to
fall back on, so that the page decides:

* ``--ink`` text and what matters, ``--muted`` axes and what is said beside, ``--grid`` grid lines,
  ``--paper`` what stands behind a mark, ``--land`` land on the map;
* ``--series-1`` ... ``--series-8``: methods, in the order of the study. Okabe and Ito's colours,
  which colour-blind readers can tell apart, but for yellow and black, which one of the two
  backgrounds swallows; marks and dashes differ as well;
* ``--scale-1`` ... ``--scale-6``: from low to high scores, on the map; marks grow as well;
* ``--font``: the family of all text, which is text in the SVG.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

INK, MUTED, GRID, PAPER = "#222222", "#6b6b6b", "#d9d9d9", "#ffffff"
LAND = "#ebe8e1"
SERIES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#999933",
    "#882255",
)
SCALE = ("#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#0c2c84")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 3)),
    (0, (9, 2, 2, 2)),
)

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    LAND: "--land",
    **{colour: f"--series-{place}" for place, colour in enumerate(SERIES, start=1)},
    **{colour: f"--scale-{place}" for place, colour in enumerate(SCALE, start=1)},
}
"""The CSS variable of each colour."""

FONT = "'DejaVu Sans', Arial, sans-serif"
DPI = 200
"""Of PNG files."""

SVG = "http://www.w3.org/2000/svg"
HREF = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: stem of its files.
        title: what it is.
        caption: what it shows and how to read it, how many languages, examples and seeds, and what
            the intervals are.
        svg: to stand in a page: colours are CSS variables, ids begin with the name.
        table: the numbers that are drawn.
        drawn: what matplotlib drew.
    """

    name: str
    title: str
    caption: str
    svg: str
    table: pd.DataFrame
    drawn: Drawing = field(repr=False, compare=False)

    def standalone(self) -> str:
        """The SVG of a file: light colours on paper."""
        return _serialised(self.drawn, self.name, self.title, self.caption, page=False)

    def png(self) -> bytes:
        """The PNG of a file: light colours on paper."""
        data = io.BytesIO()
        with look(self.name):
            self.drawn.savefig(
                data, format="png", dpi=DPI, facecolor=PAPER, metadata={"Software": None}
            )
        return data.getvalue()


@contextmanager
def look(salt: str = "polyprefix", colour: str = MUTED) -> Iterator[None]:
    """matplotlib's settings for everything that is drawn here.

    Args:
        salt: what ids of the SVG are made from, instead of chance.
        colour: of axes.
    """
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": INK if colour == MUTED else colour,
        # A method's name may hold a dollar.
        "text.parse_math": False,
        "text.usetex": False,
        "axes.labelcolor": colour,
        "axes.edgecolor": colour,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
        "xtick.color": colour,
        "ytick.color": colour,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def canvas(width: float, height: float) -> Drawing:
    """An empty drawing of a size in inches."""
    return Drawing(figsize=(width, height), layout="constrained")


def bare(ax: Axes, grid: Literal["x", "y", "both"] = "y", colour: str = GRID) -> None:
    """No box, no background, a light grid along ``x``, ``y`` or ``both``."""
    ax.patch.set_alpha(0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=colour, linewidth=0.6)
    ax.set_axisbelow(True)


def raw_svg(drawing: Drawing) -> str:
    """What matplotlib writes, without date, program and background."""
    text = io.StringIO()
    drawing.savefig(text, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    # matplotlib leaves blanks at the ends of lines.
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def finished_figure(
    drawing: Drawing, name: str, title: str, caption: str, table: pd.DataFrame
) -> Figure:
    """A drawing as a figure."""
    svg = _serialised(drawing, name, title, caption, page=True)
    return Figure(name, title, caption, svg, table.reset_index(drop=True), drawing)


def _serialised(drawing: Drawing, name: str, title: str, caption: str, *, page: bool) -> str:
    """The drawing as SVG, for a page or for a file."""
    with look(name):
        text = raw_svg(drawing)
    ET.register_namespace("", SVG)
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet in a page would be the whole page's.
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    linked = {
        target
        for element in root.iter()
        for value in element.attrib.values()
        for target in re.findall(r"(?:^|url\()#([^)]+)", value)
    }
    for element in root.iter():
        if element.get("id") not in linked:
            element.attrib.pop("id", None)
        _localise(element, name, page)
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib.pop("version", None)
    if page:
        root.attrib.pop("height", None)
        root.set("width", "100%")
        # A narrow figure does not grow to the width of a wide page.
        root.set("style", f"max-width: {width * 4 / 3:.0f}px; height: auto")
    else:
        paper = ET.Element(f"{{{SVG}}}rect", {"width": "100%", "height": "100%", "fill": PAPER})
        root.insert(0, paper)
    root.set("stroke-linejoin", "round")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-desc")
    for place, (tag, content) in enumerate((("title", title), ("desc", caption))):
        child = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        child.text = printable(content)
        root.insert(place, child)
    return ET.tostring(root, encoding="unicode") + "\n"


def _localise(element: ET.Element, name: str, page: bool) -> None:
    """Ids that no other figure has, links within the file, colours by name."""
    link = element.attrib.pop(HREF, None) or element.get("href")
    if link is not None:
        element.set("href", link.replace("#", f"#{name}-", 1))
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.attrib['id']}")
    for attribute, value in element.attrib.items():
        if "url(#" in value:
            element.set(attribute, value.replace("url(#", f"url(#{name}-"))
        elif attribute in ("d", "x", "y", "transform"):
            # A hundredth of a point is less than anybody sees.
            element.set(attribute, _LONG.sub(lambda m: f"{float(m.group()):.2f}", value))
    style = element.get("style")
    if style is None:
        return
    style = re.sub(r"font-family: [^;]*", f"font-family: {_font(page)}", style)
    if page:
        style = re.sub(r"#[0-9a-f]{6}\b", _variable, style)
    element.set("style", style)


_LONG = re.compile(r"-?\d+\.\d{3,}")


def _font(page: bool) -> str:
    return f"var(--font, {FONT})" if page else FONT


def _variable(match: re.Match[str]) -> str:
    colour = match.group()
    return f"var({VARIABLES[colour]}, {colour})" if colour in VARIABLES else colour


def printable(text: str, limit: int | None = None) -> str:
    """A text that XML can hold, in one line, cut at a length."""
    clean = "".join(c if c.isprintable() else " " for c in text).strip() or "?"
    return clean if limit is None or len(clean) <= limit else f"{clean[: limit - 1]}…"
