"""Build ``src/polyprefix/report/figures/land.txt``: the outlines of land on the report's map.

    python -m venv land && land/bin/pip install geopandas==0.14.4 'fiona<1.10' shapely
    land/bin/python scripts/build_land.py

geopandas 0.14, the last that did, comes with Natural Earth's countries at 1:110m, which are in the
public domain (``src/polyprefix/languages/SOURCES.md``). Borders between countries are dissolved: on
the map of a report they would say more than is meant. What is left is simplified, and small islands
are left out. It is not needed to run Polyprefix, so that geopandas is in no list of its packages.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

TOLERANCE = 0.4
"""Degrees by which an outline may move."""

SMALLEST = 1.0
"""Square degrees that a piece of land or a lake must have."""

OUTPUT = Path(__file__).parents[1] / "src/polyprefix/report/figures/land.txt"


def main() -> None:
    """Write the outlines, one a line: longitude and latitude in turns, in tenths of a degree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    lines = [outline(ring) for ring in rings()]
    arguments.output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    points = sum(len(line.split()) // 2 for line in lines)
    print(f"{arguments.output}: {len(lines)} outlines, {points} points")


def rings() -> list[Any]:
    """Outer and inner outlines of all land, the largest first."""
    import geopandas
    from shapely import Polygon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that geopandas 1.0 has no data sets
        countries = geopandas.read_file(geopandas.datasets.get_path("naturalearth_lowres"))
    # Neighbours of different countries do not always meet to the last digit.
    land = countries.geometry.buffer(0.01).unary_union.buffer(-0.01).simplify(TOLERANCE)
    found = [ring for piece in land.geoms for ring in (piece.exterior, *piece.interiors)]
    found = [ring for ring in found if Polygon(ring).area >= SMALLEST]
    return sorted(found, key=lambda ring: -Polygon(ring).area)


def outline(ring: Any) -> str:
    """A ring without its last point, which is the first again."""
    points: list[tuple[int, int]] = []
    for x, y in list(ring.coords)[:-1]:
        point = (max(-1800, min(1800, round(10 * x))), max(-900, min(900, round(10 * y))))
        if not points or point != points[-1]:
            points.append(point)
    return " ".join(f"{x} {y}" for x, y in points)


if __name__ == "__main__":
    main()
