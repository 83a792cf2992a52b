"""A quick look at what the packaged model knows: SIB-200 topics by logistic regression.

    python -m pretraining.probe --model <folder of the package> --sib200 <folder of SIB-200>

A classifier is trained on English only, on one frozen vector a sentence, and tested in every
language of the model. Three vectors show where the meaning is:

* `tokens`: the mean of the part of the token embeddings that holds meaning, in which common tokens
  are weighted down (SIF, Arora, Liang and Ma, "A Simple but Tough-to-Beat Baseline for Sentence
  Embeddings", ICLR 2017);
* `middle`: the mean of the hidden states in the middle of the decoder;
* `asked`: the last hidden state after the cue `Topic:`, which is where a prefix reads.

Beside them `tfidf`: logistic regression on TF-IDF weights of English words, which needs no model.

SIB-200 is never trained on here: the backbone stays as it is.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pretraining.embeddings import FORM
from pretraining.languages import CODES, ENGLISH

Array = npt.NDArray[np.float32]
Split = tuple[list[str], list[str]]
"""Texts and their categories."""

STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""Inverse regularisation; chosen on the English dev split."""


def read_split(sib200: Path, language: str, split: str) -> Split:
    """Read `<sib200>/data/annotated/<language>/<split>.tsv`."""
    path = sib200 / "data" / "annotated" / language / f"{split}.tsv"
    if not path.is_file():
        raise FileNotFoundError(f"no SIB-200 split at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL))
    return [row["text"] for row in rows], [row["category"] for row in rows]


class Vectors:
    """Frozen sentence vectors of one model."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.cue = tokenizer("\nTopic:", add_special_tokens=False).input_ids

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> dict[str, Array]:
        """[N, d] by kind of vector (`tokens` narrower), rows of unit length."""
        rows: dict[str, list[torch.Tensor]] = {"tokens": [], "middle": [], "asked": []}
        for text in texts:
            own = self.tokenizer(text, truncation=True, max_length=400).input_ids
            ids = torch.tensor([own + self.cue])
            states = self.model.model(
                input_ids=ids, output_hidden_states=True, use_cache=False
            ).hidden_states
            rows["tokens"].append(states[0][0, 1 : len(own), :-FORM].mean(dim=0))
            rows["middle"].append(states[len(states) // 2][0, 1 : len(own)].mean(dim=0))
            rows["asked"].append(states[-1][0, -1])
        return {
            kind: torch.nn.functional.normalize(torch.stack(each), dim=-1).float().numpy()
            for kind, each in rows.items()
        }


def _classifier(
    train: Array | csr_matrix, labels: list[str], dev: Array | csr_matrix, gold: list[str]
) -> LogisticRegression:
    best: tuple[float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=2000).fit(train, labels)
        accuracy = float(fitted.score(dev, gold))
        if best is None or accuracy > best[0]:
            best = accuracy, fitted
    assert best is not None
    return best[1]


def probe(folder: Path, sib200: Path) -> dict[str, dict[str, float]]:
    """Accuracy on the test split by language and kind of vector, with the majority class."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tests = {code: read_split(sib200, code, "test") for code in CODES}
    train, dev = (read_split(sib200, ENGLISH, split) for split in ("train", "dev"))
    vectors = Vectors(model, tokenizer)
    x_train, x_dev = vectors(train[0]), vectors(dev[0])
    classifiers = {
        kind: _classifier(x_train[kind], train[1], x_dev[kind], dev[1]) for kind in x_train
    }
    majority = max(set(train[1]), key=train[1].count)
    words = TfidfVectorizer(sublinear_tf=True)
    counted = words.fit_transform(train[0])
    by_words = _classifier(counted, train[1], words.transform(dev[0]), dev[1])
    scores: dict[str, dict[str, float]] = {}
    for code, (texts, gold) in tests.items():
        found = vectors(texts)
        scores[code] = {
            kind: round(float(classifier.score(found[kind], gold)), 3)
            for kind, classifier in classifiers.items()
        }
        scores[code]["tfidf"] = round(float(by_words.score(words.transform(texts), gold)), 3)
        scores[code]["majority"] = round(gold.count(majority) / len(gold), 3)
        print(code, scores[code], flush=True)
    kinds = scores[ENGLISH]
    mean = {k: round(float(np.mean([s[k] for s in scores.values()])), 3) for k in kinds}
    print("mean", mean, flush=True)
    return scores


def main() -> None:
    """Print the scores, and write them where `--output` says."""
    parser = argparse.ArgumentParser(description="SIB-200 by logistic regression on English")
    parser.add_argument("--model", type=Path, required=True, help="folder of the packaged model")
    parser.add_argument("--sib200", type=Path, required=True, help="folder of SIB-200")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scores = probe(arguments.model, arguments.sib200)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
