"""Runs on hostile texts: the scores are those of a plain forward pass, and every text is shown as a
text, on the console, in the page and by ``predict``."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from polyprefix.config import ConfigError, ModelConfig, RunConfig
from polyprefix.models import load_backbone
from polyprefix.report import settings_by_method, show_record, write_page
from polyprefix.results import RunFolder
from polyprefix.study import run
from polyprefix.tasks import AnswerTask, ChoiceTask, get_task, tasks
from tests.conftest import Cli
from tests.reliability.hostile import TEXTS
from tests.test_report import Outline
from tests.test_report_browser import Watched

SOUND = {kind: text for kind, text in TEXTS.items() if kind != "unpaired surrogate"}

SPEC = """\
name: hostile
title: "<script>alert(1)</script> {{ 7*7 }} [bold]x[/bold] %s ${HOME}"
kind: %s
files: "{split}-{language}.jsonl"
columns: {%s, id: n}
languages: [en, de]
prompt: "{{ text }}\\nSo:"
%s
"""


@pytest.fixture(scope="module")
def hostile_run(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Of every text that UTF-8 can hold, as a field and as an id."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {"n": f"{n} {text[:200]}", "text": text, "good": n % 2}
        for n, text in enumerate(SOUND.values())
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("train-en", "dev-en", "test-en", "test-de"):
        (folder / f"{name}.jsonl").write_text(lines)
    choices = 'choices: {"0": "no", "1": "{{ text[:3] }}x"}'
    (folder / "hostile.yaml").write_text(SPEC % ("%s", "choice", "label: good", choices))
    record = run(
        RunConfig.read(
            {
                "model": {"name": str(tiny_folder)},
                "method": {"name": "prefix_tuning", "length": 3},
                "task": {"name": str(folder / "hostile.yaml"), "max_length": 60},
                "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-9},
                "output": str(folder / "runs"),
            }
        )
    )
    return RunFolder(folder / "runs" / record["id"]), rows


def test_scores_are_those_of_a_plain_forward_pass(
    tiny_folder: Path, hostile_run: tuple[RunFolder, list[dict[str, Any]]], cli: Cli
) -> None:
    """Where the text is not cut. The oracle is the model alone, under its own tokenizer, with the
    untouched backbone; a run of ``none`` scores the same data."""
    folder, rows = hostile_run
    config = RunConfig.read(folder.record()["config"])
    values = config.model_dump() | {"method": {"name": "none"}}
    record = run(RunConfig.read(values))
    predictions = RunFolder(folder.path.parent / record["id"]).predictions("deu_Latn")
    assert predictions is not None
    assert [row["id"] for row in predictions] == [row["n"].strip() for row in rows]
    backbone = load_backbone(ModelConfig(name=str(tiny_folder)))
    compared = 0
    for row, found in zip(rows, predictions, strict=True):
        text = row["text"].strip()
        prompt = f"{text}\nSo:"
        answers = [" no", f" {text[:3]}x"]
        ids = backbone.tokenizer(prompt)["input_ids"]
        assert found["label"] == str(row["good"])
        if len(ids) + 10 > 60:
            continue
        for answer, logprob in zip(answers, found["logprobs"], strict=True):
            more = backbone.tokenizer(prompt + answer)["input_ids"]
            if more[: len(ids)] != ids:
                continue  # a merge across the boundary, which the encoder has tests of
            with torch.no_grad():
                logits = backbone.model(torch.tensor([more])).logits[0].log_softmax(-1)
            expected = sum(float(logits[i - 1, more[i]]) for i in range(len(ids), len(more)))
            assert logprob == pytest.approx(expected, abs=1e-3), (row["n"], answer)
            compared += 1
    assert compared > 20


def test_the_console_shows_texts(hostile_run: tuple[RunFolder, list[dict[str, Any]]]) -> None:
    out = io.StringIO()
    show_record(hostile_run[0].record(), Console(file=out, width=200, highlight=False))
    shown = out.getvalue()
    assert "<script>alert(1)</script> {{ 7*7 }} [bold]x[/bold] %s ${HOME}" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", shown)


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\n", "\u202e", "\u2067"])
def test_a_title_that_would_move_the_cursor(tmp_path: Path, character: str) -> None:
    path = tmp_path / "x.yaml"
    text = SPEC % ("%s", "choice", "label: good", 'choices: {"0": "a", "1": "b"}')
    path.write_text(text.replace("7*7", json.dumps(character)[1:-1]))
    with pytest.raises(ConfigError, match=r"key 'title'"):
        get_task(str(path))


def test_the_page_shows_texts(
    hostile_run: tuple[RunFolder, list[dict[str, Any]]], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("polyprefix.report.figures.figures", lambda *_, **__: [])
    folder, rows = hostile_run
    record = folder.record()
    path = tmp_path / "page.html"
    write_page(path, settings_by_method([record]), folder.path.parent, title="A page", examples=50)
    page = path.read_text(encoding="utf-8")
    found = Outline()
    found.feed(page)
    assert found.open == []
    assert found.handlers == []
    # one for the data, one for the page's own code: none of anybody's
    assert found.tags.count("script") == 2
    assert "\0" not in page
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    embedded = json.loads(data[1])
    told = json.dumps(embedded)
    for row in rows:
        if len(row["text"]) < 1000:
            assert json.dumps(row["text"].strip())[1:-1] in told, row["n"]


@pytest.mark.browser
def test_the_page_in_a_browser(
    hostile_run: tuple[RunFolder, list[dict[str, Any]]], tmp_path: Path, browser: Any
) -> None:
    """Nothing of the data is run, and what is read is what stands in the data."""
    folder, rows = hostile_run
    record = folder.record()
    record["task"]["title"] = record["model"]["name"] = TEXTS["HTML"]
    path = tmp_path / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyprefix.report.figures.figures", lambda *_, **__: [])
        found = settings_by_method([record])
        write_page(path, found, folder.path.parent, title=TEXTS["HTML"], examples=50)
    watched = Watched(browser, path)
    watched.page.on("dialog", lambda dialog: watched.said.append(dialog.message))
    watched.page.reload()
    assert watched.page.title() == TEXTS["HTML"]
    assert watched.page.locator("h1").first.inner_text() == TEXTS["HTML"]
    watched.page.locator("select.language").select_option(label="German")
    shown: list[str] = []
    while True:
        shown += watched.page.locator("dl.fields dd[lang=de]").all_text_contents()
        following = watched.page.get_by_role("button", name="Next")
        if following.get_attribute("aria-disabled") == "true":
            break
        following.click()
    assert len(shown) >= len(rows)
    for kind, text in SOUND.items():
        if len(text) < 1000 and kind not in ("NUL", "line breaks", "separators", "terminal"):
            assert any(text.strip() in seen for seen in shown), kind
    assert watched.page.locator("b[onclick]").count() == 0
    watched.close()


def test_predict_answers_as_the_run_did(
    hostile_run: tuple[RunFolder, list[dict[str, Any]]], tmp_path: Path, cli: Cli
) -> None:
    folder, rows = hostile_run
    texts = tmp_path / "texts.jsonl"
    asked = [{"text": row["text"].strip()} for row in rows]
    texts.write_text("".join(json.dumps(item) + "\n" for item in asked))
    status, out, error = cli("predict", str(folder.path), "--input", str(texts))
    assert status == 0, error
    answers = [json.loads(line) for line in out.split("\n") if line]
    scored = folder.predictions("deu_Latn")
    assert scored is not None
    for item, answer, row in zip(asked, answers, scored, strict=True):
        assert answer["text"] == item["text"]
        assert answer["prediction"] == row["prediction"]
        assert list(answer["logprobs"].values()) == pytest.approx(row["logprobs"], abs=2e-4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a\\ud800"}', "example 1: 'text' is not Unicode text: an unpaired surrogate"),
        ("[" * 10, "So"),
        ('{"text": ' + "[" * 100_000, "line 1: not a JSON object"),
        ('{"text": ' + "9" * 5000 + "}", "line 1: not a JSON object"),
        ('{"text": 3}', "example 1: expected an object with the texts text"),
    ],
)
def test_predict_refuses_what_is_no_text(
    hostile_run: tuple[RunFolder, list[dict[str, Any]]],
    tmp_path: Path,
    cli: Cli,
    line: str,
    message: str,
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(line + "\n")
    status, out, error = cli("predict", str(hostile_run[0].path), "--input", str(texts))
    if message == "So":  # a plain text, of brackets
        assert status == 0
        assert json.loads(out)["text"] == line
    else:
        assert (status, out) == (2, "")
        assert message in error


def test_an_option_that_is_not_utf8(
    hostile_run: tuple[RunFolder, list[dict[str, Any]]], cli: Cli
) -> None:
    """Python makes surrogates of bytes that are not."""
    status, _, error = cli("predict", str(hostile_run[0].path), "--text", "a\udcff")
    assert status == 2
    assert "unpaired surrogate" in error


# Prompts ------------------------------------------------------------------------------------------

WHOLE = [kind for kind in SOUND if kind not in ("NUL", "a megabyte")]


@pytest.mark.parametrize("kind", WHOLE)
def test_every_prompt_has_the_text_as_it_is(kind: str) -> None:
    """Ours and lm-evaluation-harness's, in every language: nothing of the text is a template."""
    text = f"x {SOUND[kind]} x"
    for name, task in tasks().items():
        if not isinstance(task, ChoiceTask | AnswerTask):
            continue
        prompts = [task.prompt, *(p for v in task.variants.values() for p in v.values())]
        for prompt in prompts:
            fields = dict.fromkeys(prompt.fields, text)
            if "question" in fields and name == "xcopa":
                fields["question"] = "cause"
            shown = [prompt.render(fields), *prompt.render_choices(fields)]
            whole = "\n".join(shown)
            for field in prompt.fields:
                if fields[field] == text:
                    # XCOPA's harness prompt takes the premise's last character for a full stop
                    assert text[:-1] in whole, (name, field)
            assert "49" not in whole
            assert "alert(1)" not in whole or kind == "HTML"
