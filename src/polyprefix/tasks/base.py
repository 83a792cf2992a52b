"""What a task is.

A task is a class derived from :class:`ChoiceTask` or :class:`AnswerTask`, in a file of its own
beside this one or in a package of yours, announced by the entry point group ``polyprefix.tasks``.
It says in class attributes what it is and where its data stands, and in :meth:`Task.example` how
one row becomes an example. Reading files, bad rows, the hub, subsampling and languages are done for
it.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from polyprefix.config import ConfigError, DataError, unknown
from polyprefix.tasks import hub
from polyprefix.tasks.examples import Example, Row, Split, SplitName, collect
from polyprefix.tasks.prompt import Prompt
from polyprefix.tasks.rows import check_columns, read_header, read_table

HUB_SPLITS: Mapping[SplitName, str] = {"train": "train", "dev": "validation", "test": "test"}
ADVICE = {"train": " A file to train on can be given as task.train_data."}


class HubSplit(NamedTuple):
    """A split of a dataset on the Hugging Face hub: its name, a configuration's and a split's."""

    repository: str
    config: str
    split: str


class Task(ABC):
    """What all tasks have.

    Class attributes:
        name: in configurations.
        title: for people.
        paper: where the task comes from.
        license: of its data.
        packaged: a folder of this package that holds the data; then there is no ``hub``.
        hub: the dataset's name on the Hugging Face hub, with one configuration a language.
        hub_revision: its revision where the run names none; ``None``: ``main``.
        hub_splits: the hub's names of the splits.
        dev_share: of the training data that is held out as dev split, in whole ``unit``s, where
            there is none; 0: a dev split is required.
        trained_elsewhere: training and dev split are another dataset's, which may hold what is
            tested: units of the source language's test are left out of both, and a note says so.
        sizes: examples that the splits have upstream; other numbers are noted in the record.
        prompt: how an example is put to a model.
        variants: further prompts by name (``xnli@lm-eval``), for each language by FLORES-200 code;
            ``""`` is for the languages not named.
        headline: the score that a task is judged by, and checkpoints are selected by.
        language_codes: from FLORES-200 codes to the task's own, in the order of its tables.
        columns: what a row must have.
        quoted: whether the task's tab-separated files use quotes around cells.
        parallel: whether an id means the same example in every language.
        layout: where files stand in a local folder, for error messages.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    license: ClassVar[str]
    packaged: ClassVar[Path | None] = None
    hub: ClassVar[str] = ""
    hub_revision: ClassVar[str | None] = None
    hub_splits: ClassVar[Mapping[SplitName, str]] = HUB_SPLITS
    dev_share: ClassVar[float] = 0.0
    trained_elsewhere: ClassVar[bool] = False
    sizes: ClassVar[Mapping[SplitName, int]] = {}
    prompt: ClassVar[Prompt]
    variants: ClassVar[Mapping[str, Mapping[str, Prompt]]] = {}
    headline: ClassVar[str]
    language_codes: ClassVar[Mapping[str, str]]
    columns: ClassVar[tuple[str, ...]]
    quoted: ClassVar[bool] = False
    parallel: ClassVar[bool] = True
    layout: ClassVar[str]

    # What a task says --------------------------------------------------------------------------

    @abstractmethod
    def example(self, position: int, row: Row) -> Example:
        """One row as an example.

        Args:
            position: of the row in its split, counted from 1.
            row: its columns, from a file or from the hub.

        Raises:
            RowError: the row cannot be used; ``text_in`` and ``label_in`` raise it.
        """

    @abstractmethod
    def local_files(self, folder: Path, language: str, split: SplitName) -> list[Path]:
        """Where a split of a language (FLORES-200 code) may stand; the first there is is read."""

    def hub_split(self, language: str, split: SplitName) -> HubSplit | None:
        """Where a split stands on the hub; ``None``: nowhere.

        As it stands: in ``hub``, in the language's configuration. A task that is trained on
        another dataset says here on which.
        """
        if split not in self.hub_splits:
            return None
        return HubSplit(self.hub, self.language_codes[language], self.hub_splits[split])

    def of_language(self, row: Row, language: str) -> bool:
        """Whether a row of the hub is in a language, where one configuration holds several."""
        return True

    def unit(self, example: Example) -> str:
        """What of an example must not be both in training and in dev or test data."""
        return "\n".join(example.fields.values())

    def read_file(self, path: Path, split: SplitName) -> Split:
        """The examples of a file. As it stands: a header that names ``columns``, then rows.

        A file given as ``task.train_data`` is read by this as well, with ``split`` ``train``.

        Raises:
            DataError: the file is missing or empty, or its header lacks a column.
        """
        table = read_table(path, quoted=self.quoted)
        header = read_header(table)
        check_columns(table, header, self.columns)
        return collect(str(path), table.rows(header, first=2), self.example)

    # What is the same for all --------------------------------------------------------------------

    def prompt_of(self, language: str, variant: str | None = None) -> Prompt:
        """The prompt for a language (FLORES-200 code).

        Raises:
            ConfigError: no such variant, or it has no prompt for this language.
        """
        if variant is None:
            return self.prompt
        if variant not in self.variants:
            problem = unknown(f"prompt of task {self.name!r}", variant, self.variants)
            raise ConfigError(f"key 'task.name': {problem}")
        prompts = self.variants[variant]
        if language not in prompts and "" not in prompts:
            raise ConfigError(
                f"prompt {variant!r} of task {self.name!r} has none for {language}; it has "
                f"{', '.join(prompts)}"
            )
        return prompts.get(language) or prompts[""]

    def languages_in(self, folder: Path) -> list[str]:
        """The languages that a local folder has a dev or a test file for, in the task's order.

        Raises:
            DataError: there is no such folder, or no language in it.
        """
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            siblings = [path.name for path in _entries(folder.parent) if path.is_dir()]
            close = difflib.get_close_matches(folder.name, siblings, n=1)
            hint = f" Did you mean {str(folder.parent / close[0])!r}?" if close else ""
            raise DataError(
                f"task.data: {str(folder)!r} {problem}.{hint} Expected there: {self.layout}."
            )
        found = [
            code
            for code in self.language_codes
            if self._first(folder, code, "test") or self._first(folder, code, "dev")
        ]
        if not found:
            names = [path.name for path in _entries(folder)]
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            raise DataError(
                f"task.data: no file of task {self.name!r} in {str(folder)!r}. Expected: "
                f"{self.layout}. The folder holds: {', '.join(names[:8]) or 'nothing'}{more}."
            )
        return found

    def read_local(self, folder: Path, language: str, split: SplitName) -> Split:
        """A split of a language from a local folder.

        Raises:
            DataError: it is not there; names the files looked for and what there is instead.
        """
        path = self._first(folder, language, split)
        if path is not None:
            return self.read_file(path, split)
        looked_for = " or ".join(repr(str(p)) for p in self.local_files(folder, language, split))
        there = [c for c in self.language_codes if self._first(folder, c, split)]
        others = f"{split} files there: {', '.join(there[:8]) or 'none'}"
        others += f" and {len(there) - 8} more" if len(there) > 8 else ""
        raise DataError(
            f"task {self.name!r} has no {split} file for {language}: looked for {looked_for}; "
            f"{others}.{ADVICE.get(split, '')}"
        )

    def read_hub(self, language: str, split: SplitName, revision: str | None = None) -> Split:
        """A split of a language from the Hugging Face hub.

        Raises:
            DataError: the dataset cannot be reached or read; says how to do without the hub.
        """
        where = self.hub_split(language, split)
        if where is None:
            raise DataError(
                f"task {self.name!r} has no {split} split for {language} on the hub."
                f"{ADVICE.get(split, '')}"
            )
        try:
            rows = hub.read_rows(*where, revision)
        except DataError as error:
            raise DataError(
                f"{error}. Without the hub, give the folder of the data as task.data; expected "
                f"there: {self.layout}."
            ) from error
        own = (pair for pair in enumerate(rows, 1) if self.of_language(pair[1], language))
        return collect(f"{hub.HUB}{'/'.join(where)}", own, self.example)

    def has_split(self, folder: Path | None, language: str, split: SplitName) -> bool:
        """Whether a split is there, in a local folder or (``None``) on the hub."""
        if folder is None:
            return self.hub_split(language, split) is not None
        return self._first(folder, language, split) is not None

    def _first(self, folder: Path, language: str, split: SplitName) -> Path | None:
        """The file of a split, if there is one."""
        paths = self.local_files(folder, language, split)
        return next((path for path in paths if path.is_file()), None)


class ChoiceTask(Task):
    """A task whose answer is one of a fixed set of labels.

    Class attributes:
        labels: names of the answers; prompts have a choice for each, in this order.
    """

    labels: ClassVar[tuple[str, ...]]
    headline = "accuracy"


class AnswerTask(Task):
    """A task whose answer is a text, written by the model token by token.

    Class attributes:
        metrics: names of the metrics of an answer, see ``polyprefix.tasks.scores``.
        stop: an answer ends before the first of these strings.
        max_new_tokens: and after this many tokens.
        passage: the field that an answer is taken from, if there is one: words of it do not say
            which language an answer is in.
    """

    metrics: ClassVar[tuple[str, ...]]
    stop: ClassVar[tuple[str, ...]] = ("\n",)
    max_new_tokens: ClassVar[int] = 32
    passage: ClassVar[str | None] = None

    def unit(self, example: Example) -> str:
        """The passage, where there is one."""
        return super().unit(example) if self.passage is None else example.fields[self.passage]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing if it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
