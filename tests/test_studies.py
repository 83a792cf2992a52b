"""The studies that come with the package, and the scale at which anybody can run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polyprefix.cli.study import ScaleName, _open
from polyprefix.config import Study, StudyFile, expand, read_study, read_yaml
from polyprefix.methods import method_config
from polyprefix.results import StudyFolder
from polyprefix.studies import shipped
from polyprefix.study import run_study
from polyprefix.study.grid import check
from polyprefix.tasks import get_task, load_task_data
from polyprefix.tasks.scale import LANGUAGES, NANO, NANO_LAYERS, Scale
from tests.benchmark_files import write
from tests.conftest import TOPICS, Cli

STUDIES = shipped()
LESS = [name for name in STUDIES if name.startswith("less-is-more")]


def file_of(name: str) -> StudyFile:
    return read_study(STUDIES[name])


def at_nano(name: str, data: Path | None, output: Path, *settings: str) -> tuple[Study, list[str]]:
    said: list[str] = []
    scale = Scale(nano=True, data=data, say=said.append)
    return expand(file_of(name), output=str(output), settings=settings, change=scale), said


# The files ---------------------------------------------------------------------------------------


def test_every_paper_has_a_folder() -> None:
    papers = {name.partition("/")[0] for name in STUDIES}
    assert papers == {"prefix-adaptation", "less-is-more", "xtreme-r-generation"}
    names = [file_of(name).config.name for name in STUDIES]
    assert len(set(names)) == len(names)  # their runs stand in folders of that name


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_expands_and_says_what_it_is(name: str) -> None:
    study = expand(file_of(name), output="o")
    assert len(study.runs) > 5
    check(study)
    for key in ("title", "paper", "reports", "unknown", "chosen"):
        assert getattr(study.config, key).strip(), key
    for run in study.runs:
        task = get_task(run.config.task.name)
        task.prompt_of("eng_Latn", run.config.task.prompt)
        if run.config.method["name"] != "none":
            assert run.config.train.steps or run.config.train.epochs
    assert len({run.label for run in study.runs}) == len(study.runs)


def test_the_papers_models_are_there() -> None:
    """Of DESIGN's table: what each paper needs."""
    text = "".join(STUDIES[name].read_text() for name in STUDIES)
    for model in (
        "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-1B", "mistralai/Mistral-7B-v0.3",
        "mistralai/Mistral-Small-24B", "facebook/xglm-564M", "facebook/xglm-1.7B",
        "bigscience/bloom-560m", "bigscience/bloom-1b1",
    ):  # fmt: skip
        assert model in text


@pytest.mark.parametrize("name", LESS)
def test_less_is_more_has_52_languages_of_sib200(name: str) -> None:
    languages = read_yaml(STUDIES[name])["base"]["task"]["languages"]
    assert len(set(languages)) == len(languages) == 52
    assert set(languages) <= set(get_task("sib200").language_codes)


def test_the_prefix_has_the_papers_number_of_parameters() -> None:
    """1.23M on Llama 3.1 8B: two vectors of 8 x 128 for each of 20 places in 30 layers."""
    runs = expand(file_of("prefix-adaptation/benchmarks"), output="o").runs
    (values,) = {
        json.dumps(r.config.method) for r in runs if r.config.method["name"] == "prefix_tuning"
    }
    config: Any = method_config(json.loads(values))
    assert config.parameterization == "kv"
    assert config.layers == "upper"
    assert 2 * config.length * 8 * 128 * 30 == pytest.approx(1.23e6, rel=0.005)


# Nano --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDIES)
def test_nano_replaces_models_and_trims_data(name: str, tmp_path: Path) -> None:
    study, said = at_nano(name, None, tmp_path)
    assert 2 <= len(study.runs) < len(expand(file_of(name), output="o").runs) + 1
    check(study)
    known = get_task("polytopics").language_codes
    for run in study.runs:
        task, train, method = run.config.task, run.config.train, run.config.method
        assert run.config.model.name == NANO
        assert run.config.model.dtype == "float32"
        assert (task.train_samples or 0) <= 32
        assert (task.train_per_class or 0) <= 2
        assert task.train_samples or task.train_per_class
        assert task.test_samples == 8
        assert train.steps is not None
        assert train.epochs is None
        assert task.languages[0] == "eng_Latn"
        assert 1 < len(task.languages) <= LANGUAGES
        assert set(task.languages) <= set(known)
        assert int(
            str(method.get("layers", "last:1")).rpartition(":")[2].replace("upper", "1")
        ) <= (NANO_LAYERS)
    assert any(f"model.name is {NANO}" in line or "model is" in line for line in said)
    assert len(set(said)) == len(said)


