"""What a YAML file of a task may say, read strictly.

Every plain value is read as the text that stands there. YAML's own rules would make ``no`` (a
language, an answer) and ``yes`` truth values and ``1`` (a label) a number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StringConstraints, model_validator

from polyprefix.config import ConfigError, Line, Spec, unknown
from polyprefix.tasks.examples import SplitName
from polyprefix.tasks.scores import ANSWER_SCORES, CHOICE_SCORES

Text = Annotated[str, StringConstraints(min_length=1)]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")

NULLS = ("", "~", "null", "Null", "NULL")


class ColumnsSpec(Spec):
    """Which column is which. A field of the prompt that ``fields`` does not name is the column of
    the same name. In JSON Lines and on the hub, ``answers.text.0`` reaches into a column."""

    fields: dict[Text, Text] = Field(default_factory=dict)
    """From the prompt's names of fields to columns."""
    label: Text | None = None
    """Of the right choice."""
    answers: Text | None = None
    """Of the right answers, a text or a list of texts."""
    target: Text | None = None
    """Of what is trained on, where it is not the first answer."""
    id: Text | None = None
    """Of an example's name; by default a row's position."""
    language: Text | None = None
    """Of the language, where one file or data set holds several."""
    split: Text | None = None
    """Of the split, where one file or data set holds several."""


class HubSpec(Spec):
    """A data set on the Hugging Face hub."""

    name: str = ""
    """As on the hub: ``somebody/reviews``."""
    config: Text | None = None
    """Name of a configuration, in which ``{language}`` becomes the task's own code; by default just
    that, or ``default`` where a column holds the language."""
    revision: Text | None = None
    """A branch, tag or commit; by default ``main``."""


class TaskSpec(Spec):
    """A task."""

    name: Name
    """In configurations and in the names of runs: letters, digits, ``.``, ``_`` and ``-``."""
    title: Line | None = None
    """For people; by default the name."""
    kind: Literal["choice", "answer"]
    """``choice``: one of a few labels, told by which answer is the likeliest. ``answer``: the model
    writes."""
    files: dict[SplitName, dict[str, Text]] = Field(default_factory=dict)
    """A path, or by split (``train``, ``dev``, ``test``) a path or a path for each language.
    ``{language}`` and ``{split}`` are filled in; relative ones start where the task's file
    stands."""
    hub: HubSpec = HubSpec()
    """A data set on the Hugging Face hub, in place of ``files``: its name, or a mapping."""
    splits: dict[SplitName, Text] = Field(default_factory=dict)
    """Your names of the splits, such as ``{dev: valid}``."""
    dev_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the training examples to hold out, where there is no dev split."""
    format: Literal["csv", "tsv", "jsonl"] | None = None
    """Of the files; by default what their names end in."""
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    """Between cells; by default a tab in ``tsv``, and in ``csv`` a comma, semicolon or tab,
    whichever fits the header."""
    quoted: bool | None = None
    """Whether cells may stand in double quotes, as they may by default."""
    columns: ColumnsSpec
    """Which column is which."""
    languages: dict[Text, Text]
    """Your codes, and the language each means; a list where the codes say it themselves."""
    parallel: bool = False
    """Whether an id is the same example in every language."""
    prompt: Text
    """A Jinja2 template of what the model reads."""
    choices: dict[Text, Text] = Field(default_factory=dict)
    """Each label and the answer that a model gives for it, which may be a template too."""
    labels: dict[Text, Text] = Field(default_factory=dict)
    """Further spellings of labels in the data."""
    metrics: tuple[str, ...] = ()
    """Of written answers: ``squad``, ``mlqa``, ``number``, ``mgsm`` or ``exact``, one or more."""
    stop: tuple[Text, ...] = ()
    """A written answer ends before the first of these; by default a new line."""
    max_new_tokens: Annotated[int, Field(gt=0)] | None = None
    """And after so many tokens; by default 32."""
    passage: Text | None = None
    """The field that a written answer is taken from."""
    answer_separator: Text | None = None
    """Between several right answers in one cell."""
    headline: Text | None = None
    """The score that checkpoints are chosen by; by default the first of the metrics."""
    license: Line = "not stated"
    """Of the data."""
    paper: Line = "not stated"
    """Where the task comes from."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """What may be written shorter, in the one form that is read."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        files = values.get("files")
        if isinstance(files, str):
            held_out = ("dev",) if values.get("dev_share") else ()
            files = {split: files for split in SPLITS if split not in held_out}
        if isinstance(files, dict):
            # "" stands for every language: a path in which {language} is filled in.
            values["files"] = {k: {"": v} if isinstance(v, str) else v for k, v in files.items()}
        if isinstance(values.get("hub"), str):
            values["hub"] = {"name": values["hub"]}
        for key in ("languages", "choices"):
            if isinstance(listed := values.get(key), list):
                values[key] = {item if isinstance(item, Hashable) else "": item for item in listed}
        for key in ("metrics", "stop"):
            if isinstance(values.get(key), str):
                values[key] = (values[key],)
        if isinstance(values.get("prompt"), str):
            values["prompt"] = values["prompt"].rstrip("\n")  # where a block (|) ends, it adds one
        return values

    @model_validator(mode="after")
    def _meant(self) -> Self:
        _check_source(self)
        _check_files(self)
        if self.kind == "choice":
            _check_choice(self)
        else:
            _check_answer(self)
        for key, texts in {"prompt": (self.prompt,), "stop": self.stop}.items():
            if any(r"\n" in text for text in texts):
                raise ValueError(
                    rf"key {key!r} holds a backslash and an n, not a new line: write it in double "
                    rf'quotes ("...\n..."), or as a block after |'
                )
        if not self.languages:
            raise ValueError("key 'languages' is empty: list the codes of the languages")
        return self

    @property
    def scores(self) -> tuple[str, ...]:
        """What the task's answers are scored by, the default headline first."""
        if self.kind == "choice":
            return CHOICE_SCORES
        return tuple(score for metric in self.metrics for score in ANSWER_SCORES[metric])


