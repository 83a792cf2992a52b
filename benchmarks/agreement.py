"""Do runs score as lm-evaluation-harness does? Example by example, on the same model and data.

    python benchmarks/agreement.py --data DATA --model polyprefix/nano

Both sides are complete. Theirs: the harness's own task file makes prompts and choices, and its
``HFLM`` answers. Ours: the task with its prompt ``lm-eval``, scored and decoded as in a run. Rows
are read by our task and handed to theirs in the hub's columns. The model is as it is, without an
adapter. Printed for each task and language: how many examples have the same answer, the largest
difference between two log-probabilities (natural, summed over an answer's tokens), and each side's
headline score. Examples that do not fit the model's context are left out: of what is cut, a run
keeps the begin-of-text token, and the harness does not.

``DATA`` holds a folder for each task, whose name begins with the task's, in the form that the
task's ``layout`` says; those that are not there are passed over. Needs ``polyprefix[harness]``.
Exit status 1: the sides do not agree (:meth:`Agreement.holds`), or there was nothing to compare.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_DATASETS_OFFLINE"] = "1"  # before datasets is imported, which reads it then

import datasets
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polyprefix.config import DecodingConfig, ModelConfig, RuntimeConfig, TaskConfig
from polyprefix.evaluation import summarise
from polyprefix.evaluation.answer_metrics import score_answer
from polyprefix.methods import AdaptedModel
from polyprefix.models import PACKAGED, load_backbone
from polyprefix.study.fit import Fitting
from polyprefix.tasks import AnswerTask, ChoiceTask, Example, Task, get_task, load_task_data

TOLERANCE = 1e-3
"""Of log-probabilities, which are sums over up to hundreds of tokens, in float32."""

FILES = {
    "sib200": ("afrobench/sib/prompt_1/sib_{}.yaml", {"eng_Latn": "eng", "swh_Latn": "swa"}),
    "xnli": ("xnli/xnli_{}.yaml", {"eng_Latn": "en", "swh_Latn": "sw"}),
    "belebele": ("belebele/belebele_{}.yaml", {"eng_Latn": "eng_Latn", "deu_Latn": "deu_Latn"}),
    "xquad": ("xquad/xquad_{}.yaml", {"eng_Latn": "en", "spa_Latn": "es"}),
    "mgsm": ("mgsm/direct/mgsm_direct_{}.yaml", {"eng_Latn": "en", "spa_Latn": "es"}),
}
"""The harness's file for each task, and its codes of the languages."""

TEXTS = ("task", "language")
NUMBERS = ("examples", "left out", "distinct", "equal", "difference", "ours", "theirs")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One task in one language: how many ``examples`` were compared and ``left_out``, how many
    ``distinct`` answers there are, and how many examples have an ``equal`` one on both sides.
    ``difference`` is ``None`` for written answers."""

    task: str
    language: str
    examples: int
    left_out: int
    distinct: int
    equal: int
    difference: float | None
    ours: float
    theirs: float

    @property
    def holds(self) -> bool:
        """Whether this is as close as rounding allows. Answers that are chosen may differ where
        two choices are as good as equal; written ones are the same or not."""
        if self.difference is None:
            return self.equal == self.examples
        return self.difference < TOLERANCE


def harness_task(file: str, examples: Sequence[Example], task: Task) -> Any:
    """The harness's task, with our examples in place of the hub's rows."""
    rows = datasets.Dataset.from_list([hub_row(example, task) for example in examples])
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / file, resolve_func=False)
    # Its metrics are not used, and may want modules or files of the hub that are not here.
    for key in ("tag", "metric_list", "process_results"):
        config.pop(key, None)
    splits = dict.fromkeys(("train", "validation", "test"), rows)
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: splits})


def hub_row(example: Example, task: Task) -> dict[str, Any]:
    """An example in the columns of every dataset: a task's template takes its own."""
    row: dict[str, Any] = {**example.fields, "id": example.id, "label": example.label}
    if isinstance(task, ChoiceTask):
        row["correct_answer_num"] = str(example.label + 1)
        return row | {"category": task.labels[example.label]}
    row["answers"] = {"text": list(example.answers)}
    return row | {"answer": None, "answer_number": example.answers[0]}


