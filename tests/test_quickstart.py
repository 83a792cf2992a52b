"""The packaged sentences, and the quickstart's run on a tiny model."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from polyprefix.config import ConfigError, RunConfig, TaskConfig, UnsupportedModel
from polyprefix.quickstart import (
    DATA,
    LANGUAGES,
    METHOD,
    MODEL,
    next_step,
    quickstart,
    quickstart_config,
)
from polyprefix.quickstart.run import EXAMPLE_MODEL
from polyprefix.results import RunFolder
from polyprefix.tasks import Example, TaskData, get_task, load_task_data

SIB = get_task("sib200")
TARGETS = LANGUAGES[1:]
PER_TOPIC = {"train": 12, "dev": 4, "test": 6}
COMMON_WORDS = {
    "eng_Latn": "a and the in of to is",
    "deu_Latn": "der die das den und ein eine zur sich",
    "spa_Latn": "el la los las de en una por",
    "swh_Latn": "na ya wa kwa za katika hiyo huyo kwenye ni",
}


@pytest.fixture(scope="module")
def data() -> TaskData:
    return load_task_data(TaskConfig(name="sib200", data=str(DATA)), seed=0)


@pytest.fixture(scope="module")
def splits(data: TaskData) -> dict[str, list[Example]]:
    """Everything, by a name for it."""
    return {"train": data.train, "dev": data.dev, **data.test}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


# The sentences -----------------------------------------------------------------------------------


def test_the_task_reads_all_of_it(data: TaskData) -> None:
    assert data.source_language == "eng_Latn"
    assert data.languages == ["eng_Latn", *sorted(TARGETS)]
    assert set(data.languages) == set(LANGUAGES)
    assert data.bad_rows == []
    assert data.sizes == {"train": 84, "dev": 28, "test": dict.fromkeys(data.languages, 42)}
    assert sum(1 for _ in DATA.rglob("*.tsv")) == len(data.sources)  # no file that nothing reads


def test_topics_are_balanced(splits: dict[str, list[Example]]) -> None:
    for name, examples in splits.items():
        expected = dict.fromkeys(range(len(SIB.labels)), PER_TOPIC.get(name, PER_TOPIC["test"]))
        assert Counter(example.label for example in examples) == expected, name


@pytest.mark.parametrize("code", TARGETS)
def test_languages_are_parallel(data: TaskData, code: str) -> None:
    """Ids and topics, one by one and in the same order."""
    rows = [[(e.id, e.label) for e in data.test[language]] for language in ("eng_Latn", code)]
    assert rows[0] == rows[1]


def test_ids_and_texts_are_there_once(splits: dict[str, list[Example]]) -> None:
    """No sentence twice in a split, in two splits, or untranslated in two languages."""
    seen: Counter[str] = Counter()
    for name, examples in splits.items():
        assert len({example.id for example in examples}) == len(examples), name
        seen.update(" ".join(words(example.fields["text"])) for example in examples)
    assert [text for text, count in seen.items() if count > 1] == []
    english = [example.id for name in ("train", "dev", "eng_Latn") for example in splits[name]]
    assert len(set(english)) == len(english)


def test_splits_share_no_long_phrase(splits: dict[str, list[Example]]) -> None:
    """A test sentence that repeats half a training sentence would not test anything."""

    def phrases(name: str, length: int = 6) -> set[tuple[str, ...]]:
        texts = [words(example.fields["text"]) for example in splits[name]]
        return {tuple(t[i : i + length]) for t in texts for i in range(len(t) - length + 1)}

    assert phrases("eng_Latn") & (phrases("train") | phrases("dev")) == set()
    assert phrases("train") & phrases("dev") == set()


def test_texts_are_whole_and_clean_sentences(splits: dict[str, list[Example]]) -> None:
    for examples in splits.values():
        for text in (example.fields["text"] for example in examples):
            assert text == unicodedata.normalize("NFC", text).strip()
            assert text.endswith((".", "。"))
            assert text[0].isupper() or "\u4e00" <= text[0] <= "\u9fff"
            assert "  " not in text
            assert all(character.isprintable() for character in text)


def test_english_sentences_have_10_to_25_words(splits: dict[str, list[Example]]) -> None:
    for name in ("train", "dev", "eng_Latn"):
        for text in (example.fields["text"] for example in splits[name]):
            assert 10 <= len(text.split()) <= 25, text


@pytest.mark.parametrize("code", LANGUAGES)
def test_scripts_and_words_are_of_the_language(data: TaskData, code: str) -> None:
    for text in (example.fields["text"] for example in data.test[code]):
        letters = {unicodedata.name(c).split()[0] for c in text if c.isalpha()}
        if code == "zho_Hans":
            assert letters == {"CJK"}, text
            assert not set(text) & set(" ,.們國學與個時會為這"), text  # nor traditional characters
        else:
            assert letters == {"LATIN"}, text
            assert set(words(text)) & set(COMMON_WORDS[code].split()), text


def test_no_sentence_is_of_sib200(splits: dict[str, list[Example]], real_data: Path) -> None:
    folder = real_data / "sib200"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for code in LANGUAGES:
        theirs = {
            " ".join(words(example.fields["text"]))
            for split in ("train", "dev", "test")
            for example in SIB.read_local(folder, code, split).examples
        }
        assert len(theirs) > 900
        names = ("train", "dev", code) if code == "eng_Latn" else (code,)
        ours = {" ".join(words(e.fields["text"])) for name in names for e in splits[name]}
        assert ours & theirs == set()


def test_the_data_card_says_licence_and_limits() -> None:
    card = (DATA / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "What it is not" in card


# The configuration -------------------------------------------------------------------------------


def test_the_configuration_is_what_the_command_line_would_accept(tmp_path: Path) -> None:
    config = quickstart_config(tmp_path)
    assert RunConfig.read(config.model_dump(mode="json")) == config
    assert config.model.name == MODEL
    assert config.method == {"name": METHOD}
    assert config.task.languages == LANGUAGES
    assert config.train.steps is not None
    examples = config.train.steps * config.train.batch_size
    assert examples / 84 == 25


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, polyprefix.quickstart; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random two-layer Llama and a tokenizer of the sentences' own bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from polyprefix.models import get_family

    special = ["<pad>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [SIB.prompt.render(example.fields) for example in data.train]
    tokenizer.train_from_iterator([*texts, *SIB.prompt.choices], trainer)
    folder = tmp_path_factory.mktemp("tiny")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 512}
    config = AutoConfig.for_model("llama", **get_family("llama").tiny | sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def predictions(output: Path, record: dict[str, Any]) -> dict[str, Any]:
    folder = RunFolder(output / record["id"])
    return {code: folder.predictions(code) for code in LANGUAGES}


@pytest.fixture(scope="module")
def finished(
    model: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A run of a few steps: where, its record, its predictions."""
    output = tmp_path_factory.mktemp("my runs")  # a space, to be quoted in advice
    record = quickstart(output, model=model, steps=3)
    return output, record, predictions(output, record)


