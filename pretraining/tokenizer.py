"""A byte-level BPE tokenizer with its vocabulary shared evenly among the languages."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from pretraining.languages import LANGUAGES
from pretraining.text import Corpus, mnli_rows

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2

# A run of Han characters is one piece and BPE finds the words in it; letters keep their
# combining marks (Hindi vowels); digits stand alone; newlines never join what follows.
PATTERN = r"\p{Han}+| ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]{1,3}|\n| +(?! )|\s"


def _training_text(
    corpus: Corpus, folder: Path, characters: int, power: float, seed: int
) -> Iterator[str]:
    """Yield text of every language, `characters` UTF-8 bytes weighted by size ** `power`."""
    rng = random.Random(seed)
    for language in LANGUAGES:
        aligned = [
            group[language.flores]
            for groups in corpus.groups.values()
            for group in groups
            if language.flores in group
        ]
        pool = aligned + corpus.monolingual[language.flores]
        if language.flores == "zho_Hans" and language.mnli is not None:
            # The translations are segmented: one word a line shows BPE where words end.
            pool = [
                "\n".join(cell.split())
                for row in mnli_rows(folder, language.mnli)
                for cell in row[:2]
            ]
        rng.shuffle(pool)
        size = sum(len(sentence) for sentence in pool)
        budget = characters * (size / 3e6) ** power
        if language.flores == "eng_Latn":
            budget *= 1.5  # every answer is English
        used = 0
        for sentence in pool:
            used += len(sentence)
            yield sentence
            if used > budget:
                break


def train_tokenizer(
    corpus: Corpus,
    folder: Path,
    vocabulary: int,
    seed: int,
    characters: int = 3_000_000,
    power: float = 0.5,
) -> Tokenizer:
    """Train the tokenizer: NFC, byte-level BPE, `<s>` put before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(corpus, folder, characters, power, seed), trainer)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, BOS_ID)],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer`."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(str(folder))
    # The name that every version of transformers knows, whatever this one calls the class.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
