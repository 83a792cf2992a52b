"""The example of a task in a YAML file, and what the tutorial says of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyprefix.config import PolyprefixError
from polyprefix.tasks import get_task
from tests.conftest import ROOT
from tests.yaml_tasks import ANSWER, CHOICE, changed, load, written

EXAMPLE = ROOT / "examples" / "tasks" / "reviews.yaml"
TUTORIAL = ROOT / "docs" / "tutorials" / "your-own-task.md"


def test_the_example_is_what_its_description_says() -> None:
    data = load(EXAMPLE)
    assert data.sizes == {"train": 40, "dev": 12, "test": dict.fromkeys(data.languages, 12)}
    assert data.languages == ["eng_Latn", "deu_Latn", "spa_Latn", "swh_Latn", "hin_Deva"]
    english = data.test["eng_Latn"]
    for examples in (data.train, data.dev, english):
        assert sum(example.label for example in examples) * 2 == len(examples)
    for examples in data.test.values():
        assert [(e.id, e.label) for e in examples] == [(e.id, e.label) for e in english]
    together = texts_of(data.train) + texts_of(data.dev) + texts_of(english)
    assert len(set(together)) == len(together)
    assert "CC BY 4.0" in (EXAMPLE.parent / "reviews" / "README.md").read_text(encoding="utf-8")


def texts_of(examples: Any) -> list[str]:
    return [example.fields["review"] for example in examples]


def tutorial(language: str) -> list[str]:
    text = TUTORIAL.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples, to run the tutorial's commands in."""
    shutil.copytree(ROOT / "examples" / "tasks", tmp_path / "examples" / "tasks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("checkout")
def test_the_commands_of_the_tutorial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from polyprefix.cli import main

    ran = []
    for line in "\n".join(tutorial("bash")).replace("\\\n", " ").splitlines():
        if not line:
            continue  # between two blocks
        program, *arguments = shlex.split(line, comments=True)
        ran.append(program)
        if program == "head":
            lines = Path(arguments[-1]).read_text(encoding="utf-8").splitlines()
            assert "\n".join(lines[: int(arguments[1])]) in TUTORIAL.read_text(encoding="utf-8")
            continue
        assert program == "polyprefix"
        if arguments[0] == "run":
            arguments += ["--quiet", "--set", "train.steps=1", "--set", "train.batch_size=1"]
        else:  # a run's folder, under the name that it has here
            [folder] = Path("runs").glob("reviews-*[0-9a-f]")
            arguments = [str(folder) if a.startswith("runs/") else a for a in arguments]
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert not stopped.value.code, err
        for name in ("Product reviews", "English", "German", "Spanish", "Swahili", "Hindi"):
            assert name in out
    assert ran == ["head", "polyprefix", "polyprefix"]


@pytest.mark.usefixtures("checkout")
def test_the_python_of_the_tutorial(capsys: pytest.CaptureFixture[str]) -> None:
    [program] = tutorial("python")
    exec(program, {})
    assert "The product is" in capsys.readouterr().out


def test_the_files_in_the_tutorial_are_tasks(tmp_path: Path) -> None:
    whole, *parts = tutorial("yaml")
    shown = {k: v for k, v in yaml.safe_load(whole).items() if k != "license"}
    packaged = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert shown == {k: v for k, v in packaged.items() if k != "license"}
    assert len(parts) >= 5
    for part in parts:
        keys = yaml.load(part, yaml.BaseLoader)
        if "name" in keys:
            spec = keys
        else:
            base = CHOICE if "metrics" not in keys else ANSWER
            spec = changed(base, **({"files": None} if "hub" in keys else {})) | keys
            if "languages" not in keys:
                spec["languages"] = ["en", "de", "es", "sw", "hi"]
        get_task(str(written(tmp_path, spec, {})))


def test_the_messages_in_the_tutorial_are_those_that_are_given(checkout: Path) -> None:
    [shown] = tutorial("text")[-1:]
    path = Path("examples/tasks/reviews.yaml")
    text = path.read_text(encoding="utf-8")
    given = []
    for old, new in (("label: sentiment", "label: sentimant"), ("sw,", "swahilli,")):
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(PolyprefixError) as error:
            load(path)
        given.append(str(error.value).splitlines()[0])
    path.write_text(text, encoding="utf-8")
    table = Path("examples/tasks/reviews/test-de.csv")
    table.write_text(table.read_text(encoding="utf-8").replace("negative", "negativ", 1))
    with pytest.raises(PolyprefixError) as error:
        load(path)
    given.append(str(error.value).splitlines()[1].strip())
    assert [line.replace(os.sep, "/") for line in given] == shown.splitlines()
