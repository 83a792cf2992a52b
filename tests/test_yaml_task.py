"""A task that a YAML file defines: what it becomes, and where its data stands."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import ConfigError, DataError, TaskConfig
from polyprefix.evaluation.answer_metrics import ANSWER_METRICS, score_answer
from polyprefix.tasks import AnswerTask, ChoiceTask, get_task, load_task_data
from polyprefix.tasks import hub as hub_module
from polyprefix.tasks.scores import ANSWER_SCORES
from tests.yaml_tasks import ANSWER, CHOICE, TABLE, changed, load, tables, texts, written

# What a file becomes -----------------------------------------------------------------------------


def test_a_task_of_choices(tmp_path: Path) -> None:
    data = load(written(tmp_path, CHOICE, tables()))
    task = data.task
    assert isinstance(task, ChoiceTask)
    assert (task.name, task.title, task.headline) == ("mine", "mine", "accuracy")
    assert not task.parallel
    assert task.labels == ("positive", "negative")
    assert dict(task.language_codes) == {"eng_Latn": "en", "deu_Latn": "de"}
    assert data.sizes == {"train": 2, "dev": 2, "test": {"eng_Latn": 2, "deu_Latn": 2}}
    prompt = data.prompts["deu_Latn"]
    assert prompt.render(data.test["deu_Latn"][0].fields) == "Great\nThis is"
    assert prompt.choices == (" good", " bad")
    assert [example.label for example in data.train] == [0, 1]


def test_a_task_of_written_answers(tmp_path: Path) -> None:
    row = {"question": "Where?", "answers": ["In Rome", "Rome", None, "Rome"], "text": "..."}
    spec = changed(
        ANSWER,
        metrics=["mlqa", "exact"],
        stop=["\n", "Question:"],
        max_new_tokens=7,
        prompt="{{ passage }}\n{{ question }}",
        passage="passage",
        headline="exact",
    )
    spec["columns"] = {"answers": "answers", "fields": {"passage": "text"}}
    data = load(written(tmp_path, spec, tables(json.dumps(row), "jsonl")))
    task = data.task
    assert isinstance(task, AnswerTask)
    assert (task.metrics, task.stop) == (("mlqa", "exact"), ("\n", "Question:"))
    assert (task.max_new_tokens, task.passage, task.headline) == (7, "passage", "exact")
    [example] = data.train
    assert example.answers == ("In Rome", "Rome")
    assert example.fields == {"passage": "...", "question": "Where?"}
    plain = get_task(str(written(tmp_path, ANSWER, {})))
    assert isinstance(plain, AnswerTask)
    assert (plain.stop, plain.max_new_tokens) == (AnswerTask.stop, AnswerTask.max_new_tokens)
    assert (plain.headline, plain.passage) == ("f1", None)


def test_answers_in_a_table_and_what_is_trained_on_instead(tmp_path: Path) -> None:
    spec = changed(ANSWER, files="{split}-{language}.csv", answer_separator="|", metrics="number")
    spec["columns"] = {"answers": "result", "target": "steps"}
    table = "question,result,steps\n6 x 7?,42 | forty-two |,6 x 7 = 42\n"
    [example] = load(written(tmp_path, spec, tables(table))).train
    assert example.answers == ("42", "forty-two")
    assert example.target == "6 x 7 = 42"


def test_the_scores_of_metrics_are_those_that_are_computed() -> None:
    assert set(ANSWER_SCORES) == set(ANSWER_METRICS)
    for name, scores in ANSWER_SCORES.items():
        assert score_answer([name], "1", ["1"], "eng_Latn").keys() == set(scores)
    partly = score_answer(["squad", "mlqa"], "Rome, Italy", ["Rome"], "eng_Latn")
    assert {name: round(score or 0.0, 3) for name, score in partly.items()} == {
        "f1": 0.667,
        "exact_match": 0.0,
        "mlqa_f1": 0.667,
        "mlqa_exact_match": 0.0,
    }


def test_plain_values_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    text = """
    name: mine
    kind: choice
    files: {train: {no: t.csv}, dev: {no: t.csv}, test: "{language}.csv"}
    languages: [no, on, de]
    columns: {label: y, id:}
    prompt: "{{ text }}"
    choices: {yes: yes, no: no, 1: 010}
    """
    # "on" is no language of the table: given a meaning instead.
    text = text.replace("[no, on, de]", "{no: no, on: Old Norse, de: de}")
    files = {"t.csv": "text,y\na,YES\nb,No\nc,1\n"}
    path = written(tmp_path, textwrap.dedent(text), files)
    with pytest.raises(ConfigError, match=r"mine.yaml: key 'languages.on': unknown language 'Old"):
        get_task(str(path))
    path = written(tmp_path, textwrap.dedent(text).replace("on: Old Norse, ", ""), files)
    task = get_task(str(path))
    assert isinstance(task, ChoiceTask)
    assert dict(task.language_codes) == {"nob_Latn": "no", "deu_Latn": "de"}
    assert task.labels == ("yes", "no", "1")
    assert task.prompt.choices == (" yes", " no", " 010")
    assert [e.label for e in task.read_file(tmp_path / "t.csv", "train").examples] == [0, 1, 2]


def test_labels_have_several_spellings(tmp_path: Path) -> None:
    spec = changed(CHOICE, labels={"5": "positive", "pos": "positive", "0": "negative"})
    table = "text,sentiment\na,POS\nb, 5 \nc,negative\nd,0\ne,neutral\n"
    path = written(tmp_path, spec, tables(table))
    split = get_task(str(path)).read_file(tmp_path / "dev-en.csv", "dev")
    assert [example.label for example in split.examples] == [0, 0, 1, 1]
    [bad] = split.bad_rows
    assert bad.line == 6
    assert bad.reason.startswith("unknown label 'neutral'; expected one of positive, negative, 5")


# Where the data stands ---------------------------------------------------------------------------


def test_paths_start_at_the_file_or_at_the_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a", CHOICE, {f"../b/{n}": c for n, c in tables("x").items()})
    for name, content in tables().items():
        (tmp_path / "a" / name).write_text(str(content))
    assert texts(load(path).train) == ["Great", "Awful"]
    with pytest.raises(DataError, match=r"b.train-en.csv: unknown column"):
        load(path, data=str(tmp_path / "b"))
    monkeypatch.chdir(tmp_path / "a")
    assert texts(load(Path("mine.yaml")).train) == ["Great", "Awful"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert texts(load(Path("~/a/mine.yaml")).train) == ["Great", "Awful"]
    absolute = changed(CHOICE, files=str(tmp_path / "a" / "{split}-{language}.csv"))
    assert texts(load(written(tmp_path / "c", absolute, {})).train) == ["Great", "Awful"]


def test_a_path_may_have_an_at_sign(tmp_path: Path) -> None:
    """Which otherwise stands between a task and one of its prompts."""
    path = written(tmp_path / "me@home" / "v@2", CHOICE, tables())
    assert texts(load(path).train) == ["Great", "Awful"]
    named = path.rename(path.with_name("mine@home.yaml"))
    assert texts(load(named).train) == ["Great", "Awful"]
    for name in (path.name, "MINE@HOME.YML", r"a\me@home\b"):
        assert TaskConfig(name=name).prompt is None
    config = TaskConfig(name=f"{named}@lm-eval")
    assert (config.name, config.prompt) == (str(named), "lm-eval")
    with pytest.raises(ConfigError, match=r"unknown prompt of task 'mine' 'lm-eval'"):
        load_task_data(config, seed=0)


def test_a_path_for_each_split_and_language(tmp_path: Path) -> None:
    spec = changed(CHOICE, languages={"en": "English", "ger": "German"})
    spec["files"] = {
        "train": {"en": "one.csv"},
        "dev": "{language}/{split}.csv",
        "test": {"en": "two.csv", "ger": "drei.csv"},
    }
    spec["splits"] = {"dev": "valid"}
    names = ("one.csv", "en/valid.csv", "two.csv", "drei.csv")
    path = written(tmp_path, spec, dict.fromkeys(names, TABLE))
    assert load(path).sizes["test"] == {"eng_Latn": 2, "deu_Latn": 2}
    with pytest.raises(DataError, match=r"mine.yaml: no train file for deu_Latn: add it as key"):
        load(path, source_language="de")
    (tmp_path / "drei.csv").unlink()
    with pytest.raises(DataError, match=r"key 'files.test': '.*drei.csv' does not exist \(for ger"):
        load(path)
    assert load(path, languages="en").languages == ["eng_Latn"]


def test_one_file_with_columns_of_language_and_split(tmp_path: Path) -> None:
    rows = [
        f"{text},{sentiment},{language},{split}"
        for language, split in [("EN", "train"), (" en", "valid"), ("en", "test"), ("de", "TEST ")]
        for text, sentiment in [
            (f"{language}-{split}".strip(), "positive"),
            ("x", "negative"),
        ]
    ]
    table = "\n".join(["text,sentiment,lang,part", *rows, "y,positive,fr,train"])
    spec = changed(CHOICE, files="all.csv", splits={"dev": "valid"})
    spec["columns"] = {"label": "sentiment", "language": "lang", "split": "part"}
    path = written(tmp_path, spec, {"all.csv": table})
    data = load(path)
    assert texts(data.train) == ["EN-train", "x"]
    assert texts(data.dev) == ["en-valid", "x"]
    assert texts(data.test["deu_Latn"]) == ["de-TEST", "x"]
    # Which language and split a row is of must be said; a broken one may be of any.
    (tmp_path / "all.csv").write_text(table + "\nz,positive,,train\n")
    with pytest.raises(DataError, match=r"all.csv, line 11: column 'lang' is empty"):
        load(path)
    (tmp_path / "all.csv").write_text(table)
    spec["languages"] = ["en", "de", "sw"]
    with pytest.raises(DataError, match=r"no row has 'sw' in column 'lang'; there are .*en, fr"):
        load(written(tmp_path, spec, {}))
    mine = tmp_path / "train.csv"
    mine.write_text("text,sentiment\nother,positive\n")
    assert texts(load(path, languages="en", train_data=str(mine)).train) == ["other"]
    with pytest.raises(DataError, match=r"all.csv: rows of 3 languages .* in column 'lang'"):
        load(path, languages="en", train_data=str(tmp_path / "all.csv"))


def test_a_part_of_the_training_examples_is_held_out(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{'positive' if n % 2 else 'negative'}\n" for n in range(200))
    files = tables("text,sentiment\n" + rows)
    del files["dev-en.csv"]
    data = load(written(tmp_path, changed(CHOICE, dev_share=0.25), files))
    assert 30 < len(data.dev) < 70
    assert len(data.train) + len(data.dev) == 200
    assert not set(texts(data.train)) & set(texts(data.dev))


@pytest.fixture
def hub_folder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out like a data set on the hub, which ``somebody/reviews`` then means."""
    import datasets

    folder = hub / "hub"
    read_rows = hub_module.read_rows

    def local(repository: str, *rest: Any) -> Any:
        assert repository == "somebody/reviews"
        return read_rows(str(folder), *rest)

    monkeypatch.setattr(hub_module, "read_rows", local)
    features = datasets.Features(
        body=datasets.Value("string"),
        lang=datasets.Value("string"),
        stars=datasets.ClassLabel(names=["negative", "positive"]),
        options=datasets.Sequence(datasets.Value("string")),
    )
    lines = []
    for config, languages in {"r_en": ["en"], "r_de": ["de"], "default": ["en", "de"]}.items():
        lines.append(f"- config_name: {config}\n  data_files:")
        for split in ("train", "validation", "test"):
            rows = [(f"{language} {split}", language, n) for language in languages for n in (0, 1)]
            body, language, stars = zip(*rows, strict=True)
            columns = {"body": body, "lang": language, "stars": stars}
            columns["options"] = [["a", f"b{n}"] for n in range(len(rows))]
            path = folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))
            lines.append(f"  - split: {split}\n    path: {config}/{split}.parquet")
    (folder / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]))
    return folder


