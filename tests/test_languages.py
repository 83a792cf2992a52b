"""The language table: complete for the benchmarks, well-formed, and found by what people write."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import langcodes
import pytest

from polyprefix.languages import (
    Language,
    LanguageNotInTask,
    UnknownLanguage,
    get,
    languages,
    parse_languages,
    resolve,
)
from polyprefix.languages.lookup import lookup_key

words = str.split
ROWS = list(languages().values())
by_code = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)

BELEBELE = words("""
acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng
azj_Latn bam_Latn ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn
deu_Latn ell_Grek eng_Latn est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr
hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn
isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda kat_Geor kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr
kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym mar_Deva
mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya
pan_Guru pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh
slk_Latn slv_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn
swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl
urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn yor_Latn zho_Hans zho_Hant zsm_Latn
zul_Latn
""")

NOT_IN_SIB_200 = {
    *words("""
abk_Cyrl bas_Latn ben_Latn bre_Latn chv_Cyrl cnh_Latn div_Thaa fry_Latn fuc_Latn hin_Latn hmn_Latn
hsb_Latn ina_Latn kpv_Cyrl mey_Arab nde_Latn npi_Latn roh_Latn sah_Cyrl shi_Arab sin_Latn srp_Latn
tah_Latn ton_Latn urd_Latn ven_Latn vot_Latn wal_Latn
""")
}

TASK_TAGS = {
    "xnli": "ar bg de el en es fr hi ru sw th tr ur vi zh",
    "xquad": "ar de el en es hi ro ru th tr vi zh",
    "mgsm": "bn de en es fr ja ru sw te th zh",
    "mlqa": "ar de en es hi vi zh",
    "tydiqa": "ar bn en fi id ja ko ru sw te th",
    "xcopa": "et ht id it qu sw ta th tr vi zh",
    "paws-x": "de en es fr ja ko zh",
}


def test_every_language_of_sib_200_by_number() -> None:
    assert len(languages().keys() - NOT_IN_SIB_200) == 205
    assert languages().keys() >= NOT_IN_SIB_200


def test_every_language_of_sib_200_by_the_data(real_data: Path) -> None:
    folder = real_data / "sib200/data/annotated"
    if not folder.is_dir():
        pytest.skip(f"no SIB-200 at {folder}")
    codes = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    assert codes == languages().keys() - NOT_IN_SIB_200


def test_every_language_of_belebele() -> None:
    assert len(set(BELEBELE)) == 122
    assert set(BELEBELE) <= languages().keys()


@pytest.mark.parametrize("task", TASK_TAGS)
def test_every_language_of_a_task_by_its_tag(task: str) -> None:
    tags = TASK_TAGS[task].split()
    assert [resolve(tag).bcp47 for tag in tags] == tags
    # What a short tag means is never a row that SIB-200 lacks.
    assert not NOT_IN_SIB_200 & {resolve(tag).code for tag in tags}


@by_code
def test_a_row_is_well_formed(row: Language) -> None:
    assert row.code == f"{row.iso639_3}_{row.script}"
    assert all((row.name, row.family, row.branch, row.script_name))
    assert row.direction == ("rtl" if row.script in {"Arab", "Hebr", "Nkoo", "Thaa"} else "ltr")
    assert row.resource_level in {None, 0, 1, 2, 3, 4, 5}
    # Votic is down to 21; a smaller number is a placeholder.
    assert row.speakers is None or 20 < row.speakers < 2_000_000_000
    assert row.latitude is None or -90 <= row.latitude <= 90
    assert row.longitude is None or -180 <= row.longitude <= 180
    assert (row.latitude is None) == (row.longitude is None)
    assert row.glottocode is not None
    assert [row.glottocode[:4].isalnum(), row.glottocode[4:].isdigit()] == [True, True]
    assert not any("," in text or text != text.strip() for text in (row.name, *row.aliases))


def test_rows_are_in_the_order_of_their_codes() -> None:
    assert list(languages()) == sorted(languages())


def test_the_callers_dictionary_is_its_own() -> None:
    languages().clear()
    assert languages()


@pytest.mark.parametrize(
    ("column", "unknown"),
    [
        ("resource_level", "acm acq aeb ajp apc ars ary cjk fuc hmn hne kea kmb luo mey"),
        ("speakers", "aeb ajp apc crh ina san"),
        ("latitude", "nqo"),
    ],
)
def test_what_the_sources_do_not_say(column: str, unknown: str) -> None:
    assert {row.iso639_3 for row in ROWS if getattr(row, column) is None} == set(unknown.split())


def test_no_text_means_two_rows() -> None:
    meant: dict[str, str] = {}
    for row in ROWS:
        for text in (row.code, row.bcp47, row.name, *row.aliases):
            assert meant.setdefault(lookup_key(text), row.code) == row.code, text


def test_two_rows_of_a_language_differ_in_script_only() -> None:
    facts: dict[str, tuple[object, ...]] = {}
    for row in ROWS:
        shared = (row.family, row.branch, row.resource_level, row.speakers, row.glottocode)
        assert facts.setdefault(row.iso639_3, shared) == shared, row.code
    scripts = Counter(row.iso639_3 for row in ROWS)
    assert {iso for iso, number in scripts.items() if number > 1} == set(
        words("ace arb ben bjn hin kas knc min npi sin srp taq urd zho")
    )


def test_classes_of_joshi_et_al_are_complete_where_they_are_small() -> None:
    """The list has 7, 18, 28 and 19 languages in classes 5 to 2.

    Latin (3), Western Punjabi and Konkani (2) are not in the table.
    """
    level = {row.iso639_3: row.resource_level for row in ROWS}
    count = Counter(level.values())
    assert [count[number] for number in (5, 4, 3, 2)] == [7, 18, 28 - 1, 19 - 2]


@pytest.mark.parametrize(
    ("code", "family", "branch", "level"),
    [
        ("eng_Latn", "Indo-European", "Germanic", 5),
        ("swh_Latn", "Atlantic-Congo", "Bantu", 2),
        ("arb_Arab", "Afro-Asiatic", "Semitic", 5),
        ("arz_Arab", "Afro-Asiatic", "Semitic", 3),
        ("heb_Hebr", "Afro-Asiatic", "Semitic", 3),
        ("zho_Hant", "Sino-Tibetan", "Sinitic", 5),
        ("yue_Hant", "Sino-Tibetan", "Sinitic", 1),
        ("hin_Deva", "Indo-European", "Indo-Aryan", 4),
        ("tel_Telu", "Dravidian", "South-Central Dravidian", 1),
        ("tha_Thai", "Tai-Kadai", "Tai", 3),
        ("vie_Latn", "Austroasiatic", "Vietic", 4),
        ("fin_Latn", "Uralic", "Finnic", 4),
        ("hun_Latn", "Uralic", "Ugric", 4),
        ("kaz_Cyrl", "Turkic", "Kipchak", 3),
        ("eus_Latn", "Isolate (Basque)", "Basque", 4),
        ("epo_Latn", "Constructed", "Auxiliary language", 1),
        ("nqo_Nkoo", "Mande", "Western Mande", 0),
        ("hat_Latn", "Indo-European", "French-based creole", 2),
        ("quy_Latn", "Quechuan", "Quechua II", 1),
        ("lus_Latn", "Sino-Tibetan", "Kuki-Chin-Naga", 0),
        ("luo_Latn", "Nilotic", "Western Nilotic", None),
    ],
)
def test_facts(code: str, family: str, branch: str, level: int | None) -> None:
    row = get(code)
    assert (row.family, row.branch, row.resource_level) == (family, branch, level)


def test_a_row_in_full() -> None:
    assert get("swh_Latn") == Language(
        code="swh_Latn",
        iso639_3="swh",
        bcp47="sw",
        name="Swahili",
        family="Atlantic-Congo",
        branch="Bantu",
        script="Latn",
        script_name="Latin",
        direction="ltr",
        resource_level=2,
        speakers=171_000_000,
        latitude=-8.2561,
        longitude=37.624,
        glottocode="swah1253",
        aliases=("Kiswahili", "swa"),
    )


@by_code
def test_resolve_takes_every_form_of_a_row(row: Language) -> None:
    assert get(row.code) is row
    for text in (row.code, row.code.lower(), row.code.replace("_", "-"), row.bcp47, row.name):
        assert resolve(text) is row
        assert resolve(f" {text.upper()} ") is row
    assert all(resolve(alias) is row for alias in row.aliases)
    assert resolve(f"{row.bcp47.split('-')[0]}-{row.script}") is row


@by_code
def test_tags_agree_with_langcodes(row: Language) -> None:
    tag = langcodes.Language.get(row.bcp47)
    assert tag.is_valid()
    # CLDR writes Tagalog as Filipino and Dari as fa-AF, and gives fuv, pbt and quy no short tag.
    apart = {"tgl": "fil", "prs": "fa", "fuv": "ff", "pbt": "ps", "quy": "qu"}
    if row.iso639_3 in apart:
        assert tag.language == apart[row.iso639_3]
        return
    assert langcodes.standardize_tag(row.bcp47) == row.bcp47
    known = {langcodes.standardize_tag(row.iso639_3, macro=macro) for macro in (True, False)}
    assert tag.language in known


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *zip(
            words("ar zh sw fa ms no et lv az uz sq mn ne ps om or ku qu gn yi mg ff kr ay"),
            words(
                "arb_Arab zho_Hans swh_Latn pes_Arab zsm_Latn nob_Latn est_Latn lvs_Latn azj_Latn "
                "uzn_Latn als_Latn khk_Cyrl npi_Deva pbt_Arab gaz_Latn ory_Orya kmr_Latn quy_Latn "
                "grn_Latn ydd_Hebr plt_Latn fuv_Latn knc_Latn ayr_Latn"
            ),
            strict=True,
        ),
        ("zh-Hant", "zho_Hant"),
        ("zh-Hant-HK", "zho_Hant"),
        ("zh_TW", "zho_Hant"),
        ("zh-CN", "zho_Hans"),
        ("cmn-Hant", "zho_Hant"),
        ("Mandarin", "zho_Hans"),
        ("zh-yue", "yue_Hant"),
        ("pt-BR", "por_Latn"),
        ("es-419", "spa_Latn"),
        ("rm-sursilv", "roh_Latn"),
        ("fa-AF", "prs_Arab"),
        ("sr", "srp_Cyrl"),
        ("sr-Latn", "srp_Latn"),
        ("swa_Latn", "swh_Latn"),
        ("aze-Latn", "azj_Latn"),
        ("hi-Latn", "hin_Latn"),
        ("ace", "ace_Latn"),
        ("kas", "kas_Arab"),
        ("iw", "heb_Hebr"),
        ("swa", "swh_Latn"),
        ("fil", "tgl_Latn"),
        ("ger", "deu_Latn"),
        ("ekk", "est_Latn"),
        ("swahili", "swh_Latn"),
        ("PERSIAN", "pes_Arab"),
        ("norwegian bokmal", "nob_Latn"),
        ("Kabiye", "kbp_Latn"),
        ("NKo", "nqo_Nkoo"),
        ("Cantonese", "yue_Hant"),
        ("Kashmiri (Devanagari script)", "kas_Deva"),
    ],
)
def test_resolve(text: str, code: str) -> None:
    assert resolve(text).code == code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Swahilli", r"'Swahilli'; did you mean swh_Latn \(Swahili\)\?"),
        ("swh_Lat", "did you mean swh_Latn"),
        ("en-Cyrl", "the table has English as eng_Latn"),
        ("ks-Latn", "Kashmiri as kas_Arab and kas_Deva"),
        ("tlh", "unknown language 'tlh'"),
        ("xx", "polyprefix list languages"),
        ("", "polyprefix list languages"),
        ("zh-", "unknown language 'zh-'"),
    ],
)
def test_resolve_says_what_may_be_meant(text: str, message: str) -> None:
    with pytest.raises(UnknownLanguage, match=message):
        resolve(text)


@pytest.mark.parametrize("text", ["sw", "Swahili", "swh-Latn", "swa"])
def test_get_takes_codes_only_and_names_the_code(text: str) -> None:
    with pytest.raises(UnknownLanguage, match="did you mean swh_Latn"):
        get(text)


AVAILABLE = words(
    "deu_Latn swh_Latn eng_Latn zho_Hans tur_Latn kaz_Cyrl rus_Cyrl yor_Latn hin_Deva"
)


@pytest.mark.parametrize(
    ("spec", "codes"),
    [
        ("all", AVAILABLE),
        ("ALL,deu_Latn", AVAILABLE),
        ("en, Swahili,de,eng_Latn", "deu_Latn swh_Latn eng_Latn"),
        (["zh", "tr"], "zho_Hans tur_Latn"),
        (["zh,tr", "de"], "deu_Latn zho_Hans tur_Latn"),
        ("family:Turkic", "tur_Latn kaz_Cyrl"),
        ("family:indo-european", "deu_Latn eng_Latn rus_Cyrl hin_Deva"),
        ("branch:Germanic", "deu_Latn eng_Latn"),
        ("script:Cyrl", "kaz_Cyrl rus_Cyrl"),
        ("script:cyrillic,zh", "zho_Hans kaz_Cyrl rus_Cyrl"),
        ("level:2", "swh_Latn yor_Latn"),
        ("level:2-3", "swh_Latn kaz_Cyrl yor_Latn"),
        ("all,-en,-family:Turkic", "deu_Latn swh_Latn zho_Hans rus_Cyrl yor_Latn hin_Deva"),
        ("-en, all", "deu_Latn swh_Latn zho_Hans tur_Latn kaz_Cyrl rus_Cyrl yor_Latn hin_Deva"),
        ("-level:3-5", "swh_Latn yor_Latn"),
        ("level:4-5,-family:Indo-European,-en", "zho_Hans tur_Latn"),
    ],
)
def test_parse_languages(spec: str | list[str], codes: str | list[str]) -> None:
    assert parse_languages(spec, AVAILABLE) == (codes.split() if isinstance(codes, str) else codes)


@pytest.mark.parametrize("group", ["family", "branch", "script", "script_name", "resource_level"])
def test_groups_divide_the_table(group: str) -> None:
    """Every value of a column names a group, and the groups together are all that have one."""
    name = {"script_name": "script", "resource_level": "level"}.get(group, group)
    values = {getattr(row, group) for row in ROWS} - {None}
    chosen = [
        code for value in values for code in parse_languages(f"{name}:{value}", [*languages()])
    ]
    assert sorted(chosen) == [row.code for row in ROWS if getattr(row, group) is not None]


def test_available_twice_is_chosen_once() -> None:
    assert parse_languages("all", ["eng_Latn", "deu_Latn", "eng_Latn"]) == ["eng_Latn", "deu_Latn"]


def test_a_code_of_a_task_from_outside_the_package() -> None:
    assert parse_languages("tlh_Latn,en", ["eng_Latn", "tlh_Latn"]) == ["eng_Latn", "tlh_Latn"]
    assert parse_languages("script:Latn", ["eng_Latn", "tlh_Latn"]) == ["eng_Latn"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fr", r"no fra_Latn \(French\); it has deu_Latn, swh_Latn"),
        ("zh-Hant", r"no zho_Hant .*; it has the language as zho_Hans$"),
        ("family:Uralic", "no language of 'family:Uralic'; it has deu_Latn"),
        ("level:1", "no language of 'level:1'"),
        ("all,-fr", "no fra_Latn"),
        ("de,-en", "-en takes out nothing"),
        ("de,-branch:Germanic", "no language is left"),
    ],
)
def test_languages_that_the_task_lacks(spec: str, message: str) -> None:
    with pytest.raises(LanguageNotInTask, match=message):
        parse_languages(spec, AVAILABLE)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("de,Germn", "did you mean deu_Latn"),
        ("family:Turkik", "unknown family 'Turkik'; there are Turkic"),
        ("script:Xxxx", "unknown script 'Xxxx'; there are"),
        ("genus:Bantu", "unknown group 'genus'.*family:, branch:, script:, level:"),
        ("level:6", "levels are 0 to 5"),
        ("level:3-1", "levels are 0 to 5"),
        ("", "no language named"),
        (" , ", "no language named"),
        ([], "no language named"),
    ],
)
def test_items_that_mean_nothing(spec: str | list[str], message: str) -> None:
    with pytest.raises(UnknownLanguage, match=message):
        parse_languages(spec, AVAILABLE)


def test_a_long_list_is_cut_in_the_message() -> None:
    available = [code for code in languages() if code != "fra_Latn"]
    with pytest.raises(LanguageNotInTask, match=r"and 212 more$") as caught:
        parse_languages("fr", available)
    assert len(str(caught.value)) < 400


def test_importing_loads_neither_torch_nor_pandas() -> None:
    script = (
        "import sys; import polyprefix.languages as languages; languages.get('eng_Latn');"
        "sys.exit(', '.join({'torch', 'pandas', 'numpy', 'langcodes'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
