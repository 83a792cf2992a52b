"""A task that a YAML file defines: your own data, without code.

``task.name`` is then the path of the file (``polyprefix run --task reviews.yaml``); what it may say
is in ``yaml_spec.TaskSpec``, and ``docs/tutorials/your-own-task.md`` explains it.

A file becomes a subclass of :class:`YamlTask` and of ``ChoiceTask`` or ``AnswerTask``, with what
the file says as class attributes. Attributes of instances would do too, but a task's are declared
as the class's: so whatever reads a task finds them where it always does, and the type checker
agrees.

The file counts as one of the sources of its data: its contents, and not where it stands, are part
of the data's revision and with it of a run's identity. So columns, spellings of labels, languages,
metrics and the rest are. A comment is as well; a run that is made again needlessly does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from polyprefix.config import ConfigError, DataError, PolyprefixError, unknown
from polyprefix.languages import resolve
from polyprefix.tasks import hub
from polyprefix.tasks.base import ADVICE, HUB_SPLITS, AnswerTask, ChoiceTask, HubSplit, Task
from polyprefix.tasks.columns import (
    Rows,
    names_in,
    part_of,
    plain_text,
    text_of,
    value_in,
    values_in,
)
from polyprefix.tasks.examples import Example, Row, RowError, Split, SplitName, collect, label_in
from polyprefix.tasks.json_rows import json_rows
from polyprefix.tasks.prompt import Prompt
from polyprefix.tasks.rows import check_columns
from polyprefix.tasks.spreadsheets import read_spreadsheet, spreadsheet_rows
from polyprefix.tasks.yaml_spec import TaskSpec, read_spec

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""What a file is by the end of its name, where the task does not say."""

DELIMITERS = {"csv": (",", ";", "\t"), "tsv": ("\t",)}

OF_ROW = ("label", "answers", "target", "id")
"""The columns of an example; those that say which part of a file a row belongs to come apart."""


def load_task_file(path: Path) -> Task:
    """The task that a file defines.

    Raises:
        ConfigError: the file cannot be read, or what it says cannot be meant.
    """
    spec = read_spec(path)
    codes = _languages(spec, path)
    prompt = _prompt(spec, path)
    attributes: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": spec.title or spec.name,
        "file": path,
        "spec": spec,
        "name": spec.name,
        "title": spec.title or spec.name,
        "paper": spec.paper,
        "license": spec.license,
        "packaged": None if spec.hub.name else path.parent,
        "hub": spec.hub.name,
        "hub_revision": spec.hub.revision,
        "hub_splits": {**HUB_SPLITS, **spec.splits},
        "dev_share": spec.dev_share or 0.0,
        "prompt": prompt,
        "headline": spec.headline or spec.scores[0],
        "language_codes": codes,
        "uses": prompt.fields,
        "columns": tuple(_columns(spec, prompt)),
        "asked_by": _columns(spec, prompt, (*OF_ROW, "language", "split")),
        "parallel": spec.parallel,
        "layout": f"the files that {path} names",
    }
    if spec.kind == "choice":
        labels = tuple(spec.choices)
        place = {label: index for index, label in enumerate(labels)}
        place |= {other: place[label] for other, label in spec.labels.items()}
        attributes |= {
            "labels": labels,
            "label_of": {label.strip().lower(): index for label, index in place.items()},
        }
        return _made((YamlTask, ChoiceTask), attributes)
    attributes |= {"metrics": spec.metrics, "passage": spec.passage}
    if spec.stop:
        attributes["stop"] = spec.stop
    if spec.max_new_tokens:
        attributes["max_new_tokens"] = spec.max_new_tokens
    return _made((YamlTask, AnswerTask), attributes)


def _made(bases: tuple[type, ...], attributes: Mapping[str, Any]) -> Task:
    task: Task = type(f"Yaml{bases[-1].__name__}", bases, dict(attributes))()
    return task


