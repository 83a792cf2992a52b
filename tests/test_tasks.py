"""Tasks: prompts, and the registry with a task from outside the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from polyprefix.config import ConfigError
from polyprefix.languages import get, resolve
from polyprefix.tasks import ChoiceTask, Prompt, Task, get_task, register_task, tasks
from polyprefix.tasks import registry as registry_module

SIB = get_task("sib200")
XNLI = get_task("xnli")
MGSM, BELEBELE, XCOPA, PAWS_X = map(get_task, ("mgsm", "belebele", "xcopa", "paws_x"))


# Prompts -----------------------------------------------------------------------------------------


def test_a_prompt_is_rendered_without_its_answer() -> None:
    assert SIB.prompt.render({"text": "Cells divide."}) == "Cells divide.\nTopic:"
    fields = {"premise": "He ran.", "hypothesis": "He moved."}
    assert XNLI.prompt.render(fields) == ("He ran.\nQuestion: He moved. Yes, no or maybe?\nAnswer:")


@pytest.mark.parametrize(
    "text",
    ["{{ 7 * 7 }} {% for x in y %} {# gone? #}", "<b>&amp; 'q' \"q\"</b>", "a\r\nb\u2028c  ", "{{"],
)
def test_a_field_is_data_never_a_template_and_stays_as_it_is(text: str) -> None:
    assert SIB.prompt.render({"text": text}) == f"{text}\nTopic:"


def test_a_field_that_is_missing_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'text' is undefined; the example's fields are premise"):
        SIB.prompt.render({"premise": "x"})


def test_a_template_cannot_reach_into_python() -> None:
    prompt = Prompt("{{ text.__class__.__mro__ }}", (" a",))
    with pytest.raises(ConfigError, match="unsafe"):
        prompt.render({"text": "x"})


def test_the_version_changes_with_template_and_choices_and_with_nothing_else() -> None:
    base = Prompt("{{ text }}:", (" a", " b"))
    assert base.version == Prompt("{{ text }}:", (" a", " b")).version
    others = [Prompt("{{ text }}?", (" a", " b")), Prompt("{{ text }}:", (" b", " a"))]
    assert len({base.version, *(other.version for other in others)}) == 3
    assert len(base.version) == 12
    assert set(base.version) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("template", "choices", "message"),
    [
        ("{{ text", (" a",), "unexpected end of template"),
        ("{{ text }}\nTopic: ", (" a",), "ends in white space"),
        ("{{ text }}", ("a",), "one space and then the answer"),
        ("{{ text }}", ("  a",), "one space and then the answer"),
        ("{{ text }}", (" ",), "one space and then the answer"),
        ("{{ text }}", (" a", " a"), "not all different"),
    ],
)
def test_a_prompt_that_cannot_be_meant(template: str, choices: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompt(template, choices)


def test_what_a_prompt_says_of_written_answers_is_part_of_its_version() -> None:
    base = Prompt("{{ a }}:")
    others = [
        Prompt("{{ a }}:", target="{{ b }}"),
        Prompt("{{ a }}:", stop=()),
        Prompt("{{ a }}:", stop=("\n",)),
        Prompt("{{ a }}:", max_new_tokens=5),
    ]
    assert len({base.version, *(other.version for other in others)}) == 5
    assert Prompt("{{ text }}\nTopic:", (" a", " b")).version == "901658b6b27e"  # as ever


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"choices": (" a",), "target": "{{ b }}"}, "'target' of a prompt: no effect"),
        ({"choices": (" a",), "stop": ()}, "'stop' of a prompt: no effect"),
        ({"choices": (" a",), "max_new_tokens": 3}, "'max_new_tokens' of a prompt: no effect"),
        ({"choices": (" a",), "delimiter": "\n"}, r"expected '\\n' and then the answer"),
        ({"choices": ("\n a",), "delimiter": "\n"}, r"expected '\\n' and then the answer"),
        ({"choices": ("a",), "delimiter": ""}, "expected white space"),
        ({"delimiter": "\n"}, "'delimiter' of a prompt: no effect"),
        ({"target": "{{ b"}, "unexpected end of template"),
    ],
)
def test_a_prompt_whose_answers_cannot_be_meant(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompt("{{ a }}:", **values)


@pytest.mark.parametrize("task", [SIB, XNLI], ids=lambda task: task.name)
def test_choices_fit_the_labels_and_begin_differently(task: ChoiceTask) -> None:
    assert len(task.prompt.choices) == len(task.labels)
    assert len({choice[:3] for choice in task.prompt.choices}) == len(task.labels)


# Registry ----------------------------------------------------------------------------------------


def test_every_language_of_every_task_is_in_the_table_and_found_by_its_codes() -> None:
    assert len(SIB.language_codes) == 205
    assert len(XNLI.language_codes) == 15
    for task in (SIB, XNLI):
        for code, own in task.language_codes.items():
            assert get(code).code == code
            assert resolve(own).code == code


@pytest.mark.parametrize(("task", "count"), [(MGSM, 11), (BELEBELE, 122), (XCOPA, 12), (PAWS_X, 7)])
def test_languages_are_in_the_table_and_found_by_the_tasks_codes(task: Task, count: int) -> None:
    assert len(task.language_codes) == count
    for code, own in task.language_codes.items():
        assert get(code).code == code
        assert resolve(own).code == code
    for prompts in task.variants.values():
        assert set(prompts) in ({""}, set(task.language_codes))


def test_an_unknown_task_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"unknown task 'xnil'. Did you mean 'xnli'\?.*sib200"):
        get_task("xnil")


TOY = """
from pathlib import Path
from polyprefix.tasks import ChoiceTask, Example, Prompt, label_in, text_in


