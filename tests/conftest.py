"""Shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from polyprefix.config import RunConfig

# Models here are tiny: threads cost more than they bring, and tests run side by side. Set before
# torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``polyprefix`` in this process: exit status, standard output, standard error."""

    from polyprefix.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["polyprefix", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        code = stopped.value.code
        assert "Traceback" not in err
        return (code if isinstance(code, int) else 0), out, err

    return call


CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, where there is one."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="tests in a browser need playwright: pip install playwright"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("tests in a browser need chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield found
        found.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real benchmark files, where there is one."""
    folder = Path(os.environ.get("POLYPREFIX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no benchmark files in {folder}; set POLYPREFIX_TEST_DATA")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``datasets`` reads folders that are laid out like the hub's; nothing is fetched."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("polyprefix.tasks.data.commit_of", lambda repository, revision: None)
    return tmp_path


TOPICS = {
    "science/technology": ["robots", "planets", "atoms", "computers"],
    "travel": ["hotels", "flights", "beaches", "museums"],
    "politics": ["elections", "ministers", "laws", "parties"],
    "sports": ["goals", "races", "medals", "teams"],
    "health": ["doctors", "vaccines", "hospitals", "diets"],
    "entertainment": ["films", "songs", "actors", "concerts"],
    "geography": ["rivers", "mountains", "islands", "borders"],
}


@pytest.fixture(scope="session")
def sib_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SIB-200 in the upstream layout, in three languages, easy to learn."""
    folder = tmp_path_factory.mktemp("sib200")
    for language, template in {
        "eng_Latn": "People talk about {} and {} today.",
        "deu_Latn": "Man spricht heute von {} und {}.",
        "swh_Latn": "Watu wanazungumza kuhusu {} na {} leo.",
    }.items():
        place = folder / "data" / "annotated" / language
        place.mkdir(parents=True)
        for split, pairs in {
            "train": [(0, 1), (1, 2), (2, 0), (1, 0)],
            "dev": [(2, 1)],
            "test": [(0, 2), (3, 0), (1, 3)],
        }.items():
            lines = ["index_id\tcategory\ttext"]
            for topic, words in TOPICS.items():
                for first, second in pairs:
                    text = template.format(words[first], words[second])
                    lines.append(f"{len(lines)}\t{topic}\t{text}")
            (place / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, sib_folder: Path) -> Path:
    """A two-layer Llama with a real tokenizer, saved as ``save_pretrained`` does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    files = [str(path) for path in sorted(sib_folder.rglob("*.tsv"))]
    tokenizer.train(
        files,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    folder = tmp_path_factory.mktemp("tiny")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)

    import torch

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def make(tiny_folder: Path, sib_folder: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Makes the configuration of a small run."""
    from polyprefix.config import RunConfig

    def config(method: str = "prefix_tuning", **changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "model": {"name": str(tiny_folder)},
            "method": {"name": method, **changes.pop("options", {})},
            "task": {"name": "sib200", "data": str(sib_folder), **changes.pop("task", {})},
            "train": {"steps": 6, "batch_size": 8, **changes.pop("train", {})},
            "output": str(tmp_path / "runs"),
            **changes,
        }
        return RunConfig.read(values)

    return config


def with_model(config: RunConfig, **keys: Any) -> RunConfig:
    """The configuration with other keys of its section ``model``."""
    values = config.model_dump(mode="json")
    return type(config).read(values | {"model": values["model"] | keys})
