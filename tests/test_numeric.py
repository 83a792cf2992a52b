"""Metrics of answers that are numbers: as lm-evaluation-harness takes them, and as people write
them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from polyprefix.evaluation.numeric import (
    DECIMAL_COMMA,
    MGSM_STRICT,
    answer_number,
    gsm8k_match,
    harness_exact_match,
    harness_extract,
    mgsm_match,
    numbers_in,
    numeric_match,
)
from polyprefix.languages import UnknownLanguage, languages

# Numbers as lm-evaluation-harness takes them ---------------------------------------------------

MGSM = {
    # FLORES-200 code: MGSM's code, and a sentence that the harness's strict-match takes
    "ben_Beng": ("bn", "The answer is {}."),
    "deu_Latn": ("de", "Die Antwort lautet {}."),
    "eng_Latn": ("en", "The answer is {}."),
    "fra_Latn": ("fr", "La réponse est {}."),
    "jpn_Jpan": ("ja", "答えは{}です。"),
    "rus_Cyrl": ("ru", "Ответ — {}."),
    "spa_Latn": ("es", "La respuesta es {}."),
    "swh_Latn": ("sw", "Jibu ni {}."),
    "tel_Telu": ("te", "సమాధానం {}."),
    "tha_Thai": ("th", "คำตอบคือ {}"),
    "zho_Hans": ("zh", "答案是 {}。"),
}


def test_mgsm_has_eleven_languages() -> None:
    assert set(MGSM_STRICT) == set(MGSM)


@pytest.mark.parametrize("language", MGSM)
def test_strict_match_in_each_language_of_mgsm(language: str) -> None:
    sentence = MGSM[language][1]
    for text in ("18", "-18", "2,125"):
        said = f"5 + 13 = 7. {sentence.format(text)}"
        assert mgsm_match(said, text, language, "strict-match")
        assert mgsm_match(said, text.replace(",", ""), language, "strict-match")
        assert not mgsm_match(said, "19", language, "strict-match")
        assert mgsm_match(said, text, language)
    # the first sentence counts, and nothing else will do
    twice = f"{sentence.format(18)} {sentence.format(19)}"
    assert mgsm_match(twice, "18", language, "strict-match")
    assert mgsm_match(twice, "19", language)
    for wrong in ("18", sentence.format("$18"), sentence.format("१८"), ""):
        assert not mgsm_match(wrong, "18", language, "strict-match")


def test_what_the_harness_does_to_numbers() -> None:
    assert not mgsm_match("The answer is 18.00", "18", "eng_Latn")  # read as 1800
    assert mgsm_match("The answer is 18.00", "1800", "eng_Latn")
    assert mgsm_match("It is -5", "5", "eng_Latn")  # a sign is punctuation
    assert not mgsm_match("It is 18 eggs...", "18", "eng_Latn")  # "..." is the last match
    assert not mgsm_match("उत्तर १८", "18", "hin_Deva")
    assert not mgsm_match("It is 80 000 $", "80000", "eng_Latn")
    assert mgsm_match("It is $18.", "18", "eng_Latn")
    assert mgsm_match("It is 18 $", "18", "eng_Latn")
    assert not mgsm_match("答えは18", "18", "jpn_Jpan", "strict-match")
    assert not mgsm_match("答案是 18", "18", "zho_Hans", "strict-match")
    assert not gsm8k_match("It is -5", "5")
    assert gsm8k_match("It is $1,800.", "1800")
    assert not gsm8k_match("It is 18.00", "18")
    with pytest.raises(ValueError, match="hin_Deva"):
        mgsm_match("x", "18", "hin_Deva", "strict-match")


def test_gsm8k_tasks_of_the_harness() -> None:
    gold = "She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18"
    assert gsm8k_match("So 9 * 2 = 18.\n#### 18\n\n7", gold, "strict-match")
    assert not gsm8k_match("So 9 * 2 = 18.\n#### 18\n\n7", gold)
    assert not gsm8k_match("The answer is 18.", gold, "strict-match")
    assert gsm8k_match("The answer is 18.", "18", "strict-match", "gsm8k_cot")
    # without a character after it, the number loses its last digit
    assert not gsm8k_match("The answer is 18", "18", "strict-match", "gsm8k_cot")
    assert gsm8k_match("The answer is 18", "1", "strict-match", "gsm8k_cot")
    assert gsm8k_match("The answer is 18", "18", task="gsm8k_cot")


def test_parts_of_the_harness() -> None:
    assert harness_extract("3 and -4,5.0 and 6") == "6"
    assert harness_extract("costs $18, or so") == "$18,"
    assert harness_extract("none") is None
    assert harness_extract("a 5 b 6", r"a (\d)") == "5"
    assert harness_extract("5", r"a (\d)") is None
    assert not harness_exact_match(None, "")
    assert harness_exact_match("A.", "a", ignore_case=True, ignore_punctuation=True)
    assert not harness_exact_match("A", "a")
    assert not harness_exact_match("a.", "a")
    # patterns are dropped in their order
    assert harness_exact_match("1,.", "1", regexes_to_ignore=(",", r"\.$"))
    assert not harness_exact_match("1.,", "1", regexes_to_ignore=(r"\.$", ","))


# Numbers as people write them -----------------------------------------------------------------

READ = [
    # digits of other scripts
    ("१८", "hin_Deva", "18"),
    ("১৮টি", "ben_Beng", "18"),
    ("١٨ و ۱۹", "arb_Arab", "18 19"),
    ("๑๘ ฟอง", "tha_Thai", "18"),
    ("౧౮", "tel_Telu", "18"),
    ("１８個", "jpn_Jpan", "18"),
    ("𝟏𝟖", "eng_Latn", "18"),
    ("２，１２５", "jpn_Jpan", "2125"),
    ("१,२५,०००.५०", "hin_Deva", "125000.5"),
    ("١٬٢٣٤٫٥", "arb_Arab", "1234.5"),
    ("m² x₂ ½ ①", "eng_Latn", ""),
    # grouping
    ("2,125 and 1,234,567", "eng_Latn", "2125 1234567"),
    ("2,125", "deu_Latn", "2125"),
    ("2.125 und 1.234.567", "deu_Latn", "2125 1234567"),
    ("1.234.567", "eng_Latn", "1234567"),
    ("80 000 $ et 5 100", "fra_Latn", "80000 5100"),
    ("80\u202f000 80\u00a0000 80\u2009000", "eng_Latn", "80000 80000 80000"),
    ("80 000", "eng_Latn", "80 0"),
    ("2020 500 и 16 3 и 16 1000", "rus_Cyrl", "2020 500 16 3 16 1000"),
    ("1'234'567 1’234 5'10", "eng_Latn", "1234567 1234 5 10"),
    ("1,00,000 12,34,567", "hin_Deva", "100000 1234567"),
    ("1,234 567", "fra_Latn", "1234 567"),
    ("10_000", "eng_Latn", "10000"),
    (r"70{,}000 70\,000 \$70,000 3\,4", "eng_Latn", "70000 70000 70000 3 4"),
    # decimals
    ("18.00 18.50 0.125", "eng_Latn", "18 18.5 0.125"),
    ("12,5 0,125 12,50", "deu_Latn", "12.5 0.125 12.5"),
    ("12,5 12.5", "eng_Latn", "12.5 12.5"),
    ("2.125", "eng_Latn", "2.125"),
    ("1,234.5 1.234,5", "eng_Latn", "1234.5 1234.5"),
    ("1,234.5 1.234,5 1 234,5", "deu_Latn", "1234.5 1234.5 1234.5"),
    ("1,23,456.50", "hin_Deva", "123456.5"),
    ("$.50 -.5 は.75 x.5 ...7", "eng_Latn", "0.5 -0.5 0.75 5 7"),
    ("1/2 -3/4 6/0", "eng_Latn", "0.5 -0.75 6 0"),
    # no numerals
    ("1,2,3", "eng_Latn", "1 2 3"),
    ("12.5.2024 12/25/2024", "deu_Latn", "12 5 2024 12 25 2024"),
    ("10:30", "eng_Latn", "10 30"),
    # sign
    ("-5 −5 －５ –5 (-5) =-5", "eng_Latn", "-5 -5 -5 -5 -5 -5"),
    ("-$5 $-5 −€ 5", "eng_Latn", "-5 -5 -5"),
    ("16-3 16 - 3 10–20 (4)-3", "eng_Latn", "16 3 16 3 10 20 4 3"),
    ("COVID-19 टी-20", "eng_Latn", "19 20"),
    ("答案是-5 คือ-๕", "zho_Hans", "-5 -5"),
    ("\u200f-5 \u200e-\u20665", "arb_Arab", "-5 -5"),
    # what stands around
    ("150% 150 % %150", "tur_Latn", "150 150 150"),
    ("$18 18€ ₹18 ৳18 US$18 ฿18 18円", "eng_Latn", "18 18 18 18 18 18 18"),
    ("**18.** (18). 18,", "eng_Latn", "18 18 18"),
    ("45 m2 45m² 30 см2 10^2 10^{2}", "eng_Latn", "45 45 30 10 10"),
    (
        "8万5000円 8 万 1.5億 2億3000万 -2億3000万",
        "jpn_Jpan",
        "85000 80000 150000000 230000000 -230000000",
    ),
    ("eighteen", "eng_Latn", ""),
]


@pytest.mark.parametrize(("text", "language", "values"), READ)
def test_numbers_are_read(text: str, language: str, values: str) -> None:
    assert numbers_in(text, language) == [Decimal(value) for value in values.split()]


def test_the_table_of_decimal_commas() -> None:
    assert set(languages()) >= DECIMAL_COMMA
    assert {"deu_Latn", "fra_Latn", "rus_Cyrl", "spa_Latn"} == DECIMAL_COMMA & set(MGSM)


DIGITS = {"hin_Deva": "०", "ben_Beng": "০", "tel_Telu": "౦", "tha_Thai": "๐", "arb_Arab": "٠"}


@pytest.mark.parametrize("language", [*MGSM, "hin_Deva", "arb_Arab"])
def test_whatever_is_written_is_read_again(language: str) -> None:
    """Numbers with the language's grouping, decimals, digits and a sign."""
    source = random.Random(1)
    group, point = (".", ",") if language in DECIMAL_COMMA else (",", ".")
    marks = str.maketrans({",": group, ".": point})
    native = {i: chr(ord(DIGITS.get(language, "0")) + i) for i in range(10)}
    for _ in range(300):
        places = source.choice([0, 0, 1, 2])
        number = Decimal(source.randrange(-(10**8), 10**8)) / 10 ** source.randrange(2, 8)
        number = round(number, places)
        written = f"{number:,.{places}f}".translate(marks)
        if source.random() < 0.5:
            written = re.sub(r"\d", lambda match: native[int(match[0])], written)
        if source.random() < 0.5:
            written = written.replace("-", "\u2212")
        spoken = source.choice(["{}", "x {}.", "= ${}", "({})", "**{}** kg", "{}, y"]).format(
            written
        )
        assert numbers_in(spoken, language) == [number], spoken


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 16 eggs, eats 3 and sells 13.", "13"),
        ("So 18.\n#### 18\nThere are 7 days.", "18"),
        ("####18", "18"),
        ("The answer is 18 dollars for 3 days.", "18"),
        ("the final answer is: **$18.50** (or 20)", "18.5"),
        ("The answer is 20 - 12 = 8 a day for 3 days.", "8"),
        ("The answer is 20/3 ≈ 6.67 for 3 of them", "6.67"),
        ("The answer is 18. She has 3 + 4 = 7 left.", "18"),
        ("The answer is 17. No: the answer is 18, not 19", "18"),
        ("The answer is 18. I hope that the answer is clear.", "18"),
        ("The answer is below.\n20 - 12 = 8", "8"),
        (r"Thus \boxed{18}. There are 7 days.", "18"),
        (r"\[ \boxed{\$70{,}000} \] 7", "70000"),
        ("Step-by-Step Answer: 16 eggs minus 3 is 13", "13"),
        ("Die Antwort lautet 18 für 7 Tage", "18"),
        ("Die Antwort ist 18 für 7 Tage", "18"),
        ("La respuesta es 18 en 7 días", "18"),
        ("La réponse est 18 en 7 jours", "18"),
        ("Ответ — 18 за 7 дней", "18"),
        ("Ответ – -18 за 7 дней", "-18"),
        ("Jibu ni 18 kwa siku 7", "18"),
        ("答えは7万ドルです。3日", "70000"),
        ("答案是 18。共7天", "18"),
        ("คำตอบคือ -18 ใน 7 วัน", "-18"),
        ("উত্তর হল ১৮। 7 দিন", "18"),
        ("దశలవారీగా సమాధానం: 16 - 3. సమాధానం 13. 7", "13"),
        ("దశలవారీగా సమాధానం: 16 గుడ్లు, 3, 13", "13"),
    ],
)
def test_the_number_of_an_answer(text: str, number: str) -> None:
    assert answer_number(text) == Decimal(number)


