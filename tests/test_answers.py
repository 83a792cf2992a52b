"""Metrics of answers that are spans of text, as SQuAD and MLQA score them."""

from __future__ import annotations

import random

import pytest

from polyprefix.evaluation.answers import (
    MLQA_ARTICLES,
    AnswerScore,
    mlqa_score,
    mlqa_tokens,
    squad_score,
    squad_tokens,
)
from polyprefix.languages import UnknownLanguage

# Language, prediction, gold answers; exact match and F1 of SQuAD's evaluate-v1.1.py, then of
# mlqa_evaluation_v1.py. All figures were computed with those scripts.
OFFICIAL = [
    ("eng_Latn", "The 308-page report.", ["308page report", "a report of 308 pages"], 1, 1, 1, 1),
    ("eng_Latn", "an “Antarctic” — base, the base", ["Antarctic base", "the base"], 0, 0.4, 0, 0.8),
    (
        "eng_Latn",
        "Denver Broncos Denver",
        ["Denver Broncos", "The Denver Broncos!"],
        0,
        0.8,
        0,
        0.8,
    ),
    ("eng_Latn", "the", ["a", "an the"], 1, 0, 1, 0),
    ("eng_Latn", "", ["Beyoncé"], 0, 0, 0, 0),
    ("eng_Latn", "theatre + $5 (about)", ["Theatre 5 about", "theatre"], 1, 1, 1, 1),
    ("deu_Latn", "Einer der 24 Männer", ["24 Männern", "die 24 männer"], 0, 0.571428571429, 1, 1),
    (
        "deu_Latn",
        "„des Kaisers“ neue Kleider, eins",
        ["des Kaisers neue Kleider", "den Kaiser"],
        0,
        0.444444444444,
        0,
        0.857142857143,
    ),
    ("deu_Latn", "STRASSE dem Straße", ["die Straße", "strasse straße"], 0, 0.8, 1, 1),
    ("spa_Latn", "Los 136 un «saco» lo", ["136 sacos", "las 136"], 0, 0.285714285714, 0, 0.5),
    (
        "spa_Latn",
        "¿La Universidad de la Habana?",
        ["universidad de habana", "Universidad"],
        0,
        0.75,
        1,
        1,
    ),
    ("spa_Latn", "unas, unos / una el", ["unas casas", ""], 0, 0.333333333333, 1, 0),
    (
        "vie_Latn",
        "những ngôi nhà của Kawann Short",
        ["Kawann Short", "ngôi nhà kawann short"],
        0,
        0.8,
        1,
        1,
    ),
    ("vie_Latn", "là cái gì, chiếc xe", ["gì xe", "xe gì"], 0, 0.571428571429, 1, 1),
    ("hin_Deva", "कावन शॉर्ट, चार।", ["कावन शॉर्ट", "चार कावन शॉर्ट।"], 0, 0.8, 0, 1),
    ("hin_Deva", "the चार १२ a", ["चार १२", "a चार"], 1, 1, 0, 0.666666666667),
    ("arb_Arab", "الجامعة، في مصر", ["جامعة مصر", "الجامعة في المصر"], 0, 0.4, 1, 1),
    ("arb_Arab", "كتابال خال ال", ["كتاب خ", "خال"], 0, 0.5, 1, 1),
    ("zho_Hans", "卡万·肖特，24次", ["卡万·肖特 24 次", "卡万肖特"], 0, 0, 1, 1),
    (
        "zho_Hans",
        "北京大学(PKU 1898年)成立",
        ["北京大学PKU", "1898年"],
        0,
        0.666666666667,
        0,
        0.714285714286,
    ),
    ("zho_Hans", "東京タワー鿿 กรุงเทพ", ["東京タワー", "กรุงเทพ 東京"], 0, 0.5, 0, 0.857142857143),
    ("zho_Hans", "24 次次次", ["次24次", "24次 the"], 0, 0, 0, 0.857142857143),
]


