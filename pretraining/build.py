"""From folders of text to the packaged backbone, in one command.

    python -m pretraining.build --text <folder of text> --output <folder of the package>

Runs on a CPU. Killed and started again with the same arguments, it continues from its last
checkpoint and makes the same model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretraining.answers import find_answers
from pretraining.batches import Packer
from pretraining.documents import Writer
from pretraining.embeddings import aligned_embeddings
from pretraining.evaluate import evaluate
from pretraining.fields import find_fields
from pretraining.lexicon import lexicon_words
from pretraining.model import build_model
from pretraining.package import write_package
from pretraining.text import read_corpus, unpack
from pretraining.tokenizer import train_tokenizer
from pretraining.train import Schedule, train
from pretraining.words import add_words, frequent_words

CONTEXT = 512


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--text", type=Path, required=True, help="folder with ntrex.tar.xz and the others")
    add("--output", type=Path, required=True, help="where the packaged files go")
    add("--work", type=Path, default=Path("build/pretraining"), help="checkpoints and log")
    add("--steps", type=int, default=3000, help="steps decide the result, not time")
    add("--field-steps", type=int, default=800, help="steps of the second stage, with fields")
    add("--vocabulary", type=int, default=48_000, help="tokens that BPE learns")
    add("--words", type=int, default=4_000, help="tokens added to make English words whole")
    add("--width", type=int, default=192)
    add("--layers", type=int, default=5)
    add("--heads", type=int, default=6)
    add("--hidden", type=int, default=528, help="inner width of the feed-forward part")
    add("--topics", type=int, default=64, help="topics that sentences are asked for")
    add("--rows", type=int, default=16, help="rows of 256 tokens in a batch")
    add("--learning-rate", type=float, default=2e-3)
    add("--field-learning-rate", type=float, default=1e-3, help="of the second stage")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=2)
    return parser.parse_args()


def _identity(arguments: argparse.Namespace) -> str:
    """A hash of the settings that decide the first stage, but for the steps: see `train`."""
    ignored = {"text", "output", "work", "threads", "steps", "field_steps", "field_learning_rate"}
    settings = {k: v for k, v in sorted(vars(arguments).items()) if k not in ignored}
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]


def main() -> None:
    """Run every step of the recipe, or what is left of it."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {what}", flush=True)

    say("reading the text")
    folder = unpack(arguments.text, work)
    corpus = read_corpus(folder)
    sizes = {source: len(groups) for source, groups in corpus.groups.items()}
    say(f"aligned sentences: {sizes}")

    file = work / f"tokenizer-{arguments.vocabulary}-{arguments.words}.json"
    if file.exists():
        tokenizer = Tokenizer.from_file(str(file))
    else:
        say("training the tokenizer")
        tokenizer = train_tokenizer(corpus, folder, arguments.vocabulary, arguments.seed)
        words = dict.fromkeys((*lexicon_words(), *frequent_words(corpus, at_least=10)))
        tokenizer = add_words(tokenizer, list(words), arguments.words)
        tokenizer.save(str(file))
    say("aligning the embeddings")
    embeddings = aligned_embeddings(corpus, tokenizer, arguments.width, arguments.seed)
    say("finding what sentences may be asked for")
    answers = find_answers(corpus, tokenizer, embeddings, arguments.topics, arguments.seed)
    topics = "\n".join(", ".join(answers.words[i] for i in names) for names in answers.topics)
    (work / "topics.txt").write_text(topics + "\n", encoding="utf-8")

    model = build_model(
        embeddings.table,
        arguments.layers,
        arguments.heads,
        arguments.hidden,
        CONTEXT,
        arguments.seed,
    )
    say(f"training {model.num_parameters() / 1e6:.1f}M parameters, {arguments.steps} steps")
    packer = Packer(Writer(corpus, answers), tokenizer, arguments.rows, seed=arguments.seed)
    schedule = Schedule(arguments.steps, arguments.learning_rate)
    identity = _identity(arguments)
    train(model, packer, schedule, work, identity)

    say("finding the fields of sentences")
    fields = find_fields(answers, tokenizer, embeddings)
    say(f"training with fields, {arguments.field_steps} steps")
    packer = replace(packer, writer=Writer(corpus, answers, fields), seed=arguments.seed + 1)
    second = Schedule(arguments.field_steps, arguments.field_learning_rate)
    (work / "fields").mkdir(exist_ok=True)
    first = f"{identity} {arguments.steps} {arguments.field_learning_rate}"
    train(model, packer, second, work / "fields", first)

    say("packaging")
    write_package(model, tokenizer, arguments.output, CONTEXT)
    say("evaluating the packaged files")
    packaged = AutoModelForCausalLM.from_pretrained(arguments.output, dtype=torch.float32)
    scores = evaluate(packaged, AutoTokenizer.from_pretrained(arguments.output), corpus.held_out)
    settings = {k: str(v) for k, v in vars(arguments).items()}
    for key in ("text", "output", "work"):
        settings.pop(key)
    settings["parameters"] = str(packaged.num_parameters())
    stages = [asdict(schedule), asdict(second)]
    record = {"settings": settings, "schedules": stages, "held_out": scores}
    (work / "scores.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for code, score in scores.items():
        say(f"{code} {score}")


if __name__ == "__main__":
    main()
