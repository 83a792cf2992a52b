"""Build ``src/polyprefix/languages/languages.tsv``: one row per language and script.

    python scripts/build_languages.py --linguameta linguameta.tsv --glottolog languages.csv

Names, speakers and tags come from LinguaMeta, families, glottocodes and coordinates from
Glottolog's CLDF ``languages.csv`` (both CC BY 4.0). Branches, resource levels and a few names
are compiled in this file; ``src/polyprefix/languages/SOURCES.md`` says after what.

Raises ``SystemExit`` naming the row when a source lacks what a row cannot do without, or when
two rows would answer to one name or tag.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from polyprefix.languages.lookup import lookup_key
from polyprefix.languages.table import COLUMNS
from polyprefix.tasks.sib200 import LANGUAGE_CODES

Row = dict[str, str]

OTHERS = """
ben_Latn hin_Latn npi_Latn sin_Latn urd_Latn

abk_Cyrl bas_Latn bre_Latn chv_Cyrl cnh_Latn div_Thaa fry_Latn fuc_Latn hmn_Latn hsb_Latn ina_Latn
kpv_Cyrl mey_Arab nde_Latn roh_Latn sah_Cyrl shi_Arab srp_Latn tah_Latn ton_Latn ven_Latn vot_Latn
wal_Latn
"""
"""What Belebele adds to SIB-200, and languages of the packaged model's pretraining text."""

OTHER_SCRIPT = {
    "ace_Arab", "arb_Latn", "ben_Latn", "bjn_Arab", "hin_Latn", "kas_Deva", "knc_Arab", "min_Arab",
    "npi_Latn", "sin_Latn", "srp_Latn", "taq_Tfng", "urd_Latn", "zho_Hant",
}  # fmt: skip
"""Rows that a tag or name means only when it names their script; every other row is a default."""

MACROLANGUAGES = {
    "als": "sqi", "arb": "ara", "ayr": "aym", "azj": "aze", "dik": "din", "fuv": "ful",
    "gaz": "orm", "khk": "mon", "kmr": "kur", "knc": "kau", "lvs": "lav", "nob": "nor",
    "npi": "nep", "ory": "ori", "pbt": "pus", "pes": "fas", "plt": "mlg", "quy": "que",
    "swh": "swa", "taq": "tmh", "uzn": "uzb", "ydd": "yid", "zsm": "msa",
}  # fmt: skip
"""The variety that a macrolanguage's tag and name stand for."""

GLOTTOCODES = {
    "est": "esto1258", "grn": "para1311", "hmn": "hmon1333", "kon": "koon1244",
    "srd": "sard1257", "zho": "mand1415",
}  # fmt: skip
"""For ISO 639-3 codes that Glottolog does not list (macrolanguages): the variety written."""

FAMILIES = {"nqo": "Mande"}
"""Glottolog files N'Ko, a written standard of Manding, under artificial languages."""

SPEAKERS_FROM = {"lvs": "lav", "pes": "fas", "tgl": "fil"}
"""LinguaMeta gives 1 for lvs, for pes a seventh of fas, and for tgl nothing but fil."""

NAMES = {
    "ace": "Acehnese", "acq": "Ta'izzi-Adeni Arabic", "aka": "Akan", "bas": "Basaa",
    "ckb": "Central Kurdish",
    "fry": "West Frisian", "gla": "Scottish Gaelic", "ina": "Interlingua", "kac": "Jingpho",
    "khk": "Halh Mongolian", "lim": "Limburgish", "lua": "Luba-Kasai", "lug": "Ganda",
    "mni": "Meitei", "mya": "Burmese", "nso": "Northern Sotho", "nya": "Nyanja",
    "pan": "Eastern Panjabi", "pes": "Western Persian", "sah": "Sakha", "san": "Sanskrit",
    "sot": "Southern Sotho", "ton": "Tongan",
}  # fmt: skip
"""Where LinguaMeta's name is missing, another variety's, or far from FLORES-200's."""