class Toy(ChoiceTask):
    name = "toy"
    title = "Toy"
    paper = "none"
    license = "CC0"
    hub = "nobody/toy"
    labels = ("yes", "no")
    prompt = Prompt("{{ text }}?", (" yes", " no"))
    language_codes = {"eng_Latn": "en", "qaa_Zzzz": "qaa"}
    columns = ("text", "label")
    layout = "<language>.<split>"

    def example(self, position, row):
        label = label_in(row, "label", {"yes": 0, "no": 1})
        return Example(str(position), {"text": text_in(row, "text")}, label)

    def local_files(self, folder, language, split):
        return [Path(folder, f"{language}.{split}")]
"""


def test_a_task_outside_the_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "toy_task.py").write_text(TOY)
    info = tmp_path / "toy_task-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-task\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[polyprefix.tasks]\ntoy = toy_task:Toy\n")
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "dev", "test"):
        for code in ("eng_Latn", "qaa_Zzzz"):
            (data / f"{code}.{split}").write_text('label\ttext\nyes\t"Is it\nno\tIs it not\n')
    program = """
import sys
from polyprefix.config import TaskConfig
from polyprefix.tasks import load_task_data, tasks
assert {"sib200", "toy", "xnli"} <= set(tasks()), tasks()
data = load_task_data(TaskConfig(name="toy", data=sys.argv[1]), seed=0)
assert data.languages == ["eng_Latn", "qaa_Zzzz"]
assert data.task.prompt.render(data.test["qaa_Zzzz"][0].fields) == '"Is it?'
heavy = {"torch", "transformers", "datasets", "pandas", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program, str(data)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module._TASKS, "things", {"sib200": SIB})


def toy_class(**attributes: Any) -> type[ChoiceTask]:
    scope: dict[str, Any] = {}
    exec(TOY, scope)
    return type("Toy", (scope["Toy"],), attributes)


@pytest.mark.usefixtures("empty_registry")
def test_a_task_registers_once_and_no_other_takes_its_name() -> None:
    toy = register_task(toy_class())
    assert register_task(toy) is toy
    assert type(tasks()["toy"]) is toy
    with pytest.raises(ValueError, match="'toy' is registered already"):
        register_task(toy_class())
    with pytest.raises(ValueError, match="'sib200' is registered already"):
        register_task(toy_class(name="sib200"))


@pytest.mark.usefixtures("empty_registry")
def test_a_task_whose_choices_do_not_fit_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="3 labels, 2 choices"):
        register_task(toy_class(labels=("a", "b", "c")))