def test_settings_win_over_the_scale(tmp_path: Path) -> None:
    study, _ = at_nano("less-is-more/lengths", None, tmp_path, "train.steps=1", "seed=5")
    assert {(run.config.train.steps, run.config.seed) for run in study.runs} == {(1, 5)}
    assert [run.config.method["length"] for run in study.runs] == [1, 2, 5, 8]


def test_a_task_without_a_folder_is_left_out(tmp_path: Path, sib_folder: Path) -> None:
    (tmp_path / "sib200").symlink_to(sib_folder)
    study, said = at_nano("less-is-more/lengths", tmp_path, tmp_path)
    assert {run.config.task.data for run in study.runs} == {str(tmp_path / "sib200")}
    assert study.runs[0].config.task.languages == ("eng_Latn", "deu_Latn", "swh_Latn")
    study, said = at_nano("xtreme-r-generation/generation", tmp_path, tmp_path)
    assert not study.runs
    assert sum("left out: task" in line for line in said) == 3
    [line] = [line for line in said if "task mlqa" in line]
    assert str(tmp_path / "mlqa") in line
    assert get_task("mlqa").layout in line
    assert "leave --data out to read the hub" in line


def test_a_report_says_what_its_runs_are(tmp_path: Path, benchmarks: Path) -> None:
    for name in ("xnli", "mgsm"):
        (tmp_path / name).symlink_to(benchmarks / name)
    arguments = ("prefix-adaptation/benchmarks", ScaleName.nano, tmp_path, None, None, str)
    said = dict(_open(*arguments)[2])
    assert set(said) == {"scale", "left out"}
    assert said["scale"].startswith("nano: the packaged model stands in for every other")
    whole = ("prefix-adaptation/benchmarks", ScaleName.full, benchmarks, None, None, str)
    assert not _open(*whole)[2]
    *_, both = _open(*arguments)
    assert [text.partition(",")[0] for about, text in both if about == "left out"] == [
        "task xquad",
        "task belebele",
    ]


def test_nothing_is_left(cli: Cli, tmp_path: Path) -> None:
    arguments = ["--scale", "nano", "--data", str(tmp_path)]
    code, _, err = cli("study", "run", "less-is-more/lengths", *arguments)
    assert code == 2
    assert "left out: task sib200" in err
    assert "no run is left" in err


def test_the_list(cli: Cli) -> None:
    code, out, _ = cli("study", "list")
    assert code == 0
    for name in STUDIES:
        assert name in out


# All of it, end to end ---------------------------------------------------------------------------