ALIASES = {
    "acm_Arab": "Iraqi Arabic", "arb_Arab": "Modern Standard Arabic",
    "bod_Tibt": "Lhasa Tibetan;Standard Tibetan", "cat_Latn": "Valencian",
    "ckb_Arab": "Sorani;Kurdish (Sorani)", "est_Latn": "ekk;Standard Estonian",
    "fon_Latn": "Fongbe", "fuv_Latn": "Fula;Fulfulde", "grn_Latn": "gug",
    "hmn_Latn": "mww;White Hmong", "kea_Latn": "Cape Verdean Creole",
    "kmr_Latn": "Kurdish;Kurmanji;Kurdish (Kurmanji)", "kon_Latn": "kng;Kikongo",
    "kpv_Cyrl": "kv;kom;Komi", "luo_Latn": "Dholuo", "mos_Latn": "Mooré", "nld_Latn": "Flemish",
    "nya_Latn": "Chewa", "ory_Orya": "Oriya", "pan_Guru": "Panjabi", "pap_Latn": "Papiamentu",
    "pes_Arab": "Farsi", "prs_Arab": "fa-AF", "ron_Latn": "Moldovan", "run_Latn": "Kirundi",
    "shi_Arab": "Tashelhiyt", "sin_Sinh": "Sinhalese", "spa_Latn": "Castilian",
    "swh_Latn": "Kiswahili", "tgl_Latn": "fil;Filipino", "yue_Hant": "Cantonese;zh-yue",
    "zho_Hans": "cmn;Chinese;Mandarin;Mandarin Chinese",
    "zho_Hant": "zh-TW;zh-HK;zh-MO",
}  # fmt: skip
"""Names and tags that neither source lists for the row."""

BRANCHES = {
    "Germanic": "afr dan deu eng fao fry isl lim ltz nld nno nob swe ydd",
    "Romance": "ast cat fra fur glg ita lij lmo oci por roh ron scn spa srd vec",
    "Slavic": "bel bos bul ces hrv hsb mkd pol rus slk slv srp szl ukr",
    "Baltic": "lit ltg lvs", "Celtic": "bre cym gla gle", "Greek": "ell", "Armenian": "hye",
    "Albanian": "als", "Iranian": "ckb kmr pbt pes prs tgk",
    "Indo-Aryan": "asm awa ben bho div guj hin hne kas mag mai mar npi ory pan san sin snd urd",
    "English-based creole": "tpi", "French-based creole": "hat",
    "Portuguese-based creole": "kea pap",
    "Semitic": "acm acq aeb ajp amh apc arb ars ary arz heb mey mlt tir",
    "Berber": "kab shi taq tzm", "Cushitic": "gaz som", "Chadic": "hau", "Ometo": "wal",
    "Oghuz": "azb azj tuk tur", "Kipchak": "bak crh kaz kir tat", "Karluk": "uig uzn",
    "Oghur": "chv", "Siberian Turkic": "sah", "Mongolic": "khk",
    "Finnic": "est fin vot", "Ugric": "hun", "Permic": "kpv",
    "Sinitic": "yue zho", "Lolo-Burmese": "mya", "Tibetic": "bod dzo",
    "Kuki-Chin-Naga": "cnh lus mni", "Jingpho-Luish": "kac",
    "Vietic": "vie", "Khmeric": "khm", "Munda": "sat", "Tai": "lao shn tha", "Hmongic": "hmn",
    "South Dravidian": "kan mal tam", "South-Central Dravidian": "tel",
    "Japanese": "jpn", "Korean": "kor", "Georgian-Zan": "kat", "Abkhaz-Abaza": "abk",
    "Basque": "eus", "Malayic": "bjn ind min zsm", "Chamic": "ace", "Javanese": "jav",
    "Sundanese": "sun", "Bali-Sasak-Sumbawa": "ban", "South Sulawesi": "bug", "Barito": "plt",
    "Oceanic": "fij mri smo tah ton", "Greater Central Philippine": "ceb tgl war",
    "Northern Luzon": "ilo pag",
    "Bantu": "bas bem cjk kam kik kin kmb kon lin lua lug nde nso nya run sna sot ssw swh tsn tso "
    "tum umb ven xho zul",
    "Kwa": "aka ewe fon twi", "Gur": "kbp mos", "Yoruboid": "yor", "Igboid": "ibo",
    "North-Central Atlantic": "fuc fuv wol", "Ubangi": "sag", "Western Mande": "bam dyu nqo",
    "Western Nilotic": "dik luo nus", "Western Saharan": "knc",
    "Quechua II": "quy", "Aymara": "ayr", "Tupi-Guarani": "grn",
    "Auxiliary language": "epo ina",
}  # fmt: skip
"""Compiled for this project after Glottolog's and WALS's classifications."""

