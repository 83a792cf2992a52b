"""lm-evaluation-harness asks, an adapted model answers: as a run does, and as the harness's own
model does where there is no adapter."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polyprefix.config import ConfigError, DataError, ModelConfig, RunConfig, RunError
from polyprefix.evaluation import Decoding, generate, summarise
from polyprefix.evaluation.choices import predict_choices
from polyprefix.methods import AdaptedModel
from polyprefix.models import load_backbone
from polyprefix.models.encoding import Encoder
from polyprefix.results import RunFolder, Silent
from polyprefix.study import run
from polyprefix.tasks import Example, get_task
from tests.conformance.cases import METHODS, TEXT, MethodCase, alone, scramble
from tests.conftest import Cli

os.environ["HF_DATASETS_OFFLINE"] = "1"  # before datasets is imported, which reads it then

NEW = 8
TASK = get_task("sib200")
OPEN = "{{ text }}\n\nIn short:"


@pytest.fixture(scope="module")
def harness() -> Any:
    """Our side of the bridge, where the other side is installed."""
    pytest.importorskip("lm_eval")
    from polyprefix.study import harness

    return harness


@pytest.fixture(scope="module")
def examples(sib_folder: Path) -> list[Example]:
    """Swahili test sentences, of different lengths."""
    lines = (sib_folder / "data/annotated/swh_Latn/test.tsv").read_text().splitlines()[1:]
    found = []
    for number, line in enumerate(lines):
        key, label, text = line.split("\t")
        fields = {"text": " ".join([text] * (1 + number % 3))}
        found.append(Example(key, fields, label=TASK.labels.index(label)))
    return found


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory, examples: list[Example]) -> Path:
    """Local tasks as a user of the harness writes them: YAML beside JSON lines."""
    folder = tmp_path_factory.mktemp("their tasks")
    rows = [
        {"text": e.fields["text"], "label": e.label, "first": e.fields["text"].split()[0]}
        for e in examples
    ]
    data = folder / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tasks: dict[str, dict[str, Any]] = {
        "local_topics": {
            "output_type": "multiple_choice",
            "doc_to_text": TASK.prompt.template,
            "doc_to_choice": [choice.strip() for choice in TASK.prompt.choices],
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "local_summaries": {
            "output_type": "generate_until",
            "doc_to_text": OPEN,
            "doc_to_target": "first",
            "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": NEW, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
        "local_words": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{ text }}",
            "doc_to_target": "{{ ' ' + first }}",
            "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
        },
        "local_texts": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "text",
            "metric_list": [{"metric": "word_perplexity"}],
        },
        "local_beams": {
            "output_type": "generate_until",
            "doc_to_text": OPEN,
            "doc_to_target": "first",
            "generation_kwargs": {"until": ["\n"], "num_beams": 4},
            "metric_list": [{"metric": "exact_match"}],
        },
        "local_lost": {
            "output_type": "loglikelihood_rolling",
            "doc_to_target": "text",
            "metric_list": [{"metric": "word_perplexity"}],
        },
    }
    for name, values in tasks.items():
        file = str(folder / "lost.jsonl" if name == "local_lost" else data)
        source = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": file}, "cache_dir": str(folder / "cache")},
            "test_split": "test",
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(source | values), encoding="utf-8")
    return folder


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(harness: Any, configs: Path) -> Ask:
    """Evaluate tasks of the folder above with samples, under a model."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(configs), include_defaults=False)
    loaded: dict[tuple[str, ...], Any] = {}

    def call(lm: Any, *tasks: str, **options: Any) -> dict[str, Any]:
        if tasks not in loaded:
            loaded[tasks] = manager.load(list(tasks))
        return evaluate(lm, loaded[tasks], log_samples=True, bootstrap_iters=0, **options)

    return call


def adapted(folder: Path, case: MethodCase) -> AdaptedModel:
    model = AdaptedModel(load_backbone(ModelConfig(name=str(folder))))
    scramble(model.attach(case.config(), text=TEXT))
    return model


def plain(folder: Path) -> AdaptedModel:
    return AdaptedModel(load_backbone(ModelConfig(name=str(folder))))