def paragraphs(count: int, language: str = "") -> dict[str, Any]:
    """SQuAD's form, two questions a paragraph."""
    parts = [
        {
            "context": f"{language} Number {n} stood at the river, and its colour was {word}.",
            "qas": [
                {
                    "id": f"{n}-{q}",
                    "question": f"What was the colour of number {n}? ({q})",
                    "answers": [{"text": word, "answer_start": 0}],
                }
                for q in range(2)
            ],
        }
        for n, word in enumerate(["red", "blue", "green", "white"] * (count // 4))
    ]
    for part in parts:
        for qa in part["qas"]:
            text = qa["answers"][0]["text"]
            qa["answers"][0]["answer_start"] = part["context"].index(text)
    return {"version": "1.1", "data": [{"title": "T", "paragraphs": parts}]}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory, sib_folder: Path) -> Path:
    """A folder with a few examples of every benchmark, in their own layouts."""
    root = tmp_path_factory.mktemp("benchmarks")
    for code in ("eng_Latn", "deu_Latn", "swh_Latn"):
        for split in ("train", "dev", "test"):
            lines = ["index_id\tcategory\ttext"]
            for topic, words in TOPICS.items():
                lines += [
                    f"{len(lines) + n}\t{topic}\tAbout {word}." for n, word in enumerate(words)
                ]
            write(root / "sib200" / code / f"{split}.tsv", *lines)
    labels = ("entailment", "neutral", "contradiction")
    for code in ("en", "de"):
        for split in ("train", "dev", "test"):
            rows = [f"He has {n}.\tShe has {n}.\t{labels[n % 3]}" for n in range(60)]
            write(root / "xnli" / f"{split}-{code}.tsv", *rows)
        write(root / "xquad" / f"xquad.{code}.json", paragraphs(8, "Test:"))
        for split in ("dev", "test"):
            name = f"{split}-context-{code}-question-{code}.json"
            write(root / "mlqa" / name, paragraphs(12, split))
        pairs = [f"{n}\tIt is {n}\tThis is {n}\t{n % 2}" for n in range(1, 60)]
        for name in ("train", "dev_2k", "test_2k"):
            header = "id\tsentence1\tsentence2\tlabel"
            write(root / "paws_x" / code / f"{name}.tsv", header, *pairs)
    for name in ("xquad", "mlqa"):
        write(root / name / "train.json", paragraphs(40, "Train:"))
    write(root / "xquad" / "dev.json", paragraphs(12, "Dev:"))
    for language, count in (("en", 12), ("sw", 12)):
        write(root / "tydiqa_goldp" / f"tydiqa.goldp.{language}.dev.json", paragraphs(count, "D"))
    write(root / "tydiqa_goldp" / "tydiqa.goldp.en.train.json", paragraphs(200, "Train:"))
    solved = [{"question": f"What is {n}+1?", "answer": f"It is.\n#### {n + 1}"} for n in range(60)]
    write(root / "mgsm" / "train.jsonl", *solved)
    write(root / "mgsm" / "test.jsonl", *solved[:40])
    for code in ("en", "de"):
        write(root / "mgsm" / f"mgsm_{code}.tsv", *(f"Was ist {n}?\t{n}" for n in range(12)))
    choice = {"premise": "It fell.", "choice1": "It broke.", "choice2": "It sang.", "label": 0}
    for language in ("en", "sw"):
        for split in ("train", "val", "test"):
            rows = [choice | {"question": "effect", "idx": n} for n in range(40)]
            if language == "en" or split != "train":
                write(root / "xcopa" / language / f"{split}.{language}.jsonl", *rows)
    for name, count in (("eng_Latn", 20), ("deu_Latn", 20), ("train", 700)):
        rows = [
            {
                "link": f"l{n}", "question_number": 1, "flores_passage": f"{name} passage {n}.",
                "question": "Which number?", "correct_answer_num": "1", "dialect": "eng_Latn",
                **{f"mc_answer{k}": f"{n + k}" for k in range(1, 5)},
            }
            for n in range(count)
        ]  # fmt: skip
        write(root / "belebele" / f"{name}.jsonl", *rows)
    return root


@pytest.mark.parametrize("name", STUDIES)
def test_there_is_data_for_every_run_at_nano(name: str, benchmarks: Path, tmp_path: Path) -> None:
    study, said = at_nano(name, benchmarks, tmp_path)
    assert not [line for line in said if "left out" in line]
    for task in {run.config.task for run in study.runs}:
        data = load_task_data(task, seed=0)
        assert data.train
        assert len(data.dev) == 16
        assert len(data.test) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_from_end_to_end(name: str, benchmarks: Path, tmp_path: Path, cli: Cli) -> None:
    few = ["seed=0", "train.steps=1", "task.dev_samples=4", "task.test_samples=2"]
    few += ["train.learning_rate=1e-3"]
    study, _ = at_nano(name, benchmarks, tmp_path, *few)
    folder = StudyFolder(tmp_path)
    states = run_study(study, folder)
    assert states == {"finished": len(study.runs)}, [folder.error(r.key) for r in study.runs]
    settings = [text for setting in few for text in ("--set", setting)]
    where = ["--output", str(tmp_path), "--data", str(benchmarks), "--scale", "nano"]
    code, out, _ = cli("study", "report", name, *where, *settings)
    assert code == 0
    assert "source language's dev split alone" in out
    assert "unknown: " in out
    assert "scale: nano" in out
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "the packaged model stands in for every other" in page
