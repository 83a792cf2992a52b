"""The quickstart's runs on a tiny model, their comparison, and the advice that follows."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from polyprefix.analysis import compare
from polyprefix.config import ConfigError, RunConfig, UnsupportedModel
from polyprefix.methods import methods
from polyprefix.quickstart import MODEL, PAGE, STEPS, TASK, next_step, quickstart, quickstart_config
from polyprefix.quickstart.run import EXAMPLE_MODEL
from polyprefix.report import settings_by_method, show_comparison, write_page
from polyprefix.results import RunFolder
from polyprefix.tasks import TaskData, get_task, load_task_data

LANGUAGES = list(get_task(TASK).language_codes)
CHOSEN = ("none", "prefix_tuning", "lora")


@pytest.fixture(scope="module")
def data() -> TaskData:
    from polyprefix.config import TaskConfig

    return load_task_data(TaskConfig(name=TASK), seed=0)


# The configuration -------------------------------------------------------------------------------


def test_the_configuration_is_what_the_command_line_would_accept(tmp_path: Path) -> None:
    config = quickstart_config(tmp_path, "lora")
    assert RunConfig.read(config.model_dump(mode="json")) == config
    assert config.model.name == MODEL
    assert config.method == {"name": "lora"}
    assert (config.task.name, config.task.languages) == (TASK, "all")
    assert config.train.steps == STEPS


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
    prompt = get_task(TASK).prompt
    texts = [prompt.render(example.fields) for example in data.train]
    tokenizer.train_from_iterator([*texts, *prompt.choices], trainer)
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


Finished = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def finished(model: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Runs of a few steps: where, and their records."""
    output = tmp_path_factory.mktemp("my runs")  # a space, to be quoted in advice
    return output, quickstart(output, CHOSEN, model=model, steps=3)


def test_every_method_trains_on_english_and_scores_every_language(finished: Finished) -> None:
    output, records = finished
    assert [record["method"]["name"] for record in records] == list(CHOSEN)
    for record in records:
        assert record["status"] == "finished"
        assert list(record["scores"]) == LANGUAGES
        assert ("training" in record) == (record["method"]["name"] != "none")
        predicted = predictions(output, record)
        for code, scores in record["scores"].items():
            assert scores["n"] == len(predicted[code]) == 98
            assert math.isclose(scores["majority"], 1 / 7, abs_tol=1e-6)
    assert records[1]["training"]["steps"] == 3
    assert records[1]["training"]["truncated_prompts"] == 0
    assert records[1]["task"]["sizes"]["train"] == 175


def test_all_methods_there_are_run_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyprefix import study

    asked: list[str] = []

    def stand_in(config: RunConfig, **_: Any) -> dict[str, Any]:
        asked.append(config.method["name"])
        return {}

    monkeypatch.setattr(study, "run", stand_in)
    quickstart(tmp_path)
    assert asked == list(methods())
    assert {"soft_prompt", "prefix_tuning", "llama_adapter", "lora", "full"} <= set(asked)


def test_two_runs_are_the_same(model: str, tmp_path: Path, finished: Finished) -> None:
    output, records = finished
    (second,) = quickstart(tmp_path, ["prefix_tuning"], model=model, steps=3)
    assert second["id"] == records[1]["id"]
    assert second["scores"] == records[1]["scores"]
    assert predictions(tmp_path, second) == predictions(output, records[1])


def test_a_finished_run_is_not_repeated_unless_asked(model: str, finished: Finished) -> None:
    output, records = finished
    log = output / records[2]["id"] / "log.jsonl"
    written, predicted = log.stat().st_mtime_ns, predictions(output, records[2])
    (same,) = quickstart(output, ["lora"], model=model, steps=3)
    assert same["training"] == records[2]["training"]
    assert log.stat().st_mtime_ns == written
    (anew,) = quickstart(output, ["lora"], model=model, steps=3, again=True)
    assert log.stat().st_mtime_ns > written
    assert predictions(output, anew) == predicted


def test_another_seed_is_another_run(model: str, tmp_path: Path, finished: Finished) -> None:
    _, records = finished
    (record,) = quickstart(tmp_path, ["lora"], 1, model=model, steps=1)
    assert record["config"]["seed"] == 1
    assert record["id"] != records[2]["id"]


def test_progress_is_told(model: str, tmp_path: Path) -> None:
    class Listener:
        def __init__(self) -> None:
            self.begun: list[int] = []
            self.units = 0
            self.said: list[str] = []

        def start(self, description: str, total: int, done: int = 0) -> None:
            self.begun.append(total - done)

        def advance(self, units: int = 1, note: str = "") -> None:
            self.units += units

        def finish(self) -> None:
            pass

        def say(self, text: str) -> None:
            self.said.append(text)

    listener = Listener()
    quickstart(tmp_path, ["soft_prompt"], model=model, steps=1, progress=listener)
    scored = 98 * len(LANGUAGES)
    assert listener.begun == [1, scored]
    assert listener.units == 1 + scored
    assert listener.said[0] == "method 1 of 1: soft_prompt"