def answers(samples: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """What the model said to each request of each document, in the documents' order."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [[said[0] for said in sample["resps"]] for sample in ordered]


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


# With every method as in a run -------------------------------------------------------------------


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_choices_score_as_in_a_run(
    case: MethodCase, harness: Any, ask: Ask, tiny_folder: Path, examples: list[Example]
) -> None:
    model = adapted(tiny_folder, case)
    encoder = Encoder(model.backbone.tokenizer, model.room(512))
    rows = predict_choices(model, TASK, TASK.prompt, examples, encoder, batch_tokens=300)
    # Another size of batches: they must not matter.
    results = ask(harness.HarnessLM(model, batch_tokens=700), "local_topics")
    theirs = answers(results["samples"]["local_topics"])
    for row, said in zip(rows, theirs, strict=True):
        assert [value for value, _ in said] == pytest.approx(row["logprobs"], abs=1e-4)
    scores, summary = results["results"]["local_topics"], summarise(TASK, rows)
    assert scores["acc,none"] == summary["accuracy"]
    assert scores["acc_norm,none"] == summary["accuracy_per_character"]

    # The adapter takes part.
    model.use(None)
    untouched = predict_choices(model, TASK, TASK.prompt, examples[:1], encoder, batch_tokens=300)
    changed = max(
        abs(one - other)
        for one, other in zip(untouched[0]["logprobs"], rows[0]["logprobs"], strict=True)
    )
    # What trains the backbone's own weights stays in them.
    own = case.method in ("none", "full")
    assert own or changed > 1e-2


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_answers_are_written_as_in_a_run(
    case: MethodCase, harness: Any, ask: Ask, tiny_folder: Path, examples: list[Example]
) -> None:
    model = adapted(tiny_folder, case)
    encoder = Encoder(model.backbone.tokenizer, model.room(512))
    prompts = [example.fields["text"] + "\n\nIn short:" for example in examples]
    encoded = encoder.encode(prompts, [()] * len(prompts))
    decoding = Decoding(max_new_tokens=NEW, stop=("\n", "e"))
    ours = generate(model, [item.prompt for item in encoded], decoding, batch_tokens=300)
    results = ask(harness.HarnessLM(model, batch_tokens=700), "local_summaries")
    theirs = [said for (said,) in answers(results["samples"]["local_summaries"])]
    assert theirs == [answer.text for answer in ours]
    assert len(set(theirs)) > 1


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_a_text_is_scored_token_by_token(case: MethodCase, harness: Any, tiny_folder: Path) -> None:
    """Against one forward pass over the text alone; soft tokens follow or go before the token that
    stands for the missing context."""
    model = adapted(tiny_folder, case)
    lm = harness.HarnessLM(model)
    text = "Watu wanazungumza kuhusu goals."
    ids = model.backbone.tokenizer(text)["input_ids"]
    start = model.wrap([model.backbone.tokenizer.bos_token_id])
    logprobs = alone(model, [*start, *ids]).log_softmax(-1)
    expected = sum(float(logprobs[len(start) - 1 + i, token]) for i, token in enumerate(ids))
    [found] = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    assert found == pytest.approx(expected, abs=1e-3)


# Without an adapter as the harness's own model ---------------------------------------------------


@pytest.fixture(params=["with a begin-of-text token", "without"])
def folder(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, and the same with a tokenizer that puts nothing before a text."""
    if request.param != "without":
        return tiny_folder
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    assert tokenizer["post_processor"] is not None
    path.write_text(json.dumps(tokenizer | {"post_processor": None}))
    return tmp_path


@pytest.fixture
def theirs(harness: Any, folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=40)


LONG = "People talk about goals and races today, and about rivers and islands tomorrow. " * 3


def test_log_probabilities_are_those_of_the_harness(
    harness: Any, theirs: Any, folder: Path
) -> None:
    ours = harness.HarnessLM(plain(folder), max_length=40, batch_tokens=200)
    asked = requests(
        "loglikelihood",
        ("People talk about", " goals"),
        ("People talk about", " goals and races"),
        ("People talk about ", "rivers"),  # the space goes to the continuation
        ("People talk about\n", "rivers"),
        ("<s>People talk about", " films"),  # begins with what the tokenizer would put there
        ("", "Watu wanazungumza"),  # without a context
        ("", "<s>Watu"),
        (LONG, " films"),  # too long: the beginning is lost, <s> too
        (LONG, " films and songs"),
        (LONG, " hotels"),
        (LONG, " hotels"),  # asked twice
    )
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([v for v, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert ours.truncated == 4


def test_long_texts_are_scored_in_the_windows_of_the_harness(
    harness: Any, theirs: Any, folder: Path
) -> None:
    ours = harness.HarnessLM(plain(folder), max_length=40, batch_tokens=200)
    texts = [LONG * 2, "Watu", "", " ".join(reversed(LONG.split()))]
    asked = requests("loglikelihood_rolling", *[(text,) for text in texts])
    assert len(ours.tok_encode(texts[0])) > 3 * 40
    expected = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(expected, abs=1e-3)


def test_answers_are_those_of_the_harness(harness: Any, theirs: Any, folder: Path) -> None:
    ours = harness.HarnessLM(plain(folder), max_length=40, batch_tokens=200)
    asked = requests(
        "generate_until",
        ("People talk about", {"until": ["\n"], "max_gen_toks": NEW}),
        ("Man spricht heute von", {"until": ["\n"], "max_gen_toks": NEW}),
        ("Man spricht heute von", {"until": "a", "max_new_tokens": 20, "temperature": 0.0}),
        ("Watu", {"until": [], "max_gen_toks": 20, "do_sample": False, "top_p": 0.9}),
        (LONG, {"until": ["e", " "], "max_gen_toks": NEW, "num_beams": 1}),
        (LONG, {"max_gen_toks": 20}),
    )
    expected = theirs.generate_until(asked, disable_tqdm=True)
    assert ours.generate_until(asked) == expected
    assert len(set(expected)) > 3
    assert ours.truncated == 2


# Parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [1.0, 30.0])  # a greedy answer is improbable, or is certain
def test_what_is_greedy(harness: Any, tiny_folder: Path, sharpness: float) -> None:
    model = adapted(tiny_folder, next(c for c in METHODS if c.method == "soft_prompt"))
    with torch.no_grad():
        model.model.get_output_embeddings().weight.mul_(sharpness)
    lm = harness.HarnessLM(model, batch_tokens=60)
    prompts = [[1, 40, 50], [1, 60, 70, 80, 90]]
    asked, expected = [], []
    for prompt in prompts:
        written: list[int] = []
        for _ in range(3):
            written.append(int(alone(model, [*model.wrap(prompt), *written])[-1].argmax()))
        other = [token for token in range(100, 120) if token not in written]
        after = int(alone(model, [*model.wrap(prompt), other[0]])[-1].argmax())
        asked += [
            ("", prompt, written),
            ("", prompt, written[:1]),
            ("", prompt, [*written[:2], other[0]]),
            ("", prompt, [other[0], after]),
            ("", prompt, other[1:2]),
        ]
        expected += [True, True, False, False, False]
    found = lm._loglikelihood_tokens(asked)
    assert [greedy for _, greedy in found] == expected
    certain = [value > -0.69 for value, _ in found]
    assert any(certain) == (sharpness > 1)


def test_soft_tokens_take_room(harness: Any, tiny_folder: Path, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["max_position_embeddings"] = 48
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = adapted(tmp_path, next(c for c in METHODS if c.method == "soft_prompt"))
    assert harness.HarnessLM(plain(tmp_path)).max_length == 48
    lm = harness.HarnessLM(model)
    assert lm.max_length == 45
    lengths = []
    inner = model.forward

    def spy(*given: Any, position_ids: torch.Tensor, **named: Any) -> Any:
        lengths.append(int(position_ids.max()) + 1)  # of the longest text of a row
        return inner(*given, position_ids=position_ids, **named)

    model.forward = spy  # type: ignore[method-assign]
    lm.loglikelihood(requests("loglikelihood", (LONG, " films")))
    lm.loglikelihood_rolling(requests("loglikelihood_rolling", (LONG,)))
    assert max(lengths) == 48
    with pytest.raises(ConfigError, match="room for 2 to 45 tokens"):
        harness.HarnessLM(model, max_length=46)


def test_repeated_samples_differ_and_can_be_drawn_again(harness: Any, tiny_folder: Path) -> None:
    arguments = {"until": [], "max_gen_toks": NEW, "do_sample": True, "temperature": 1.0}
    asked = requests("generate_until", *[("Watu", arguments)] * 4)
    lm = harness.HarnessLM(plain(tiny_folder))
    first = lm.generate_until(asked)
    assert len(set(first)) > 1
    assert lm.generate_until(asked) == first
    assert harness.HarnessLM(plain(tiny_folder), seed=9).generate_until(asked) != first


def test_the_end_of_text_written_out_stops_too(harness: Any, tiny_folder: Path) -> None:
    """As ``HFLM`` has it; and a stop string that is empty, which stands everywhere, is none."""
    lm = harness.HarnessLM(plain(tiny_folder))
    decoding = lm._decoding({"until": ["\n", ""], "max_tokens": 5})
    assert decoding == Decoding(max_new_tokens=5, stop=("\n", "</s>"))
    assert lm._decoding({}) == Decoding(max_new_tokens=256, stop=("</s>",))


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"num_beams": 4}, ConfigError, "num_beams=4 is not supported"),
        ({"temperature": 1.0, "top_k": 5}, ConfigError, "top_k=5 is not supported"),
        ({"do_sample": True}, ConfigError, "a temperature above 0"),
        ({"max_gen_toks": 40}, RunError, "leave no room"),
    ],
)
def test_a_generation_that_cannot_be_had(
    harness: Any,
    tiny_folder: Path,
    arguments: dict[str, Any],
    error: type[Exception],
    told: str,
) -> None:
    lm = harness.HarnessLM(plain(tiny_folder), max_length=40)
    with pytest.raises(error, match=told):
        lm.generate_until(requests("generate_until", ("Watu", {"until": ["\n"], **arguments})))