@pytest.mark.parametrize(
    ("language", "prediction", "golds", "em", "f1", "mlqa_em", "mlqa_f1"), OFFICIAL
)
def test_figures_of_the_official_scripts(
    language: str,
    prediction: str,
    golds: list[str],
    em: int,
    f1: float,
    mlqa_em: int,
    mlqa_f1: float,
) -> None:
    assert squad_score(prediction, golds) == pytest.approx((em, f1), abs=1e-11)
    assert mlqa_score(prediction, golds, language) == pytest.approx((mlqa_em, mlqa_f1), abs=1e-11)


def test_official_figures_cover_mlqa() -> None:
    assert {case[0] for case in OFFICIAL} == set(MLQA_ARTICLES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The quick, brown fox!", "quick brown fox"),
        ("An apple a day; ANOTHER the-ory", "apple day another theory"),
        ("«a» –the– “an”", "« » – – “ ”"),  # only ASCII punctuation goes
        ("U.S.A.'s  3.5%\u00a0of\tit", "usas 35 of it"),
        ("der Hund", "der hund"),
        ("thea a1 a_b", "thea a1 ab"),
    ],
)
def test_squad_words(text: str, words: str) -> None:
    assert squad_tokens(text) == words.split()


@pytest.mark.parametrize(
    ("language", "articles", "others"),
    [
        ("eng_Latn", "a an the", "thee ana of"),
        ("spa_Latn", "un una unos unas el la los las", "lo uns ella él"),
        ("vie_Latn", "của là cái chiếc những", "cua một"),
        ("deu_Latn", "ein eine einen einem eines einer der die das den dem des", "eins deren dez"),
        ("hin_Deva", "", "एक the"),
        ("zho_Hans", "", "the a"),
        ("ron_Latn", "", "un o the"),
    ],
)
def test_articles_of_mlqa(language: str, articles: str, others: str) -> None:
    for word in [*articles.split(), *articles.upper().split()]:
        assert mlqa_tokens(f"x {word}. y", language) == ["x", "y"]
    for word in others.split():
        assert mlqa_tokens(f"x {word} y", language) == ["x", word, "y"]


def test_arabic_articles_go_inside_words_too() -> None:
    assert mlqa_tokens("الكتاب والقلم مال", "arb_Arab") == ["كتاب", "و", "قلم", "م"]


def test_punctuation_of_mlqa_is_that_of_unicode() -> None:
    assert mlqa_tokens("¿«Qué»? — “x”…", "deu_Latn") == ["qué", "x"]
    assert mlqa_tokens("$5 + 3^2 € ©", "deu_Latn") == ["5", "32", "€", "©"]
    assert mlqa_tokens("चार।", "hin_Deva") == ["चार"]


def test_chinese_is_cut_around_characters_of_the_official_range() -> None:
    assert mlqa_tokens("24次，iPhone手机 x y", "zho_Hans") == [
        "24",
        "次",
        "iphone",
        "手",
        "机",
        "x",
        "y",
    ]
    # kana, other scripts and later characters are not in it
    assert mlqa_tokens("タワー鿿กรุง", "zho_Hans") == ["タワー鿿กรุง"]
    assert mlqa_tokens("24次", "deu_Latn") == ["24次"]


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("tha_Thai", "ที่กรุง iPhone15", "ที่ ก รุ ง iphone15"),
        ("tha_Thai", "ปี๒๕๖๐ครับ", "ปี ๒๕๖๐ ค รั บ"),
        ("jpn_Jpan", "東京タワー1958年、ABC", "東 京 タ ワ ー 1958 年 abc"),
        ("jpn_Jpan", "か\u3099く", "か\u3099 く"),
        ("khm_Khmr", "ភាសា 12", "ភា សា 12"),
        ("lao_Laoo", "ລາວ", "ລ າ ວ"),
        ("mya_Mymr", "မြန်မာ", "မြ န် မာ"),
        ("bod_Tibt", "བོད་ཡིག", "བོ ད ཡི ག"),
        ("zho_Hant", "臺北101鿿", "臺 北 101 鿿"),
        ("yue_Hant", "𠮷野家", "𠮷 野 家"),
        ("kor_Hang", "서울 대학교", "서울 대학교"),
        ("ell_Grek", "ΤΟ Παρίσι·", "το παρίσι"),
        ("ron_Latn", "un oraș; 24 北京", "un oraș 24 北京"),
    ],
)
def test_languages_that_mlqa_lacks(language: str, text: str, words: str) -> None:
    assert mlqa_tokens(text, language) == words.split()


