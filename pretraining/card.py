"""The model card, with the figures that were measured.

    python -m pretraining.card --scores build/pretraining/scores.json \\
        --judged build/judge/judged.json --output src/polyprefix/models/packaged/nano/README.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from pretraining.fields import read_fields
from pretraining.languages import CODES, ENGLISH, LANGUAGES, NAMES

Judged = dict[str, Any]
"""What `judge` wrote: `parameters` by method, `accuracy` by column, language and seed."""

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

It is **not** a model to generate text with. It knows {count} languages as far as a few million
tokens allow. What it has is vectors aligned across languages, and practice in being asked about a
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

## Languages

*Aligned* is the number of sentences aligned with English that were trained on. *Bits per byte*
and *retrieval* are measured on the last 100 lines of NTREX-128, seen by no step of the recipe:
retrieval is the share of the lines whose nearest English line, by the mean hidden state in the
middle of the decoder, is their own.

| language | code | aligned | bits per byte | retrieval@1 of 100 |
|---|---|---|---|---|
{rows}
| **mean** | | | {mean} |

Weak: {weak}, with a tenth of the others' aligned text. Languages not in the table were never seen.

## Topics in languages it was not adapted to

SIB-200 test accuracy (204 sentences a language), trained on its 701 English sentences only, means
of {seeds} seeds; each method with the package's defaults:

```
python -m pretraining.judge --sib200 <folder of SIB-200> --output build/judge
```

Baselines: always the most frequent label; logistic regression on TF-IDF of English words, and on
the mean of what the model's token embeddings say of meaning (common tokens weigh little there).

| | {columns} |
|---|{rule}|
| parameters | {trained} |
{judged}
| **mean of {well} well-aligned, without English** | {well_means} |
| **mean of all but English** | {all_means} |

Standard error of one accuracy: up to 0.035; between seeds the means of the methods vary by
{spread} (standard deviation, the largest of any method). Nothing of SIB-200 is in what the model
was trained on. Choices of the recipe were made on SIB-200's *training* and dev sentences in other
languages and on Polytopics, not on these test sentences; those of the recipe's first version (how
embeddings are centred; whole English words as tokens) had seen them. Default rates, layers and
starts of soft prompts and LLaMA-Adapter were chosen on SIB-200's dev sentences and on Polytopics
too, after a first judgement had shown these two to fall short here.

## Training

{steps} steps of {batch} rows of 256 tokens, {tokens:.1f}M tokens with repetition; AdamW, peak
rates {rates}, embeddings at {part} of them. Seed {seed}. {note}

The second stage teaches the model to name the field of a sentence in one of {fields} common
words (sports, science, food). Fields are the lexicon's themes, found by nearness of vectors; no
sentence is labelled. All seven labels of SIB-200 and of Polytopics are such words: the model has
been asked for topics in general terms, in all its languages, before it is adapted to either.

## Text and licences

| text | licence |
|---|---|
| NTREX-128 (Federmann et al. 2022; Barrault et al. 2019), 1,897 of its 1,997 lines | CC BY-SA 4.0 |
| MultiNLI train, 15,001 rows, and machine translations of them | OANC and others, as MultiNLI |
| Parallel Universal Dependencies (en, hi, ko, ru, tr) | CC BY-SA 3.0 |
| Common Voice sentence collections | CC0 |
| Tatoeba, XTREME's selection | CC BY 2.0 FR |
| the project's lexicon, 1,409 concepts in 22 languages | CC BY 4.0 |

The weights are shared under CC BY-SA 4.0, as the text with the strictest terms asks of what is
made from it. No sentence of SIB-200 is in the text. XNLI's dev and test splits were not used (15 of
their 15,000 English sentences, all very short, also stand in MultiNLI's training part, which was).

## Limits

News and talk of its sources, with their views and errors. Machine-translated text in {translated}
of {count} languages. Too small to be trusted with any fact.
"""


def aligned_sentences(mnli: bool, pud: bool) -> int:
    """How many sentences a language has that are aligned with English."""
    return 1_897 + (30_002 if mnli else 0) + (1_000 if pud else 0)