def _without(spec: TaskSpec, keys: Iterable[str], why: str) -> None:
    """Refuse keys that have no effect."""
    for key in keys:
        value: Any = spec
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part)
        if value not in (None, (), {}, ""):
            raise ValueError(f"key {key!r} has no effect: {why}")


def _check_source(spec: TaskSpec) -> None:
    if bool(spec.files) == bool(spec.hub.name):
        both = "both are given" if spec.files else "neither is given"
        raise ValueError(f"give 'files', or 'hub' with a name: {both}")
    if not spec.hub.name:
        _without(spec, ("hub.config", "hub.revision"), "no 'hub.name' is given")
    else:
        _without(spec, ("format", "delimiter", "quoted", "columns.split"), "the data is on the hub")
        if spec.hub.name.startswith((".", "/", "~")) or spec.hub.name.count("/") > 1:
            raise ValueError(
                f"key 'hub.name': {spec.hub.name!r} is not the name of a data set on the hub; "
                "files on this machine are given as 'files'"
            )
        if "{language}" not in (spec.hub.config or "{language}") and not spec.columns.language:
            raise ValueError(
                "key 'hub.config' holds no {language}, so that every language would be read from "
                "the same rows: put it in, or name the column of the language as columns.language"
            )
        if spec.dev_share is not None:
            _without(spec, ("splits.dev",), "'dev_share' says that there is no dev split")
        _placeholders("hub.config", spec.hub.config or "", ("language",))
    if spec.format == "jsonl":
        _without(spec, ("delimiter", "quoted"), "JSON Lines has neither")


def _check_files(spec: TaskSpec) -> None:
    if spec.hub.name:
        return
    if "test" not in spec.files:
        raise ValueError("key 'files.test' is required: what to test with")
    if "dev" not in spec.files and spec.dev_share is None:
        raise ValueError(
            "key 'files.dev' is required: what to choose a checkpoint by. Without such a file, "
            "dev_share: 0.1 holds out a tenth of the training examples"
        )
    if "dev" in spec.files:
        _without(spec, ("dev_share",), "there is 'files.dev'")
    uses_split = bool(spec.columns.split)
    for split, paths in spec.files.items():
        for language, path in paths.items():
            key = f"files.{split}" + (f".{language}" if language else "")
            if language and language not in spec.languages:
                raise ValueError(f"key {key!r}: {unknown('language', language, spec.languages)}")
            uses_split |= "{split}" in path
            _placeholders(key, path, ("language", "split"))
            if not language and "{language}" not in path and not spec.columns.language:
                code = next(iter(spec.languages), "en")
                raise ValueError(
                    f"key {key!r}: of which language is {path!r}? Put {{language}} into the path, "
                    f"write the language before it ({split}: {{{code}: {path}}}), or name the "
                    "column of the language as columns.language"
                )
    if not uses_split:
        _without(spec, ("splits",), "no path holds {split}, and there is no columns.split")