def test_answers_without_a_number_are_none() -> None:
    for text in ("", "I do not know.", "####", "The answer is eighteen.", "m²"):
        assert answer_number(text) is None
        assert numeric_match(text, "18") is None


def test_numeric_match() -> None:
    assert numeric_match("It is $18.00.", "18") is True
    assert numeric_match("It is $18.01.", "18") is False
    assert numeric_match("Es sind 1.800.", 1800, "deu_Latn") is True
    assert numeric_match("It is 1.800.", 1800, "eng_Latn") is False
    assert numeric_match("एक लाख = १,००,०००", "100,000", "hin_Deva") is True
    assert numeric_match("C'est 2,5.", Decimal("2.5"), "fra_Latn") is True
    assert numeric_match("It is -5", "5") is False
    # a gold answer is English whatever the prediction's language
    assert numeric_match("Es sind 2125.", "2,125", "deu_Latn") is True
    assert numeric_match("Es sind 2,1250.", "2.125", "deu_Latn") is True
    assert numeric_match("#### 3", "3 * 1 = 3 eggs in 7 days\n#### 3") is True
    with pytest.raises(ValueError, match="'none' has no number"):
        numeric_match("18", "none")
    with pytest.raises(UnknownLanguage):
        numeric_match("18", "18", "de")
    with pytest.raises(UnknownLanguage):
        numbers_in("18", "German")