@pytest.mark.parametrize("continuation", ["", LONG])
def test_a_continuation_that_cannot_be_scored(
    harness: Any, tiny_folder: Path, continuation: str
) -> None:
    lm = harness.HarnessLM(plain(tiny_folder), max_length=40)
    with pytest.raises(DataError, match=r"cannot be scored in a context of 40"):
        lm.loglikelihood(requests("loglikelihood", ("Watu", continuation)))


# The command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(
    tiny_folder: Path, sib_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """A run of a few steps."""
    output = tmp_path_factory.mktemp("runs")
    values = {
        "model": {"name": str(tiny_folder)},
        "method": {"name": "prefix_tuning"},
        "task": {"name": "sib200", "data": str(sib_folder)},
        "train": {"steps": 3},
        "output": str(output),
    }
    return RunFolder(output / run(RunConfig.read(values), progress=Silent())["id"])


@pytest.fixture
def local(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the tasks of the folder: to look through the harness's thousands takes seconds."""
    import lm_eval.tasks

    few = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", few)


def test_a_run_is_brought_to_the_harness(
    cli: Cli, local: None, finished: RunFolder, configs: Path, examples: list[Example]
) -> None:
    code, out, err = cli(
        "harness", str(finished.path), "--tasks", "local_topics, local_words",
        "--include-path", str(configs), "--limit", "5", "--samples", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    path = finished.path / "harness" / "local_topics+local_words-limit5.json"
    assert out.splitlines()[-1] == str(path)
    assert "|local_topics|" in out
    results = json.loads(path.read_text())
    assert results["polyprefix"]["id"] == finished.id
    assert results["polyprefix"]["method"]["name"] == "prefix_tuning"
    assert results["config"]["adapter"] == "prefix_tuning"
    assert set(results["results"]) == {"local_topics", "local_words"}
    # What the run wrote down of the sentences that are the same.
    written = {row["id"]: row for row in finished.predictions("swh_Latn") or []}
    said = answers(results["samples"]["local_topics"])
    assert len(said) == 5
    for number in (0, 3):
        ours = written[examples[number].id]["logprobs"]
        # JSON of samples: what the model said is text there.
        assert [float(value) for value, _ in said[number]] == pytest.approx(ours, abs=1e-4)


def test_results_go_where_one_says(
    cli: Cli, local: None, finished: RunFolder, configs: Path, tmp_path: Path
) -> None:
    there = tmp_path / "new" / "their.json"
    code, _, err = cli(
        "harness", str(finished.path), "--tasks", "local_tex*,local_summaries", "--include-path",
        str(configs), "--output", str(there), "--max-length", "30",
    )  # fmt: skip
    assert code == 0, err
    results = json.loads(there.read_text())
    assert set(results["results"]) == {"local_texts", "local_summaries"}
    assert results["max_length"] == 30
    assert "samples" not in results
    assert results["polyprefix"]["truncated"] > 0
    assert "lost their beginning" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tasks", "local_topix"], "Did you mean 'local_topics'?"),
        (["--tasks", ","], "no task is named"),
        (["--tasks", "local_lost"], "cannot load 'local_lost'"),
        (["--tasks", "local_beams"], "num_beams=4 is not supported"),
        (["--tasks", "local_topics", "--include-path", "nowhere"], "'nowhere' is not a folder"),
    ],
)
def test_what_a_user_can_mend(
    cli: Cli, local: None, finished: RunFolder, configs: Path, arguments: list[str], told: str
) -> None:
    if "--include-path" not in arguments:
        arguments = [*arguments, "--include-path", str(configs)]
    code, _, err = cli("harness", str(finished.path), "--quiet", *arguments)
    assert code == 2
    assert told in err


def test_the_tasks_of_the_harness_are_known(
    cli: Cli, harness: Any, finished: RunFolder, tmp_path: Path
) -> None:
    """And what is no run is found out before they are looked through."""
    code, _, err = cli("harness", str(finished.path), "--quiet", "--tasks", "beleble_swh_Latn")
    assert code == 2
    assert "Did you mean 'belebele_swh_Latn'?" in err
    assert len(err) < 300
    code, _, err = cli("harness", str(tmp_path), "--tasks", "beleble_swh_Latn")
    assert code == 2
    assert "is not a run's folder" in err


def test_without_the_extra_one_is_told_how_to_install_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("polyprefix.study.harness", "polyprefix.study.harness_run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    code, _, err = cli("harness", str(tmp_path), "--tasks", "belebele_swh_Latn")
    assert code == 2
    assert "pip install 'polyprefix[harness]'" in err


def test_the_command_explains_itself(cli: Cli) -> None:
    code, out, _ = cli("harness", "--help")
    assert code == 0
    assert "Examples" in out
    assert "polyprefix[harness]" in out