def _placeholders(key: str, text: str, known: tuple[str, ...]) -> None:
    for name in re.findall(r"\{(.*?)\}", text):
        if name not in known:
            raise ValueError(f"key {key!r}: {unknown('placeholder', name, known)}")


def _check_choice(spec: TaskSpec) -> None:
    why = "kind is 'choice'; for answers that are written, kind is 'answer'"
    _without(spec, ("metrics", "stop", "max_new_tokens", "passage", "answer_separator"), why)
    _without(spec, ("columns.answers", "columns.target"), why)
    if spec.columns.label is None:
        raise ValueError("key 'columns.label' is required: the column of the right choice")
    if len(spec.choices) < 2:
        raise ValueError("key 'choices' is required: two or more labels, each with its answer")
    spellings = [label.strip().lower() for label in (*spec.choices, *spec.labels)]
    for label in spellings:
        if spellings.count(label) > 1:
            raise ValueError(f"label {label!r} is named twice; case does not matter")
    for other, label in spec.labels.items():
        if label not in spec.choices:
            problem = unknown("choice", label, spec.choices)
            raise ValueError(f"key 'labels.{other}': {problem}")
    _check_headline(spec)


def _check_answer(spec: TaskSpec) -> None:
    why = "kind is 'answer'; where there are labels, kind is 'choice'"
    _without(spec, ("choices", "labels", "columns.label"), why)
    if spec.columns.answers is None:
        raise ValueError("key 'columns.answers' is required: the column of the right answers")
    if not spec.metrics:
        raise ValueError(f"key 'metrics' is required: one or more of {', '.join(ANSWER_SCORES)}")
    for metric in spec.metrics:
        if metric not in ANSWER_SCORES:
            raise ValueError(f"key 'metrics': {unknown('metric', metric, ANSWER_SCORES)}")
    _check_headline(spec)


def _check_headline(spec: TaskSpec) -> None:
    if spec.headline is not None and spec.headline not in spec.scores:
        raise ValueError(f"key 'headline': {unknown('score', spec.headline, spec.scores)}")


class _Loader(yaml.BaseLoader):
    """Texts, lists and mappings; a key without a value is as if it were not there."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        line_of: dict[Hashable, int] = {}
        kept = []
        for key, value in node.value:
            name = self.construct_object(key, deep=True)
            line = key.start_mark.line + 1
            null = isinstance(value, yaml.ScalarNode) and not value.style and value.value in NULLS
            between = key.end_mark.buffer[key.end_mark.pointer : value.start_mark.pointer]
            if not isinstance(name, Hashable) or (null and node.flow_style and ":" not in between):
                # {{ text }} or {language}, which YAML takes for a mapping without values
                problem = "text with braces has to stand in quotes, or in a block after |"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
            if name in line_of:
                problem = f"the key {name!r} stands on line {line_of[name]} already"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            line_of[name] = line
            if not null:
                kept.append((name, self.construct_object(value, deep=True)))
        return dict(kept)


def read_spec(path: Path) -> TaskSpec:
    """Read and check the file of a task.

    Raises:
        ConfigError: it cannot be read, is not YAML (with the line), or a key is unknown, missing,
            wrong or without effect.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
        there = ", ".join(sorted(file.name for file in near)[:8])
        hint = f"; {str(path.parent)!r} holds {there}" if there else ""
        raise ConfigError(f"key 'task.name': no task file {str(path)!r}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the task file {str(path)!r}: {reason}") from None
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        hint = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(f"{path}{place}: {hint}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    return TaskSpec.read(values, where=str(path))
