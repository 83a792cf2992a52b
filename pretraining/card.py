"""The model card, with the figures that were measured.

    python -m pretraining.card --scores build/pretraining/scores.json \\
        --probe <what probe wrote> --output src/polyprefix/models/packaged/nano/README.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pretraining.languages import CODES, LANGUAGES, NAMES

Scores = dict[str, dict[str, float]]

TEXT = """---
license: cc-by-sa-4.0
library_name: transformers
pipeline_tag: text-generation
---

# polyprefix/nano

A small multilingual language model for trying out Polyprefix where there is no network and no
GPU. Llama architecture, {parameters:.1f}M parameters ({layers} layers, width {width}, {heads}
heads, tied embeddings, context 512), byte-level BPE with {vocabulary:,} tokens, weights in
bfloat16. It was trained on two CPU cores; the recipe is in `pretraining/` of the repository, what
was tried and failed in its `LOG.md`.

It is **not** a model to generate text with. It knows 18 languages as far as a few million tokens
allow. What it has is vectors aligned across languages, and practice in being asked about a
sentence: its topic, its keywords, its translation to English, its relation to another sentence.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "src/polyprefix/models/packaged/nano"
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

The tokenizer puts `<s>` before a text; `</s>` ends an answer. Cues it has seen stand on a line
of their own after the sentence, and the answer follows a space:

* `\\nTopic:`, `\\nCategory:`, `\\nSubject:`, `\\nLabel:`, `\\nThis is about`
* `\\nKeywords:`, `\\nSummary:`
* `\\nEnglish:`, `\\nTranslate to English:`, and the name of a language for the way back
* `Premise: ...\\nHypothesis: ...\\nRelation:` (entailment, neutral, contradiction);
  `...\\nQuestion: ... Yes, no or maybe?\\nAnswer:` (yes, maybe, no)
* `...\\n...\\nSame meaning?` (yes, no); `...\\nIs it about art? Answer:` (yes, no)

## Languages and figures

*Aligned* is the number of sentences aligned with English that were trained on. *Bits per byte*
and *retrieval* are measured on the last 100 lines of NTREX-128, seen by no step of the recipe:
retrieval is the share of the lines whose nearest English line, by the mean hidden state in the
middle of the decoder, is their own. *Topics* are SIB-200 test accuracies of logistic regression
trained on English only, on frozen vectors: the mean token embedding, and the last state after the
cue `Topic:`; the majority class is {majority:.2f}. Nothing was trained on SIB-200, but two choices
of the recipe (how the embeddings are scaled and centred; whole English words as tokens) were made
by looking at it, so these figures flatter the model a little.

| language | code | aligned | bits per byte | retrieval@1 of 100 | topics, tokens | topics, asked |
|---|---|---|---|---|---|---|
{rows}
| **mean** | | | {mean} |

Weak: {weak}, whose only aligned text is 1,897 lines of NTREX-128 and 1,000 of PUD;
and Urdu and Arabic. Other languages were never seen.

## Training

{steps:,} steps of 16 rows of 256 tokens, {tokens:.1f}M tokens with repetition; AdamW, peak rate
{rate}, embeddings at {part} of it. Seed {seed}. {note}

## Text and licences

| text | licence |
|---|---|
| NTREX-128 (Federmann et al. 2022; Barrault et al. 2019), 1,897 of its 1,997 lines | CC BY-SA 4.0 |
| MultiNLI train, 15,001 rows, and machine translations of them | OANC and others, as MultiNLI |
| Parallel Universal Dependencies (en, hi, ru, tr) | CC BY-SA 3.0 |
| Common Voice sentence collections | CC0 |
| Tatoeba, XTREME's selection | CC BY 2.0 FR |

The weights are shared under CC BY-SA 4.0, as the text with the strictest terms asks of what is
made from it. No sentence of SIB-200 is in the text. XNLI's dev and test splits were not used (15 of
their 15,000 English sentences, all very short, also stand in MultiNLI's training part, which was).

## Limits

News and talk of its sources, with their views and errors. Machine-translated text in 15 of 18
languages. Too small to be trusted with any fact.
"""


def aligned_sentences(mnli: bool, pud: bool) -> int:
    """How many sentences a language has that are aligned with English."""
    return 1_897 + (30_002 if mnli else 0) + (1_000 if pud else 0)


def render(record: dict[str, object], scores: Scores, probe: Scores, note: str) -> str:
    """The card's text from the build's record and the probe's scores."""
    settings = record["settings"]
    schedule = record["schedule"]
    assert isinstance(settings, dict)
    assert isinstance(schedule, dict)
    rows: list[str] = []
    for language in LANGUAGES:
        code = language.flores
        held, seen = scores[code], probe[code]
        count = aligned_sentences(language.mnli is not None, language.pud is not None)
        retrieval = "" if code == "eng_Latn" else f"{held['retrieval']:.2f}"
        rows.append(
            f"| {NAMES[code]} | `{code}` | {count:,} | {held['bits_per_byte']:.2f} | {retrieval} "
            f"| {seen['tokens']:.2f} | {seen['asked']:.2f} |"
        )

    def mean(table: Scores, key: str, codes: tuple[str, ...] = CODES) -> str:
        return f"{sum(table[code][key] for code in codes) / len(codes):.2f}"

    means = [
        mean(scores, "bits_per_byte"),
        mean(scores, "retrieval", CODES[1:]),
        mean(probe, "tokens"),
        mean(probe, "asked"),
    ]
    weak = " and ".join(language.name for language in LANGUAGES if language.mnli is None)
    return TEXT.format(
        rows="\n".join(rows),
        mean=" | ".join(means),
        majority=probe["eng_Latn"]["majority"],
        weak=weak,
        note=note,
        parameters=float(settings["parameters"]) / 1e6,
        layers=settings["layers"],
        width=settings["width"],
        heads=settings["heads"],
        vocabulary=int(settings["vocabulary"]) + int(settings["words"]),
        steps=int(settings["steps"]),
        tokens=int(settings["steps"]) * int(settings["rows"]) * 256 / 1e6,
        rate=schedule["learning_rate"],
        part=schedule["embedding_rate"],
        seed=settings["seed"],
    )


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description="Write the model card")
    parser.add_argument("--scores", type=Path, required=True, help="scores.json of the build")
    parser.add_argument("--probe", type=Path, required=True, help="what pretraining.probe wrote")
    parser.add_argument("--output", type=Path, required=True, help="README.md to write")
    parser.add_argument("--note", default="", help="a sentence on how this run went")
    arguments = parser.parse_args()
    record = json.loads(arguments.scores.read_text(encoding="utf-8"))
    probe = json.loads(arguments.probe.read_text(encoding="utf-8"))
    text = render(record, record["held_out"], probe, arguments.note)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