def test_a_run_trains_on_english_and_scores_every_language(finished: Any) -> None:
    _, record, predicted = finished
    assert record["status"] == "finished"
    assert record["training"]["steps"] == 3
    assert record["training"]["truncated_prompts"] == 0
    assert record["task"]["sizes"]["train"] == 84
    assert set(record["scores"]) == set(LANGUAGES)
    for code, scores in record["scores"].items():
        assert scores["n"] == len(predicted[code]) == 42
        assert math.isclose(scores["majority"], 1 / 7, abs_tol=1e-6)


def test_two_runs_are_the_same(model: str, tmp_path: Path, finished: Any) -> None:
    _, first, predicted = finished
    second = quickstart(tmp_path, model=model, steps=3)
    assert second["id"] == first["id"]
    assert second["scores"] == first["scores"]
    assert predictions(tmp_path, second) == predicted


def test_a_finished_run_is_not_repeated_unless_asked(model: str, finished: Any) -> None:
    output, record, predicted = finished
    log = output / record["id"] / "log.jsonl"
    written = log.stat().st_mtime_ns
    assert quickstart(output, model=model, steps=3)["training"] == record["training"]
    assert log.stat().st_mtime_ns == written
    anew = quickstart(output, model=model, steps=3, again=True)
    assert log.stat().st_mtime_ns > written
    assert predictions(output, anew) == predicted


def test_another_method_and_seed_are_another_run(model: str, tmp_path: Path, finished: Any) -> None:
    _, first, _ = finished
    record = quickstart(tmp_path, "soft_prompt", 1, model=model, steps=1)
    assert record["method"]["name"] == "soft_prompt"
    assert record["config"]["seed"] == 1
    assert record["id"] != first["id"]


def test_progress_is_told(model: str, tmp_path: Path) -> None:
    class Listener:
        def __init__(self) -> None:
            self.begun: list[tuple[str, int]] = []
            self.units = 0

        def start(self, description: str, total: int, done: int = 0) -> None:
            self.begun.append((description, total - done))

        def advance(self, units: int = 1, note: str = "") -> None:
            self.units += units

        def finish(self) -> None:
            pass

        def say(self, text: str) -> None:
            pass

    listener = Listener()
    quickstart(tmp_path, model=model, steps=1, progress=listener)
    assert [total for _, total in listener.begun] == [1, 210]
    assert listener.units == 211


def test_a_users_mistake_is_an_error_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prefix_tunning"):
        quickstart(tmp_path, "prefix_tunning")
    with pytest.raises(UnsupportedModel, match="does not exist"):
        quickstart(tmp_path, model="./no-such-folder")


# The next step -----------------------------------------------------------------------------------


def commands(advice: str) -> list[list[str]]:
    lines = advice.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  polyprefix ")]


def test_the_advice_is_commands_that_work(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyprefix import study
    from polyprefix.cli.app import app

    output, record, _ = finished
    predict, run = commands(next_step(record))

    answer = CliRunner().invoke(app, predict)
    assert answer.exit_code == 0, answer.output
    assert '"prediction"' in answer.output

    asked: list[RunConfig] = []

    def stand_in(config: RunConfig, **_: Any) -> Any:
        asked.append(config)
        return record

    monkeypatch.setattr(study, "run", stand_in)
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    (config,) = asked
    assert config.model.name == EXAMPLE_MODEL
    assert config.method["name"] == record["method"]["name"]
    assert config.task.name == "sib200"
    assert config.output == str(output)