def compare(fitting: Fitting, lm: HFLM, language: str, file: str, tokens: int) -> Agreement:
    """Our side and theirs on all test examples of a language that fit the context; ``tokens`` is
    the most that a written answer has."""
    task = fitting.data.task
    written = isinstance(task, AnswerTask)
    examples = fitting.data.test[language]
    theirs = harness_task(file, examples, task)
    kept, asked = [], []
    for example, document in zip(examples, theirs.eval_docs, strict=True):
        context = theirs.fewshot_context(document, num_fewshot=0)
        made = theirs.construct_requests(document, context)
        if written:
            made.arguments = (context, made.args[1] | {"max_gen_toks": tokens})
        requests = [made] if written else made
        texts = [context] if written else ["".join(request.args) for request in requests]
        if max(len(lm.tok_encode(text)) for text in texts) + tokens * written <= lm.max_length:
            kept.append(example)
            asked.append(requests)
    if not kept:
        raise SystemExit(f"{task.name}, {language}: no example fits {lm.max_length} tokens")
    flat = [request for requests in asked for request in requests]
    said = iter((lm.generate_until if written else lm.loglikelihood)(flat, disable_tqdm=True))
    rows = fitting.predict(language, kept)
    differences, equal, right = [], 0, 0.0
    for example, requests, row in zip(kept, asked, rows, strict=True):
        answer = [next(said) for _ in requests]
        if isinstance(task, AnswerTask):
            text = answer[0].strip()
            equal += text == row["prediction"]
            scores = score_answer(task.metrics, text, example.answers, language)
            right += scores[task.headline] or 0.0
        elif isinstance(task, ChoiceTask):
            values = [value for value, _ in answer]
            differences += [abs(a - b) for a, b in zip(values, row["logprobs"], strict=True)]
            best = values.index(max(values))
            equal += task.labels[best] == row["prediction"]
            right += best == example.label
    return Agreement(
        task=task.name,
        language=language,
        examples=len(kept),
        left_out=len(examples) - len(kept),
        distinct=len({row["prediction"] for row in rows}),
        equal=equal,
        difference=max(differences, default=None),
        ours=summarise(task, rows)[task.headline],
        theirs=right / len(kept),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what there is; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folders of the tasks' files")
    parser.add_argument("--model", default="polyprefix/nano", help="a name, or a folder")
    parser.add_argument("--choices", type=int, default=200, help="examples of a task of choices")
    parser.add_argument("--answers", type=int, default=50, help="examples of a task that writes")
    parser.add_argument("--tokens", type=int, default=32, help="of a written answer")
    options = parser.parse_args(arguments)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = AdaptedModel(load_backbone(ModelConfig(name=options.model)))
    name = str(PACKAGED.get(options.model, options.model))
    lm = HFLM(pretrained=name, dtype="float32", device="cpu", batch_size=8)
    decoding = DecodingConfig(max_new_tokens=options.tokens)
    found: list[Agreement] = []
    for name, (pattern, languages) in FILES.items():
        for folder in sorted(options.data.glob(f"{name}*"))[:1]:
            written = isinstance(get_task(name), AnswerTask)
            keys = {"data": str(folder), "languages": tuple(languages)}
            keys["test_samples"] = options.answers if written else options.choices
            config = TaskConfig(name=f"{name}@lm-eval", **keys)
            data = load_task_data(config, seed=0, with_training=False)
            fitting = Fitting(model, data, lm.max_length, RuntimeConfig(), decoding)
            for code, own in languages.items():
                found.append(compare(fitting, lm, code, pattern.format(own), options.tokens))
    table = Table(box=SIMPLE_HEAD)
    for column in (*TEXTS, *NUMBERS):
        table.add_column(column, justify="left" if column in TEXTS else "right")
    for row in found:
        difference = "" if row.difference is None else f"{row.difference:.1e}"
        counts = (str(row.examples), str(row.left_out), str(row.distinct), str(row.equal))
        scores = (f"{row.ours:.3f}", f"{row.theirs:.3f}")
        table.add_row(row.task, row.language, *counts, difference, *scores)
    Console(width=100).print(table)
    return int(not found or not all(row.holds for row in found))


if __name__ == "__main__":
    sys.exit(main())