class YamlTask(Task):
    """What the tasks of YAML files have in common.

    Class attributes:
        file: the task's file.
        spec: what it says.
        uses: the fields that the prompt uses.
        asked_by: the keys of the file that name the columns.
        label_of: every spelling of a label, in lower case, and its index; for choices.
    """

    file: ClassVar[Path]
    spec: ClassVar[TaskSpec]
    uses: ClassVar[tuple[str, ...]]
    asked_by: ClassVar[Mapping[str, str]]
    label_of: ClassVar[Mapping[str, int]] = {}

    def __init__(self) -> None:
        # A file with all languages is asked for once a language; it is parsed once.
        self._last: tuple[tuple[str | None, ...], list[str], Rows] | None = None

    def example(self, position: int, row: Row) -> Example:
        """A row with the columns that the file names; spaces around texts are no part of them.

        The prompt is rendered here as well, so that a row on which that fails is a bad row before
        the training and not an error after it.
        """
        columns, prompt = self.spec.columns, self.prompt
        number = str(position) if columns.id is None else text_of(row, columns.id)
        fields = {name: text_of(row, columns.fields.get(name, name)) for name in self.uses}
        try:
            prompt.render(fields)
            choices = prompt.render_choices(fields)
        except Exception as error:  # whatever an expression in a template can run into
            raise RowError(f"prompt: {error}") from error
        if columns.label is not None:
            if len(set(choices)) < len(choices):
                raise RowError(f"two choices are the same: {', '.join(map(repr, choices))}")
            label = {columns.label: text_of(row, columns.label)}
            return Example(number, fields, label_in(label, columns.label, self.label_of))
        assert columns.answers is not None
        target = "" if columns.target is None else text_of(row, columns.target)
        return Example(number, fields, answers=self._answers(row, columns.answers), target=target)

    def _answers(self, row: Row, column: str) -> tuple[str, ...]:
        value = value_in(row, column)
        if not isinstance(value, list | tuple):
            separator = self.spec.answer_separator
            text = text_of(row, column)
            value = [text] if separator is None else text.split(separator)
        there = [item for item in value if item is not None and str(item).strip()]
        if not there:
            raise RowError(f"column {column!r} is empty")
        return tuple(dict.fromkeys(plain_text(item, column).strip() for item in there))

    # Where data stands --------------------------------------------------------------------------

    def local_files(self, folder: Path, language: str, split: SplitName) -> list[Path]:
        """The path that the file gives, for this language or for all, if it gives one."""
        own, paths = self.language_codes[language], self.spec.files.get(split, {})
        path = paths.get(own) or paths.get("")
        if path is None:
            return []
        for name, value in (("language", own), ("split", self._own(split))):
            path = path.replace(f"{{{name}}}", value)
        return [folder / Path(path).expanduser()]

    def _own(self, split: SplitName) -> str:
        """The data's name of a split."""
        return self.hub_splits[split] if self.hub else self.spec.splits.get(split, split)

    def hub_split(self, language: str, split: SplitName) -> HubSplit | None:
        """In the configuration that ``hub.config`` says."""
        if split == "dev" and self.dev_share:
            return None
        default = "default" if self.spec.columns.language else "{language}"
        config = (self.spec.hub.config or default).replace(
            "{language}", self.language_codes[language]
        )
        return HubSplit(self.hub, config, self.hub_splits[split])

    def languages_in(self, folder: Path) -> list[str]:
        """All languages that the file names: one without its file is an error, not a gap."""
        if self.hub:
            raise ConfigError(
                f"key 'task.data' has no effect: {self.file} reads {self.hub!r} from the hub"
            )
        return list(self.language_codes)

    # Reading ------------------------------------------------------------------------------------

    def read_file(self, path: Path, split: SplitName) -> Split:
        """A file given as ``task.train_data``: all its rows, which are of one language."""
        names, rows = self._rows(path, self.columns)
        self._check(str(path), names, self.columns)
        column = self.spec.columns.language
        if column is not None and column in names:
            found = sorted({value.casefold() for value in values_in(rows, column)})
            if len(found) > 1:
                raise DataError(
                    f"{path}: rows of {len(found)} languages ({', '.join(found[:8])}) in column "
                    f"{column!r}; a file to train on holds the source language alone"
                )
        return collect(str(path), rows, self.example, sources=[str(self.file)])

    def read_local(self, folder: Path, language: str, split: SplitName) -> Split:
        """A split of a language from the files that the task names."""
        paths = self.local_files(folder, language, split)
        if not paths:
            key = f"files.{split}.{self.language_codes[language]}"
            raise DataError(
                f"{self.file}: no {split} file for {language}: add it as key {key!r}."
                f"{ADVICE.get(split, '')}"
            )
        [path] = paths
        if not path.is_file():
            raise DataError(
                f"{self.file}: key 'files.{split}': {str(path)!r} does not exist "
                f"(for {self.language_codes[language]}, {language})"
            )
        return self._part(str(path), *self._read(path), language, split)

    def read_hub(self, language: str, split: SplitName, revision: str | None = None) -> Split:
        """A split of a language from the hub."""
        where = self.hub_split(language, split)
        if where is None:
            raise DataError(f"{self.file}: key 'dev_share' says that there is no {split} split")
        key = (*where, revision)
        if self._last is None or self._last[0] != key:
            try:
                found = hub.read_rows(*where, revision)
            except DataError as error:
                raise DataError(f"{error} ({self.file}: keys hub, languages and splits)") from error
            rows: Rows = list(enumerate(found, start=1))
            self._last = key, names_in(rows), rows
        return self._part(f"{hub.HUB}{'/'.join(where)}", *self._last[1:], language, split)

    def _read(self, path: Path) -> tuple[list[str], Rows]:
        """Columns and rows of a file of the task; one that holds several parts is kept."""
        columns = self.spec.columns
        more = [name for name in (columns.language, columns.split) if name is not None]
        if not more:
            return self._rows(path, self.columns)
        if self._last is None or self._last[0] != (str(path),):
            self._last = (str(path),), *self._rows(path, (*self.columns, *more))
        return self._last[1:]

    def _rows(self, path: Path, wanted: Iterable[str]) -> tuple[list[str], Rows]:
        kind = self.spec.format or FORMATS.get(path.suffix.lower())
        if kind is None:
            raise DataError(
                f"{path}: the name does not say what it is; give {self.file} the key 'format': "
                "csv, tsv or jsonl. A spreadsheet is to be saved as CSV (UTF-8) first"
            )
        if kind == "jsonl":
            rows = list(json_rows(path))
            return names_in(rows), rows
        given = self.spec.delimiter
        quoted = self.spec.quoted is not False
        delimiters = DELIMITERS[kind] if given is None else (given,)
        table, header = read_spreadsheet(path, delimiters, quoted, tuple(wanted))
        check_columns(table, header, set(wanted) & set(header))  # no column twice
        return list(header), list(spreadsheet_rows(table, header))

    def _part(
        self, source: str, names: list[str], rows: Rows, language: str, split: SplitName
    ) -> Split:
        """The examples of one language and split among the rows of a file."""
        columns = self.spec.columns
        wanted = {columns.language: self.language_codes[language], columns.split: self._own(split)}
        conditions = {column: value for column, value in wanted.items() if column is not None}
        self._check(source, names, (*self.columns, *conditions))
        for column, value in conditions.items():
            here = [(line, part) for line, row in rows if (part := part_of(row, column, value))]
            if rows and all(isinstance(row, RowError) for _, row in here) and names:
                raise DataError(
                    f"{source}: no row has {value!r} in column {column!r}; there are "
                    f"{', '.join(values_in(rows, column)[:12])} ({self.file}: keys 'languages' and "
                    "'splits')"
                )
            rows = here
        return collect(source, rows, self.example, sources=[str(self.file)])

    def _check(self, source: str, names: list[str], wanted: Iterable[str]) -> None:
        """Refuse data that lacks a column, before its rows are all bad."""
        if not names:
            return  # no row could be read, which is said of each
        for column in wanted:
            if column in names or column.partition(".")[0] in names:
                continue
            key = self.asked_by[column]
            advice = (
                f"Write the column that {column!r} of the prompt stands for as "
                f"columns.fields.{column}, or change the prompt."
                if key == "prompt"
                else "Name the right one there."
            )
            raise DataError(
                f"{source}: {unknown('column', column, names)} {self.file} asks for it with key "
                f"{key!r}. {advice}"
            )