def test_thai_gets_credit_for_part_of_a_phrase() -> None:
    gold = "มหาวิทยาลัยธรรมศาสตร์"
    assert squad_score("ธรรมศาสตร์", [gold]).f1 == 0
    score = mlqa_score("ธรรมศาสตร์", [gold], "tha_Thai")
    # letters with their marks: ธ ร ร ม ศ า ส ต ร์, after ม ห า วิ ท ย า ลั ย
    given, wanted = 9, 18
    assert score == AnswerScore(0.0, pytest.approx(2 * given / (given + wanted)))


@pytest.mark.parametrize("language", sorted(set(MLQA_ARTICLES) - {"zho_Hans"}))
def test_what_is_done_for_thai_never_reaches_the_seven(language: str) -> None:
    words = ["กรุงเทพ", "タワー", "北京24", "မြန်မာ"]
    assert mlqa_tokens(" ".join(words), language) == words


def test_the_best_gold_answer_counts_for_each_figure() -> None:
    golds = ["alpha beta gamma", "alpha"]
    assert squad_score("alpha", golds) == (1.0, 1.0)
    assert squad_score("alpha beta", golds) == (0.0, pytest.approx(0.8))
    assert squad_score("alpha beta", golds[::-1]) == squad_score("alpha beta", golds)


def test_words_count_as_often_as_they_stand_in_both() -> None:
    assert squad_score("x x x", ["x y"]).f1 == pytest.approx(
        2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)
    )
    assert squad_score("x x", ["x x y"]).f1 == pytest.approx(0.8)


def test_answers_without_words() -> None:
    assert squad_score("", [""]) == (1.0, 0.0)
    assert squad_score("the.", ["A"]) == (1.0, 0.0)
    assert squad_score("", ["x"]) == (0.0, 0.0)
    assert mlqa_score("。", ["，"], "zho_Hans") == (1.0, 0.0)


def test_no_gold_answer_and_unknown_languages_are_errors() -> None:
    with pytest.raises(ValueError, match="gold answer"):
        squad_score("x", [])
    with pytest.raises(ValueError, match="gold answer"):
        mlqa_score("x", [], "deu_Latn")
    with pytest.raises(UnknownLanguage, match="deu_Latn"):
        mlqa_score("x", ["x"], "de")


ALPHABET = [
    "the",
    "a",
    "der",
    "las",
    "là",
    "x",
    "Y",
    "24",
    "ال",
    "北京",
    "กรุง",
    "タワー",
    ".",
    "—",
    " ",
    "",
]


def noisy(source: random.Random) -> str:
    return "".join(
        source.choice(ALPHABET) + source.choice(["", " "]) for _ in range(source.randrange(7))
    )


@pytest.mark.parametrize("language", [*MLQA_ARTICLES, "tha_Thai", "jpn_Jpan", "ron_Latn"])
def test_properties_of_the_figures(language: str) -> None:
    source = random.Random(0)
    exact = partial = 0
    for _ in range(60):
        prediction, gold, other = noisy(source), noisy(source), noisy(source)
        gold += source.choice(["", f" {prediction}"])
        for score, words in (
            (lambda p, *g: mlqa_score(p, g, language), lambda t: mlqa_tokens(t, language)),
            (lambda p, *g: squad_score(p, g), squad_tokens),
        ):
            result = score(prediction, gold)
            assert result.exact_match in (0.0, 1.0)
            assert 0.0 <= result.f1 <= 1.0
            assert result == score(gold, prediction)  # both are symmetric
            assert result == score(prediction.upper() + " .", gold)
            assert score(gold, gold) == (1.0, float(bool(words(gold))))
            if result.exact_match and words(gold):
                assert result.f1 == 1.0
            two = score(prediction, gold, other)
            alone = score(prediction, other)
            assert two == tuple(map(max, zip(result, alone, strict=True)))
            exact += int(result.exact_match)
            partial += 0 < result.f1 < 1
    assert exact > 5
    assert partial > 20