LEVELS = {
    5: "arb deu eng fra jpn spa zho",
    4: "cat ces eus fin hin hrv hun ita kor nld pes pol por rus srp swe tur vie",
    3: "afr arz bel ben bos bul ceb dan ell est glg heb ind kat kaz lit lvs ron slk slv tam tgl "
    "tha ukr urd uzn zsm",
    2: "amh gle hat hau isl lao mar mlt pan san swh tir tsn wol xho yor zul",
    1: "abk ace aka als asm ast ayr azb azj bak bam bho bjn bod bre bug chv ckb crh cym dik div "
    "dzo epo ewe fao fij fry fur fuv gaz gla grn guj hsb hye ibo ilo ina jav kab kan kas kbp khk "
    "khm kik kin kir kmr kon kpv lij lim lin lmo ltg ltz lug mai mal min mkd mri mya nno nob npi "
    "nso nya oci ory pag pap pbt plt quy roh run sag sah sat scn sin smo sna snd som sot srd ssw "
    "sun szl tah tat tel tgk ton tpi tso tuk tum twi uig vec ven war ydd yue",
    0: "awa ban bas bem cnh dyu fon kac kam knc lua lus mag mni mos nde nqo nus prs shi shn taq "
    "tzm umb vot wal",
}
"""Joshi et al. (2020), the published list; SOURCES.md says how its names were read."""

SCRIPTS = {
    "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Cyrl": "Cyrillic",
    "Deva": "Devanagari", "Ethi": "Ethiopic", "Geor": "Georgian", "Grek": "Greek",
    "Gujr": "Gujarati", "Guru": "Gurmukhi", "Hang": "Hangul", "Hans": "Han (Simplified)",
    "Hant": "Han (Traditional)", "Hebr": "Hebrew", "Jpan": "Japanese", "Khmr": "Khmer",
    "Knda": "Kannada", "Laoo": "Lao", "Latn": "Latin", "Mlym": "Malayalam", "Mymr": "Myanmar",
    "Nkoo": "N'Ko", "Olck": "Ol Chiki", "Orya": "Odia", "Sinh": "Sinhala", "Taml": "Tamil",
    "Telu": "Telugu", "Tfng": "Tifinagh", "Thaa": "Thaana", "Thai": "Thai", "Tibt": "Tibetan",
}  # fmt: skip
RIGHT_TO_LEFT = {"Arab", "Hebr", "Nkoo", "Thaa"}


def by_member(groups: dict[str, str]) -> dict[str, str]:
    """Turn ``{group: "a b"}`` into ``{"a": group, "b": group}``; a member in two is an error."""
    members: dict[str, str] = {}
    for group, text in groups.items():
        for member in text.split():
            if member in members:
                raise SystemExit(f"{member}: in {members[member]!r} and in {group!r}")
            members[member] = group
    return members


def bcp47(code: str, meta: dict[str, Row]) -> str:
    """The shortest tag that means this row: a two-letter one where there is one."""
    iso, script = code.split("_")
    own = meta[iso]["bcp_47_code"] if iso in meta else {"ina": "ia", "san": "sa"}.get(iso, iso)
    macro = meta[MACROLANGUAGES[iso]]["bcp_47_code"] if iso in MACROLANGUAGES else own
    tag = macro if len(own) == 3 and len(macro) == 2 else own
    return f"{tag}-{script}" if code in OTHER_SCRIPT else tag


def speakers(iso: str, meta: dict[str, Row]) -> str:
    """LinguaMeta's estimate; the macrolanguage's where the variety it stands for has none."""
    for source in (SPEAKERS_FROM.get(iso, iso), MACROLANGUAGES.get(iso, iso)):
        if source in meta and (number := meta[source]["estimated_number_of_speakers"]):
            return number
    return ""


