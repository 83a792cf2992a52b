"""Build ``src/polyprefix/languages/distances.tsv``: distances of every language from English.

    python scripts/build_distances.py --uriel FOLDER

FOLDER has URIEL's arrays as lang2vec ships them (CC BY-SA 4.0). What the columns mean, and how
they are computed, is said in ``polyprefix.analysis.uriel``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from polyprefix.analysis.uriel import PACKAGED_SOURCE, read_uriel, uriel_distances
from polyprefix.languages import languages


def main() -> None:
    """Read the arrays that the command line names and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--uriel", type=Path, required=True, help="folder with URIEL's .npz files")
    default = Path(__file__).parents[1] / "src/polyprefix/languages/distances.tsv"
    parser.add_argument("--output", type=Path, default=default, help="default: %(default)s")
    arguments = parser.parse_args()
    table = uriel_distances(read_uriel(arguments.uriel), PACKAGED_SOURCE, list(languages()))
    table.to_csv(arguments.output, sep="\t", float_format="%.4f", lineterminator="\n")
    print(f"{len(table)} rows written to {arguments.output}")


if __name__ == "__main__":
    main()