HUB: dict[str, Any] = changed(CHOICE, files=None, hub="somebody/reviews") | {
    "columns": {"label": "stars", "fields": {"text": "body"}}
}


@pytest.mark.usefixtures("hub_folder")
def test_a_data_set_on_the_hub_with_a_configuration_a_language(tmp_path: Path) -> None:
    spec = changed(HUB, hub={"name": "somebody/reviews", "config": "r_{language}"})
    path = written(tmp_path, spec, {})
    data = load(path)
    assert texts(data.train) == ["en train", "en train"]
    assert texts(data.dev) == ["en validation", "en validation"]
    assert texts(data.test["deu_Latn"]) == ["de test", "de test"]
    assert [example.label for example in data.train] == [1, 0]  # by name, not by number
    assert data.sources[0] == "hub:somebody/reviews/r_en/train"
    # The file is part of what the data was.
    before = data.revision
    assert before.startswith("hub:somebody/reviews@main")
    spec["choices"] = {"positive": "bad", "negative": "good"}
    assert load(written(tmp_path, spec, {})).revision != before
    with pytest.raises(ConfigError, match=r"'task.data' has no effect: .*mine.yaml reads 'some"):
        load(path, data=str(tmp_path))
    with pytest.raises(DataError, match=r"configuration 'r_fr'.*mine.yaml: keys hub, lang"):
        load(written(tmp_path, changed(spec, languages=["en", "fr"]), {}))