def _row(name: str, values: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"


def _mean(column: dict[str, list[float]], codes: list[str]) -> float:
    """Mean over languages and seeds."""
    return statistics.mean(statistics.mean(column[code]) for code in codes)


def _topics(judged: Judged) -> dict[str, str]:
    """The parts of the table of topics."""
    columns = judged["accuracy"]
    targets = [code for code in CODES if code != ENGLISH]
    well = [
        language.flores for language in LANGUAGES if language.mnli and language.flores in targets
    ]
    by_seed = {
        name: [
            statistics.mean(column[code][seed] for code in targets)
            for seed in range(len(column[ENGLISH]))
        ]
        for name, column in columns.items()
    }
    spread = max(statistics.stdev(means) for means in by_seed.values() if len(means) > 1)
    rows = [
        _row(NAMES[code], [statistics.mean(column[code]) for column in columns.values()])
        for code in CODES
    ]
    counts = judged["parameters"]
    return {
        "seeds": str(max(len(column[ENGLISH]) for column in columns.values())),
        "columns": " | ".join(columns),
        "rule": "|".join("---" for _ in columns),
        "trained": " | ".join(f"{counts[c]:,}" if c in counts else "" for c in columns),
        "judged": "\n".join(rows),
        "well": str(len(well)),
        "well_means": " | ".join(f"{_mean(column, well):.3f}" for column in columns.values()),
        "all_means": " | ".join(f"{_mean(column, targets):.3f}" for column in columns.values()),
        "spread": f"{spread:.3f}",
    }


def render(record: dict[str, object], judged: Judged, vocabulary: int, note: str) -> str:
    """The card's text from the build's record, the judgement and the size of the vocabulary."""
    settings, stages, scores = record["settings"], record["schedules"], record["held_out"]
    assert isinstance(settings, dict)
    assert isinstance(stages, list)
    assert isinstance(scores, dict)
    rows: list[str] = []
    for language in LANGUAGES:
        code = language.flores
        held = scores[code]
        count = aligned_sentences(language.mnli is not None, language.pud is not None)
        retrieval = "" if code == ENGLISH else f"{held['retrieval']:.2f}"
        rows.append(
            f"| {NAMES[code]} | `{code}` | {count:,} | {held['bits_per_byte']:.2f} | {retrieval} |"
        )
    bits = statistics.mean(scores[code]["bits_per_byte"] for code in CODES)
    found = statistics.mean(scores[code]["retrieval"] for code in CODES if code != ENGLISH)
    names = [language.name for language in LANGUAGES if language.mnli is None]
    return TEXT.format(
        rows="\n".join(rows),
        mean=f"{bits:.2f} | {found:.2f}",
        weak=f"{', '.join(names[:-1])} and {names[-1]}",
        note=note,
        count=len(CODES),
        translated=sum(language.mnli is not None for language in LANGUAGES) - 1,
        parameters=float(settings["parameters"]) / 1e6,
        layers=settings["layers"],
        width=settings["width"],
        heads=settings["heads"],
        vocabulary=vocabulary,
        steps=" and ".join(f"{stage['steps']:,}" for stage in stages),
        fields=len({word for words in read_fields().values() for word in words}),
        batch=settings["rows"],
        tokens=sum(stage["steps"] for stage in stages) * int(settings["rows"]) * 256 / 1e6,
        rates=" and ".join(str(stage["learning_rate"]) for stage in stages),
        part=stages[0]["embedding_rate"],
        seed=settings["seed"],
        **_topics(judged),
    )


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description="Write the model card")
    parser.add_argument("--scores", type=Path, required=True, help="scores.json of the build")
    parser.add_argument("--judged", type=Path, required=True, help="judged.json of the judgement")
    parser.add_argument("--output", type=Path, required=True, help="README.md beside the weights")
    parser.add_argument("--note", default="", help="a sentence on how this run went")
    arguments = parser.parse_args()
    record = json.loads(arguments.scores.read_text(encoding="utf-8"))
    judged = json.loads(arguments.judged.read_text(encoding="utf-8"))
    config = json.loads((arguments.output.parent / "config.json").read_text(encoding="utf-8"))
    text = render(record, judged, config["vocab_size"], arguments.note)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
