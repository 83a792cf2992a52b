"""What the packaged model is measured by: bits per byte and translation retrieval.

Both on the NTREX lines that no step of the recipe has seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pretraining.languages import ENGLISH
from pretraining.text import Sentences


@dataclass(frozen=True)
class LanguageScore:
    """Scores of one language; retrieval is the share of sentences that find their English."""

    bits_per_byte: float
    retrieval: float
    tokens_per_sentence: float


def _score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> tuple[float, Tensor, float]:
    bits, size, count = 0.0, 0, 0
    means: list[Tensor] = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        loss = functional.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="sum")
        bits += float(loss) / math.log(2)
        size += len(text.encode("utf-8"))
        count += ids.shape[1] - 1
        # The middle of the decoder: its end is about the next token.
        middle = output.hidden_states[len(output.hidden_states) // 2]
        means.append(middle[0, 1:].mean(dim=0))
    stacked = torch.stack(means)
    centred = functional.normalize(stacked - stacked.mean(dim=0), dim=-1)
    return bits / size, centred, count / len(texts)


@torch.no_grad()
def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: list[Sentences]
) -> dict[str, dict[str, float]]:
    """Scores of every language of the held-out sentences, by FLORES code."""
    model.eval()
    scores: dict[str, dict[str, float]] = {}
    english: Tensor | None = None
    codes = [ENGLISH, *(code for code in held_out[0] if code != ENGLISH)]
    for code in codes:
        texts = [group[code] for group in held_out]
        bits, vectors, length = _score(model, tokenizer, texts)
        english = vectors if english is None else english
        nearest = (vectors @ english.T).argmax(dim=1)
        hits = float((nearest == torch.arange(len(texts))).float().mean())
        scores[code] = asdict(LanguageScore(round(bits, 3), round(hits, 3), round(length, 1)))
    return scores