def aliases(code: str, name: str, meta: dict[str, Row], glotto: Row) -> list[str]:
    """Other names and tags of the row, those this file lists first."""
    found = ALIASES.get(code, "").split(";")
    if code not in OTHER_SCRIPT:
        for source in (code[:3], MACROLANGUAGES.get(code[:3], "")):
            if row := meta.get(source):
                found += [source, row["bcp_47_code"], row["iso_639_2b_code"], row["english_name"]]
                # Of the deprecated tags people still write the two-letter ones (iw, in, ji).
                found += [tag for tag in row["deprecated_bcp_47_code"].split(", ") if len(tag) == 2]
        found.append(glotto["Name"])
    by_key: dict[str, str] = {}
    for alias in found:
        by_key.setdefault(lookup_key(alias), alias)
    for known in (name, code[:3], bcp47(code, meta), ""):
        by_key.pop(lookup_key(known), None)
    # A comma separates the items of a language list on the command line.
    return [alias for alias in by_key.values() if "," not in alias]


def build(meta: dict[str, Row], glottolog: dict[str, Row], by_iso: dict[str, Row]) -> list[Row]:
    """All rows in the order of their codes."""
    branch = by_member(BRANCHES)
    level = by_member({str(number): codes for number, codes in LEVELS.items()})
    rows = []
    for code in sorted([*LANGUAGE_CODES, *OTHERS.split()]):
        iso, script = code.split("_")
        glotto = glottolog[GLOTTOCODES[iso]] if iso in GLOTTOCODES else by_iso.get(iso)
        if glotto is None or iso not in branch or not (iso in NAMES or iso in meta):
            raise SystemExit(f"{code}: no glottocode, no branch or no name")
        if glotto["Is_Isolate"] == "true":
            family = f"Isolate ({glotto['Name']})"
        else:
            family = FAMILIES.get(iso) or glottolog[glotto["Family_ID"]]["Name"]
        family = family.replace("Artificial Language", "Constructed")
        name = NAMES.get(iso) or meta[iso]["english_name"]
        if iso == "zho":
            name = "Chinese (Simplified)" if script == "Hans" else "Chinese (Traditional)"
        elif code in OTHER_SCRIPT:
            name = f"{name} ({SCRIPTS[script]} script)"
        values = [
            code, iso, bcp47(code, meta), name, family, branch[iso], script, SCRIPTS[script],
            "rtl" if script in RIGHT_TO_LEFT else "ltr", level.get(iso, ""), speakers(iso, meta),
            *(f"{float(glotto[k]):.4f}" if glotto[k] else "" for k in ("Latitude", "Longitude")),
            glotto["Glottocode"], ";".join(aliases(code, name, meta, glotto)),
        ]  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return drop_shared_aliases(rows)


def drop_shared_aliases(rows: list[Row]) -> list[Row]:
    """Remove aliases that mean another row (LinguaMeta calls Akan "Twi"); two names is an error."""
    owner: dict[str, str] = {}
    for row in rows:
        iso = [row["iso639_3"]] if row["code"] not in OTHER_SCRIPT else []
        for text in [row["code"], row["bcp47"], row["name"], *iso]:
            if owner.setdefault(lookup_key(text), row["code"]) != row["code"]:
                raise SystemExit(f"{text!r} means {owner[lookup_key(text)]} and {row['code']}")
    for row in rows:
        kept = []
        for alias in filter(None, row["aliases"].split(";")):
            if owner.setdefault(lookup_key(alias), row["code"]) == row["code"]:
                kept.append(alias)
            else:
                print(f"{row['code']}: {alias!r} left to {owner[lookup_key(alias)]}")
        row["aliases"] = ";".join(kept)
    return rows


def main() -> None:
    """Read the two sources that the command line names and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--linguameta", type=Path, required=True, help="LinguaMeta's TSV")
    parser.add_argument("--glottolog", type=Path, required=True, help="Glottolog's languages.csv")
    default = Path(__file__).parents[1] / "src/polyprefix/languages/languages.tsv"
    parser.add_argument("--output", type=Path, default=default, help="default: %(default)s")
    arguments = parser.parse_args()
    with arguments.linguameta.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        meta = {row["iso_639_3_code"]: row for row in reader}
    with arguments.glottolog.open(encoding="utf-8", newline="") as file:
        glottolog = {row["ID"]: row for row in csv.DictReader(file)}
    by_iso = {row["ISO639P3code"]: row for row in glottolog.values() if row["ISO639P3code"]}
    rows = build(meta, glottolog, by_iso)
    lines = ["\t".join(COLUMNS), *("\t".join(row[column] for column in COLUMNS) for row in rows)]
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows written to {arguments.output}")


if __name__ == "__main__":
    main()