@pytest.mark.usefixtures("hub_folder")
def test_a_data_set_on_the_hub_with_a_column_of_languages(tmp_path: Path) -> None:
    spec = changed(HUB, splits={"dev": "train[:2]", "train": "train[:2]"})
    spec["columns"] = {"label": "stars", "language": "lang", "fields": {"text": "options.1"}}
    data = load(written(tmp_path, spec, {}))
    assert texts(data.dev) == ["b0", "b1"]  # what datasets calls a slice
    assert texts(data.test["eng_Latn"]) == ["b0", "b1"]
    assert texts(data.test["deu_Latn"]) == ["b2", "b3"]
    spec["columns"] = {"label": "star", "language": "lang", "fields": {"text": "body"}}
    with pytest.raises(DataError, match=r"hub:.*Did you mean 'stars'\?.* with key 'columns.label'"):
        load(written(tmp_path, spec, {}))


@pytest.mark.usefixtures("hub_folder")
def test_a_data_set_on_the_hub_without_a_dev_split(tmp_path: Path) -> None:
    spec = changed(HUB, hub={"name": "somebody/reviews", "config": "r_{language}"}, dev_share=0.5)
    spec["columns"] = {"label": "stars", "fields": {"text": "options.1"}}
    path = written(tmp_path, spec, {})
    task = get_task(str(path))
    assert task.hub_split("eng_Latn", "dev") is None
    with pytest.raises(ConfigError, match=r"'splits.dev' has no effect: 'dev_share' says that"):
        get_task(str(written(tmp_path, changed(spec, splits={"dev": "validation"}), {})))


# Identity ----------------------------------------------------------------------------------------


def test_what_the_file_says_is_part_of_the_revision_and_where_it_stands_is_not(
    tmp_path: Path,
) -> None:
    first = load(written(tmp_path / "a", CHOICE, tables()))
    moved = load(written(tmp_path / "b", CHOICE, tables()))
    assert first.revision == moved.revision
    assert str(tmp_path / "a" / "mine.yaml") in first.sources
    # The prompt and the data stay what they are; what is counted as right does not.
    answer = {"name": "mine", "kind": "answer", "files": "{split}-{language}.csv"}
    answer |= {"languages": ["en", "de"], "prompt": "{{ text }}", "metrics": "squad"}
    answer["columns"] = {"answers": "sentiment"}
    revisions = {first.revision}
    for spec in (
        changed(CHOICE, labels={"x": "positive"}),
        changed(CHOICE, headline="macro_f1"),
        changed(CHOICE, languages={"en": "en", "de": "nl"}),
        answer,
        changed(answer, metrics="exact"),
        changed(answer, stop=["."]),
        changed(answer, max_new_tokens=5),
    ):
        data = load(written(tmp_path / "a", spec, {}))
        assert data.revision not in revisions
        revisions.add(data.revision)
