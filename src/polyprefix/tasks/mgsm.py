r"""MGSM: arithmetic word problems in 11 languages, trained on GSM8K.

Shi et al. (2023), "Language Models are Multilingual Chain-of-Thought Reasoners", ICLR,
https://arxiv.org/abs/2210.03057, CC BY-SA 4.0: 250 problems of GSM8K's test set, translated by
people into ten languages. https://github.com/google-research/url-nlp/tree/main/mgsm.

Cobbe et al. (2021), "Training Verifiers to Solve Math Word Problems",
https://arxiv.org/abs/2110.14168, MIT: GSM8K, 7,473 problems to train on, with solutions, and 1,319
to test. https://github.com/openai/grade-school-math. Its solutions hold a calculator's annotations,
``48/2 = <<48/2=24>>24``; they are taken out.

MGSM has no data to train on (8 exemplars apart, which are not read) and no dev split. Trained is on
GSM8K's training set. Dev split is what MGSM leaves of GSM8K's test set, 1,069 problems: MGSM's own
250, its first ones, are left out because they are tested. Whoever also reports a model's score on
GSM8K should know that its checkpoint was chosen there. In a folder without GSM8K's ``test.jsonl`` a
tenth of the problems to train on is held out instead.

Prompts. The task's own asks for a solution with its steps in English; ``direct`` asks for the
number alone. ``lm-eval``, ``lm-eval-en-cot`` and ``lm-eval-native-cot`` are to the byte those of
lm-evaluation-harness 0.4.13, tasks ``mgsm_direct_*``, ``mgsm_en_cot_*`` and ``mgsm_native_cot_*``,
with their stop strings and the harness's limit of 256 tokens, without exemplars. (The harness asks
for a direct answer with an English "Answer:" in seven of the other languages, and writes the
Russian for "step-by-step solution" as one word.) What is trained on is English in every case: the
solution and then "The answer is N.", or N alone.

Solutions are long: ``task.max_length`` has to hold the prompt and 256 tokens more, and where a
tokenizer cuts a script into bytes, a prompt may be over a thousand tokens long.

Answers are scored by the number that they give, "number", and as the harness's filter
``flexible-extract`` does, "harness_number"; see ``polyprefix.evaluation.numeric``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from polyprefix.tasks.base import AnswerTask, HubSplit
from polyprefix.tasks.examples import Example, Row, RowError, Split, SplitName, collect, text_in
from polyprefix.tasks.json_rows import json_rows
from polyprefix.tasks.prompt import Prompt
from polyprefix.tasks.registry import register_task
from polyprefix.tasks.rows import read_table

GSM8K = "openai/gsm8k"
"""On the hub; configuration ``main``."""

LANGUAGE_CODES = {
    "eng_Latn": "en",
    "spa_Latn": "es",
    "fra_Latn": "fr",
    "deu_Latn": "de",
    "rus_Cyrl": "ru",
    "zho_Hans": "zh",
    "jpn_Jpan": "ja",
    "tha_Thai": "th",
    "swh_Latn": "sw",
    "ben_Beng": "bn",
    "tel_Telu": "te",
}

HARNESS_WORDS = {
    "eng_Latn": ("Question:", "Answer:", "Step-by-Step Answer:"),
    "spa_Latn": ("Pregunta:", "Respuesta:", "Respuesta paso a paso:"),
    "fra_Latn": ("Question :", "Réponse :", "Réponse étape par étape :"),
    "deu_Latn": ("Frage:", "Antwort:", "Schritt-für-Schritt-Antwort:"),
    "rus_Cyrl": ("Задача:", "Answer:", "Пошаговоерешение:"),
    "zho_Hans": ("问题：", "Answer:", "逐步解答:"),
    "jpn_Jpan": ("問題：", "Answer:", "ステップごとの答え:"),
    "tha_Thai": ("โจทย์:", "Answer:", "คำตอบทีละขั้นตอน:"),
    "swh_Latn": ("Swali:", "Answer:", "Jibu la Hatua kwa Hatua:"),
    "ben_Beng": ("প্রশ্ন:", "Answer:", "ধাপে ধাপে উত্তর:"),
    "tel_Telu": ("ప్రశ్న:", "Answer:", "దశలవారీగా సమాధానం:"),
}
"""What the harness calls a question, a direct answer and one with its steps."""

STEPS = HARNESS_WORDS["eng_Latn"][2]
ENDS = ("</s>", "<|im_end|>")
"""Stop strings of the harness's tasks, beside the word for a question."""

HUB_SPLITS: Mapping[SplitName, str] = {"test": "test"}
SIZES: Mapping[SplitName, int] = {"train": 7473, "dev": 1319, "test": 250}

SOLUTION = "{{ solution }}\nThe answer is {{ answer }}."

