"""How far languages are from one another, by kinds of features.

Typological distances are cosine distances between URIEL's feature vectors (Littell et al. 2017), as
lang2vec users compute them:

    distance(a, b) = 1 - a·b / (|a| |b|)

* ``syntactic``, ``phonological``, ``inventory``: binary features, what no source attests filled in
  by URIEL's nearest neighbours (``feature_predictions.npz``). For some languages that is all of
  them, so every distance comes with the share of features that a source attests for the language
  (``feature_averages.npz``); look at it before believing a correlation.
* ``genetic``: membership in the nodes of Glottolog's tree (``family_features.npz``): 1 between
  families.
* ``geographic``: the great-circle distance of the points in the language table, as a share of half
  the Earth's circumference; 0 to 1. Not from URIEL, whose coordinates Glottolog has revised.

URIEL's own published distances were made in a way that could not be reproduced (Toossi et al.
2024); of the formulas in use (cosine, angle) each is a rising function of the other, so ranks and
Spearman correlations do not depend on the choice.

The package holds distances from English, ``languages/distances.tsv``; for another source language
:func:`read_uriel` takes a folder with URIEL's arrays, as lang2vec ships them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from polyprefix.config import DataError
from polyprefix.languages import get

Array = npt.NDArray[np.float64]

PREFIXES = {"syntactic": "S_", "phonological": "P_", "inventory": "INV_"}
"""How the names of a kind's features begin in URIEL."""

KINDS = (*PREFIXES, "genetic", "geographic")
"""The distances there are."""

PACKAGED_SOURCE = "eng_Latn"
"""The language that the packaged distances are from."""

OTHER_CODES = {
    "bos": "hbs",
    "dik": "din",
    "gaz": "orm",
    "lvs": "lav",
    "nno": "nor",
    "npi": "nep",
    "ory": "ori",
    "pbt": "pus",
    "srp": "hbs",
}
"""Where URIEL describes a language of the table under its macrolanguage, and hardly or not at all
under its own code."""


@dataclass(frozen=True)
class Uriel:
    """URIEL's arrays.

    Attributes:
        rows: from ISO 639-3 code to row.
        features: completed binary features by kind, ``[languages, features]``; ``genetic`` too.
        attested: share of a kind's features that a source attests, ``[languages]``.
    """

    rows: dict[str, int]
    features: dict[str, Array]
    attested: dict[str, Array]

    def row(self, code: str) -> int:
        """The row of a language of the table.

        Raises:
            DataError: URIEL lacks it.
        """
        iso = get(code).iso639_3
        name = OTHER_CODES.get(iso, iso)
        if name not in self.rows:
            raise DataError(f"URIEL has no language {name!r} ({code})")
        return self.rows[name]


def read_uriel(folder: Path) -> Uriel:
    """Read ``feature_predictions.npz``, ``feature_averages.npz`` and ``family_features.npz``.

    Raises:
        DataError: a file is missing or is not URIEL's.
    """
    try:
        predicted, attested, family = (
            dict(np.load(folder / f"{name}.npz", allow_pickle=False))
            for name in ("feature_predictions", "feature_averages", "family_features")
        )
        rows = {str(code): row for row, code in enumerate(predicted["langs"])}
        # The files have their languages in different orders.
        order = {str(code): row for row, code in enumerate(attested["langs"])}
        found = attested["data"][[order[code] for code in rows], :, 0] >= 0
        order = {str(code): row for row, code in enumerate(family["langs"])}
        nodes = family["data"][[order[code] for code in rows], :, 0]
        names = np.asarray(predicted["feats"]).astype(str)
        same = bool((names == np.asarray(attested["feats"]).astype(str)).all())
        values = predicted["data"][:, :, 0].astype(np.float64)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DataError(
            f"{str(folder)!r} has not URIEL's arrays as lang2vec ships them: {error}"
        ) from None
    if not same:
        raise DataError(f"{str(folder)!r}: the files' features are not the same")
    columns = {kind: np.char.startswith(names, prefix) for kind, prefix in PREFIXES.items()}
    return Uriel(
        rows,
        {kind: values[:, place] for kind, place in columns.items()}
        | {"genetic": nodes.astype(np.float64)},
        {kind: found[:, place].mean(axis=1) for kind, place in columns.items()},
    )


def cosine_distance(first: Array, others: Array) -> Array:
    """``1 - cos`` between a vector ``[F]`` and each row of ``[K, F]``; 1 where one is all zeros."""
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(first)
    products = others @ first
    cosine = np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.asarray(np.clip(1.0 - cosine, 0.0, 1.0), dtype=np.float64)


def great_circle(
    latitude: float, longitude: float, latitudes: npt.ArrayLike, longitudes: npt.ArrayLike
) -> Array:
    """Distances on a sphere by the haversine formula, as a share of half its circumference.

    Args:
        latitude: of the one point, degrees north.
        longitude: degrees east.
        latitudes: of the others.
        longitudes: of the others.
    """
    phi, others = np.radians(latitude), np.radians(np.asarray(latitudes, dtype=np.float64))
    turn = np.radians(np.asarray(longitudes, dtype=np.float64) - longitude)
    half = np.sin((others - phi) / 2) ** 2 + np.cos(phi) * np.cos(others) * np.sin(turn / 2) ** 2
    return np.asarray(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))) / np.pi, dtype=np.float64)


def uriel_distances(uriel: Uriel, source: str, codes: Sequence[str]) -> pd.DataFrame:
    """Distances from ``source`` of the languages in URIEL, indexed by code.

    Columns: ``syntactic``, ``phonological``, ``inventory``, ``genetic``, and ``attested_<kind>`` of
    the first three.
    """
    origin = uriel.row(source)
    rows = [uriel.row(code) for code in codes]
    values = {
        kind: cosine_distance(features[origin], features[rows])
        for kind, features in uriel.features.items()
    }
    shares = {f"attested_{kind}": share[rows] for kind, share in uriel.attested.items()}
    return pd.DataFrame(values | shares, index=pd.Index(codes, name="language"))


def language_distances(
    source: str, codes: Sequence[str], uriel: Uriel | None = None
) -> pd.DataFrame:
    """Distances of languages from the source, indexed by code.

    Args:
        source: FLORES-200 code.
        codes: of the languages.
        uriel: URIEL's arrays; ``None`` takes the packaged distances, which are from English, and
            for another source has ``geographic`` alone.

    Columns: those of :func:`uriel_distances`, ``geographic``, and ``same_script`` (1 or 0). What is
    not known is NaN.
    """
    index = pd.Index(list(codes), name="language")
    if uriel is not None:
        known = [code for code in codes if get(code).iso639_3 in uriel.rows]
        table = uriel_distances(uriel, source, known).reindex(index)
    elif source == PACKAGED_SOURCE:
        table = _packaged().reindex(index)
    else:
        table = pd.DataFrame(np.nan, index=index, columns=_packaged().columns)
    here = get(source)
    places = [get(code) for code in codes]
    if here.latitude is None or here.longitude is None:
        table["geographic"] = np.nan
    else:
        table["geographic"] = great_circle(
            here.latitude,
            here.longitude,
            [np.nan if place.latitude is None else place.latitude for place in places],
            [np.nan if place.longitude is None else place.longitude for place in places],
        )
    table["same_script"] = [float(place.script == here.script) for place in places]
    return table


@cache
def _packaged() -> pd.DataFrame:
    with files("polyprefix.languages").joinpath("distances.tsv").open(encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t", index_col="language", keep_default_na=False)
