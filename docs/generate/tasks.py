"""A page for each task, from the registry."""

from __future__ import annotations

import inspect
import sys

from docs.generate.included import source
from docs.generate.text import ROOT, code, fenced, linked, prose, table
from polyprefix.languages import get
from polyprefix.tasks import AnswerTask, ChoiceTask, Prompt, SplitName, Task, tasks
from polyprefix.tasks.scores import ANSWER_SCORES, CHOICE_SCORES

INDEX = """# Tasks

A task is a question that is put to a model in many languages. It is trained on in one, English
unless the configuration says otherwise, and tested in all. Its data come from the Hugging Face hub
or from a folder; only those of Polytopics are packaged.

{table}
Another prompt of a task is named after an `@`: `--task xnli@lm-eval` has that of
lm-evaluation-harness to the byte. A task of your own needs no code:
[the tutorial](../tutorials/your-own-task.md) writes one in YAML.
"""

SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")

SHOWN = 3
"""Languages for which a variant's prompts are shown, where they differ."""


def documented() -> dict[str, Task]:
    """The tasks of this package, without those of others that are installed beside it."""
    return {k: v for k, v in tasks().items() if type(v).__module__.startswith("polyprefix.")}


def pages() -> dict[str, str]:
    """The page of each task, and the one that leads to them."""
    found = {f"tasks/{name}.md": page(task) for name, task in documented().items()}
    rows = [
        (
            f"[`{name}`]({name}.md)",
            task.title,
            str(len(task.language_codes)),
            "one of " + ", ".join(task.labels) if isinstance(task, ChoiceTask) else "written",
            code(task.headline),
        )
        for name, task in documented().items()
    ]
    columns = ("task", "title", "languages", "answer", "judged by")
    return found | {"tasks/index.md": INDEX.format(table=table(columns, rows))}


def page(task: Task) -> str:
    """What there is to know of a task before running it."""
    module = sys.modules[type(task).__module__]
    path = inspect.getsourcefile(module)
    assert path is not None
    file = source(path.removeprefix(f"{ROOT}/"))
    head, _, rest = prose(module.__doc__ or "").partition("\n\n")
    parts = [
        f"---\ntitle: {task.name}\n---\n\n# {task.title}\n\n{linked(head)}\n\n",
        fenced(_command(task), "bash"),
        "\n",
        table(("", ""), _facts(task)),
        f"\n{linked(rest)}\n\n## Data\n\n{_data(task)}",
        f"\n## Prompt\n\n{_shown(task, task.prompt)}",
        *(_variant(task, name, prompts) for name, prompts in task.variants.items()),
        f"\n## Languages\n\n{_languages(task)}",
        f"\nIts code: [`{path.rpartition('/src/')[2]}`]({file}).\n",
    ]
    return "".join(parts)


def _command(task: Task) -> str:
    data = "" if task.packaged else f" --data {task.name}/"
    return (
        "polyprefix run --model polyprefix/nano --method prefix_tuning \\\n"
        f"    --task {task.name}{data} --languages all"
    )


def _facts(task: Task) -> list[tuple[str, str]]:
    scores: tuple[str, ...] = CHOICE_SCORES
    rows = [
        ("Name", code(task.name)),
        ("Paper", linked(task.paper)),
        ("Licence of the data", task.license),
    ]
    if isinstance(task, ChoiceTask):
        rows.append(("Labels", ", ".join(task.labels)))
    if isinstance(task, AnswerTask):
        scores = tuple(score for metric in task.metrics for score in ANSWER_SCORES[metric])
        stops = ", ".join(code(repr(stop)[1:-1]) for stop in task.stop)
        rows.append(("Answers", f"written, before {stops}, at most {task.max_new_tokens} tokens"))
    rows += [
        ("Scores", ", ".join(map(code, scores))),
        ("Judged, and checkpoints selected, by", code(task.headline)),
        ("Languages", str(len(task.language_codes))),
        ("The same examples in every language", "yes" if task.parallel else "no"),
    ]
    if task.sizes:
        sizes = ", ".join(f"{number:,} {split}" for split, number in task.sizes.items())
        rows.append(("Examples upstream", sizes))
    return rows


def _data(task: Task) -> str:
    parts = []
    if task.packaged:
        parts.append("Packaged: `--data` is not needed, and names a folder of your own.")
    else:
        where = [(split, task.hub_split(_source(task), split)) for split in SPLITS]
        named = [
            f"{split} from `{at.repository}`, configuration `{at.config}`, split `{at.split}`"
            for split, at in where
            if at is not None
        ]
        parts.append(
            f"On the Hugging Face hub, [`{task.hub}`](https://huggingface.co/datasets/{task.hub}); "
            f"in English {'; '.join(named)}."
        )
    parts.append(f"In a folder that `--data` names: {_files(task.layout)}.")
    if task.trained_elsewhere:
        parts.append(
            "It is trained on another data set than it is tested on. What is tested is left out of "
            "training and dev data, and the record counts it."
        )
    if task.dev_share:
        parts.append(f"Without a dev split, {task.dev_share:.0%} of the training data is held out.")
    return "\n\n".join(parts) + "\n"


def _source(task: Task) -> str:
    return "eng_Latn" if "eng_Latn" in task.language_codes else next(iter(task.language_codes))


def _files(layout: str) -> str:
    """Names in angle brackets are no HTML."""
    return layout.replace("<", "&lt;").replace(">", "&gt;")


def _shown(task: Task, prompt: Prompt) -> str:
    if prompt.template:
        parts = [fenced(prompt.template, "jinja"), "\n"]
    else:
        parts = ["No text before the choices: they are whole texts, compared as such.\n\n"]
    if prompt.choices and isinstance(task, ChoiceTask):
        rows = [
            (label, code(choice)) for label, choice in zip(task.labels, prompt.choices, strict=True)
        ]
        parts.append(table(("label", "the model is to go on with"), rows))
    if prompt.target:
        parts += ["Trained on:\n\n", fenced(prompt.target, "jinja")]
    parts.append(f"\nVersion `{prompt.version}`, part of a run's identity.\n")
    return "".join(parts)


def _variant(task: Task, name: str, prompts: object) -> str:
    assert isinstance(prompts, dict)
    text = f"\n### `{task.name}@{name}` {{#{name}}}\n\n"
    first = list(prompts.items())[:SHOWN]
    if len(prompts) > 1:
        text += f"In {len(prompts)} languages, each with words of its own; {len(first)} of them:\n"
    for code_, prompt in first:
        title = get(code_).name if code_ else "All languages"
        text += (
            f"\n**{title}**\n\n{_shown(task, prompt)}" if len(prompts) > 1 else _shown(task, prompt)
        )
    return text


def _languages(task: Task) -> str:
    rows = []
    for code_, own in task.language_codes.items():
        language = get(code_)
        rows.append((language.name, code(code_), code(own), language.family, language.script))
    return table(("language", "code", "in the data", "family", "script"), rows)