def rows(real_data: Path, language: str) -> list[Sequence[str]]:
    path = real_data / "mgsm" / f"mgsm_{MGSM[language][0]}.tsv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


@pytest.mark.parametrize("language", MGSM)
def test_every_gold_answer_of_mgsm(language: str, real_data: Path) -> None:
    sentence = MGSM[language][1]
    found = rows(real_data, language)
    assert len(found) == 250
    for question, gold in found:
        plain = int(gold.replace(",", ""))
        said = f"{question}\n{sentence.format(gold)}"
        assert mgsm_match(said, gold, language, "strict-match")
        assert mgsm_match(said, str(plain), language)
        assert numeric_match(said, gold, language) is True
        assert answer_number(f"{question} {plain}", language) == plain


@pytest.mark.parametrize("language", MGSM)
def test_parallel_questions_of_mgsm_have_the_same_large_numbers(
    language: str, real_data: Path
) -> None:
    """Translators wrote $80,000 as 80.000, 80 000 and 8万; the numbers are the same."""
    compared = 0
    for (english, _), (question, _) in zip(
        rows(real_data, "eng_Latn"), rows(real_data, language), strict=True
    ):
        wanted = {number for number in numbers_in(english) if number >= 100}
        assert wanted <= set(numbers_in(question, language)), question
        compared += len(wanted)
    assert compared > 90