def test_a_users_mistake_is_told_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prefix_tunning"):
        quickstart(tmp_path, ["none", "prefix_tunning"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnsupportedModel, match="does not exist"):
        quickstart(tmp_path, ["none"], model="./no-such-folder")


# The comparison ----------------------------------------------------------------------------------


def test_runs_are_compared_by_what_their_records_say(finished: Finished) -> None:
    _, records = finished
    comparison = compare(records)
    assert [run.name for run in comparison.runs] == list(CHOSEN)
    assert comparison.languages[0] == "eng_Latn"
    assert set(comparison.languages) == set(LANGUAGES)
    lora = comparison.runs[2]
    scores = {code: row["accuracy"] for code, row in records[2]["scores"].items()}
    targets = [score for code, score in scores.items() if code != "eng_Latn"]
    assert lora.source == scores["eng_Latn"]
    assert lora.mean == pytest.approx(sum(targets) / len(targets))
    assert lora.gap == pytest.approx(lora.source - sum(targets) / len(targets))
    assert lora.parameters == records[2]["trainable_parameters"]
    means = [sum(r.languages[c].score for r in comparison.runs) for c in comparison.languages[1:]]
    assert means == sorted(means, reverse=True)
    for code in LANGUAGES:
        assert comparison.best(code) == max(r["scores"][code]["accuracy"] for r in records)


def test_runs_of_different_tasks_are_not_compared(finished: Finished) -> None:
    _, records = finished
    other = records[1] | {"task": records[1]["task"] | {"name": "sib200"}}
    with pytest.raises(ValueError, match="one task"):
        compare([records[0], other])
    with pytest.raises(ValueError, match="one task"):
        compare([])


def test_the_table_fits_a_terminal(finished: Finished) -> None:
    _, records = finished
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_comparison(compare(records), console)
    text = console.export_text()
    assert "Swahili" in text
    assert f"{records[2]['scores']['swh_Latn']['accuracy']:.3f}" in text
    assert "…" not in text


EMPTY = ("meta", "link", "input", "br")


class Cells(HTMLParser):
    """The texts of a page's table cells; refuses what a page should not have."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("iframe", "img", "link")
        for name, value in attrs:
            assert name != "src"
            assert name != "href" or (value or "").startswith("#")
        if tag not in EMPTY:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data.strip()


def test_the_page_shows_every_score_and_escapes_names(finished: Finished, tmp_path: Path) -> None:
    output, records = finished
    named = [json.loads(json.dumps(record)) for record in records]
    for record in named:
        record["model"]["name"] = "<script>alert(1)</script>"
    page = tmp_path / PAGE
    write_page(page, settings_by_method(named), output, title="</title><b>Runs")
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<b>Runs" not in text
    cells = Cells()
    cells.feed(text)
    assert cells.open == []
    for record in records:
        assert f"{record['trainable_parameters']:,}" in cells.cells
    shown = [cell for cell in cells.cells if cell.startswith("0.")]
    # Besides the scores: the mean of each run.
    assert len(shown) >= len(LANGUAGES) * len(records)
    for record in records:
        for scores in record["scores"].values():
            assert any(cell.startswith(f"{scores['accuracy']:.3f}") for cell in shown)
    assert all("nan" not in cell for cell in cells.cells)


# The next step -----------------------------------------------------------------------------------


def commands(advice: str) -> list[list[str]]:
    lines = advice.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  polyprefix ")]


def test_the_advice_is_commands_that_work(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyprefix import study
    from polyprefix.cli.app import app

    output, records = finished
    predict, run = commands(next_step(records))

    answer = CliRunner().invoke(app, predict)
    assert answer.exit_code == 0, answer.output
    assert '"prediction"' in answer.output

    asked: list[RunConfig] = []

    def stand_in(config: RunConfig, **_: Any) -> Any:
        asked.append(config)
        return records[0]

    monkeypatch.setattr(study, "run", stand_in)
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    (config,) = asked
    assert config.model.name == EXAMPLE_MODEL
    assert config.method["name"] in CHOSEN
    assert config.task.name == "sib200"
    assert config.output == str(output)


def test_the_command_prints_the_comparison_and_writes_the_page(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polyprefix.quickstart as package
    from polyprefix.cli.app import app

    output, records = finished
    monkeypatch.setattr(package, "quickstart", lambda *_, **__: records)
    result = CliRunner().invoke(app, ["quickstart", "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "Swahili" in result.output
    text = (output / PAGE).read_text(encoding="utf-8")
    assert "Verdict" in text
    assert "Differences were not tested" not in text