def _languages(spec: TaskSpec, path: Path) -> dict[str, str]:
    """From FLORES-200 codes to the task's own."""
    codes: dict[str, str] = {}
    for own, meaning in spec.languages.items():
        try:
            code = resolve(meaning).code
        except PolyprefixError as error:
            raise ConfigError(f"{path}: key 'languages.{own}': {error}") from None
        if code in codes:
            raise ConfigError(
                f"{path}: key 'languages': {codes[code]!r} and {own!r} both mean {code}"
            )
        codes[code] = own
    return codes


def _prompt(spec: TaskSpec, path: Path) -> Prompt:
    try:
        # The space between prompt and answer is put in here: in YAML it would take quotes.
        prompt = Prompt(spec.prompt, tuple(f" {text.strip()}" for text in spec.choices.values()))
        fields = prompt.fields
    except ConfigError as error:
        raise ConfigError(f"{path}: keys 'prompt' and 'choices': {error}") from None
    if not fields:
        raise ConfigError(
            f"{path}: key 'prompt': it uses no column of the data; a column is written "
            "{{ text }}, in two braces"
        )
    for name in spec.columns.fields:
        if name not in fields:
            raise ConfigError(
                f"{path}: key 'columns.fields.{name}' has no effect: "
                f"{unknown('field of the prompt', name, fields)}"
            )
    if spec.passage is not None and spec.passage not in fields:
        problem = unknown("field of the prompt", spec.passage, fields)
        raise ConfigError(f"{path}: key 'passage': {problem}")
    return prompt


def _columns(spec: TaskSpec, prompt: Prompt, of_row: Iterable[str] = OF_ROW) -> dict[str, str]:
    """The columns that every row must have, and the keys that ask for them."""
    keys: dict[str, str] = {}
    for name in prompt.fields:
        given = spec.columns.fields.get(name)
        keys[given or name] = "prompt" if given is None else f"columns.fields.{name}"
    for key in of_row:
        column = getattr(spec.columns, key)
        if column is not None:
            keys.setdefault(column, f"columns.{key}")
    return keys