ANNOTATION = re.compile(r"<<[^<>]*>>")
NUMBER = re.compile(r"-?(?:\d+|\d{1,3}(?:,\d{3})+)")


def _harness(question: str, answer: str, target: str = "") -> Prompt:
    return Prompt(
        f"{question} {{{{ question }}}}\n{answer}",
        target=target,
        stop=(question, *ENDS),
        max_new_tokens=256,
    )


VARIANTS = {
    "direct": {
        "": Prompt("Question: {{ question }}\nAnswer:", stop=("\n",), max_new_tokens=32),
    },
    "lm-eval": {
        code: _harness(question, direct) for code, (question, direct, _) in HARNESS_WORDS.items()
    },
    "lm-eval-en-cot": {
        code: _harness(question, STEPS, SOLUTION)
        for code, (question, _, _) in HARNESS_WORDS.items()
    },
    "lm-eval-native-cot": {
        code: _harness(question, steps, SOLUTION)
        for code, (question, _, steps) in HARNESS_WORDS.items()
    },
}


@register_task
class Mgsm(AnswerTask):
    """The number that solves a problem. Fields: ``question``; of GSM8K ``solution``, ``answer``."""

    name = "mgsm"
    title = "MGSM grade-school mathematics"
    paper = "Shi et al. 2023, https://arxiv.org/abs/2210.03057"
    license = "CC BY-SA 4.0"
    hub = "juletxara/mgsm"
    hub_splits = HUB_SPLITS
    dev_share = 0.1
    trained_elsewhere = True
    sizes = SIZES
    metrics = ("number", "mgsm")
    headline = "number"
    stop = ("Question:", *ENDS)
    max_new_tokens = 256
    prompt = Prompt(f"Question: {{{{ question }}}}\n{STEPS}", target=SOLUTION)
    variants = VARIANTS
    language_codes = LANGUAGE_CODES
    columns = ("question", "answer_number")
    layout = (
        "mgsm_<language>.tsv (question, tab, answer; no header) as in google-research/url-nlp, and "
        "GSM8K's train.jsonl and (to select a checkpoint by) test.jsonl, each there or in the "
        "folders mgsm and gsm8k in it"
    )

    def example(self, position: int, row: Row) -> Example:
        """A row of MGSM (``question``, ``answer_number``) or of GSM8K (``question``, ``answer``);
        its id is its position."""
        question = text_in(row, "question")
        if (number := row.get("answer_number")) is not None:
            return Example(str(position), {"question": question}, answers=(_number(number),))
        solution, answer = _solved(text_in(row, "answer"))
        fields = {"question": question, "solution": solution, "answer": answer}
        return Example(str(position), fields, answers=(answer,))

    def unit(self, example: Example) -> str:
        """The question: MGSM's English ones are GSM8K's, word for word."""
        return example.fields["question"]

    def hub_split(self, language: str, split: SplitName) -> HubSplit | None:
        """The tests are MGSM's; English is trained and selected on GSM8K."""
        if split == "test":
            return super().hub_split(language, split)
        if language == "eng_Latn":
            return HubSplit(GSM8K, "main", "train" if split == "train" else "test")
        return None

    def local_files(self, folder: Path, language: str, split: SplitName) -> list[Path]:
        """MGSM's folder with GSM8K's files in it, or a folder with both."""
        if split == "test":
            name = f"mgsm_{self.language_codes[language]}.tsv"
            return [folder / name, folder / "mgsm" / name]
        if language != "eng_Latn":
            return []
        name = "train.jsonl" if split == "train" else "test.jsonl"
        return [folder / name, folder / "gsm8k" / name]

    def read_file(self, path: Path, split: SplitName) -> Split:
        """GSM8K's JSON Lines, or MGSM's table without a header.

        Raises:
            DataError: the file is missing or empty.
        """
        if path.suffix == ".jsonl":
            return collect(str(path), json_rows(path), self.example)
        rows = read_table(path, quoted=False).rows(self.columns, first=1)
        return collect(str(path), rows, self.example)


def _solved(answer: str) -> tuple[str, str]:
    """GSM8K's answer: the solution, without annotations, and the number after ``####``."""
    solution, mark, number = answer.rpartition("####")
    if not mark:
        raise RowError("column 'answer' has no '####' with the number after it")
    plain = ANNOTATION.sub("", solution).strip()
    if not plain:
        raise RowError("column 'answer' has no solution before '####'")
    return plain, _number(number)


def _number(value: object) -> str:
    """A whole number, without commas between thousands: the hub has numbers, the files texts."""
    text = str(value).strip()
    if not NUMBER.fullmatch(text):
        raise RowError(f"the answer {text[:60]!r} is not a whole number")
    return text.replace(",", "")
