"""What a target of an export is, and how an export goes.

A target is a class derived from :class:`Target`, in a file of its own beside this one or in a
package of yours, announced by the entry point group ``polyprefix.exports``. It says what it cannot
hold, writes its files, and loads them again as their user will; the folder, the comparison of
logits and the list of what was written are done for it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers.utils import logging as transformers_logging

from polyprefix.config import ConfigError, Registry, RunConfig, RunError, unknown
from polyprefix.export.folder import made_whole
from polyprefix.methods import AdaptedModel, Adapter
from polyprefix.models import load_pretrained
from polyprefix.models.quantization import dequantised, quantised_maps
from polyprefix.results import Progress, RunFolder, Silent, package_versions, source_commit
from polyprefix.study import load_run

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = 1e-2
"""By how much logits in float32 may differ from the run's before an export is called wrong. What
two orders of addition do to a large model is far below."""
FORMAT = 1


@dataclass(frozen=True)
class Source:
    """A finished run to be exported.

    Attributes:
        folder: of the run.
        record: of the run.
        model: its backbone with its adapter in use, on the CPU.
        options: what the user asks of the target.
    """

    folder: RunFolder
    record: Mapping[str, Any]
    model: AdaptedModel
    options: Mapping[str, Any]

    @property
    def adapter(self) -> Adapter:
        return self.model.adapter()

    @cached_property
    def config(self) -> RunConfig:
        return RunConfig.read(self.record["config"], where=str(self.folder.path / "record.json"))

    @property
    def dtype(self) -> torch.dtype:
        """Asked for, or else what the run computes in."""
        name = self.options.get("dtype")
        return self.model.backbone.dtype if name is None else DTYPES[name]

    def pretrained(self) -> tuple[Any, Any]:
        """The run's model and tokenizer as they were published, in float32; where the run has
        quantised weights, with the numbers that those stand for."""
        update = {"dtype": "float32", "quantization": None}
        model, tokenizer, _ = load_pretrained(self.config.model.model_copy(update=update))
        for name, module in quantised_maps(self.model.backbone.model).items():
            plain = model.get_submodule(name.replace(".base_layer", ""))
            plain.weight.data = dequantised(module.weight).float()
        return model.eval(), tokenizer

    def with_trained_backbone(self) -> tuple[Any, Any]:
        """The same, with what the adapter has trained of the model's own weights."""
        model, tokenizer = self.pretrained()
        mark = "backbone."
        own = {
            name.removeprefix(mark): value
            for name, value in self.adapter.state().items()
            if name.startswith(mark)
        }
        if own:
            strange = model.load_state_dict(own, strict=False).unexpected_keys
            assert not strange, strange
        return model, tokenizer

    def texts(self) -> list[str]:
        """Texts to compare logits on: the run's prompts, as they stand before fields are put in."""
        task = self.record["task"]
        prompts = [task["prompt"], *task["prompts"].values()]
        found = dict.fromkeys(prompt["template"] for prompt in prompts)
        return [*list(found)[:4], "1 2 3"]

    def logits(self, text: str) -> torch.Tensor:
        """``[T, V]``: the run's, at the tokens of a text and at soft tokens that follow it."""
        ids = self.token_ids(text)
        before = len(self.adapter.prompt_ids()[0])
        with torch.no_grad():
            found: torch.Tensor = self.model(torch.tensor([self.model.wrap(ids)])).logits
        return found[0, before:].float()

    def token_ids(self, text: str) -> list[int]:
        """Of a text, with the tokens that texts begin with."""
        ids: list[int] = self.model.backbone.tokenizer(text)["input_ids"]
        return ids


class Target(ABC):
    """A kind of export.

    Class attributes:
        name: for ``--to``.
        options: the names of the options that have an effect.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def refuse(self, source: Source) -> None:
        """Raise a :class:`ConfigError` that says why, and what to do, if the target cannot hold
        this adapter."""

    @abstractmethod
    def write(self, source: Source, folder: Path) -> list[str]:
        """Write the files; what the user should know of them."""

    def logits(self, source: Source, folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
        """``[T, V']`` for each text: what was written gives at the tokens of the text and behind
        it, loaded as its user will, for the first V' ids. None: there is nothing to be compared."""
        return []


_TARGETS: Registry[type[Target]] = Registry(
    "export target", "polyprefix.exports", lambda target: register_target(target), ConfigError
)


def register_target(target: type[Target]) -> type[Target]:
    """Class decorator: make a target known by its name. ``ValueError`` if the name is taken."""
    return _TARGETS.add(target.name, target)


def targets() -> dict[str, type[Target]]:
    """All targets by name, those of other packages included."""
    return _TARGETS.all()


@dataclass(frozen=True)
class Told:
    """What an export says.

    Attributes:
        notes: sentences for the user.
        difference: the largest one between a logit of the run and of what was written; ``None``:
            not compared.
    """

    notes: list[str]
    difference: float | None


def export(
    run: str | Path,
    to: str,
    output: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    check: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Told:
    """Write a finished run's adapter for another program.

    Args:
        run: the run's folder.
        to: the target's name.
        output: the folder to be made; it appears whole.
        options: of the target: ``dtype``, ``base_model``, ``license``, ``gguf``.
        check: load what was written and compare its logits with the run's.
        overwrite: replace what an earlier export has left in ``output``.
        progress: told what is going on.

    Raises:
        ConfigError: no such target or option, or the target cannot hold this adapter.
        RunError: the run is not finished, the folder is not empty, or what was written computes
            something else.
    """
    progress, options = progress or Silent(), dict(options or {})
    target = _TARGETS.get(to)()
    for name in options:
        if name not in target.options:
            raise ConfigError(f"option {name!r} has no effect with --to {to}")
    if (dtype := options.get("dtype")) is not None and dtype not in DTYPES:
        raise ConfigError(unknown("dtype", str(dtype), DTYPES))
    folder = RunFolder(Path(run))
    folder.record()  # a wrong folder is told before one is made
    with _quietly(), made_whole(Path(output), overwrite=overwrite) as made:
        progress.say(f"loading {folder.path}")
        model, record = load_run(folder, "cpu")
        source = Source(folder, record, model, options)
        target.refuse(source)
        progress.say(f"writing {output}")
        notes = [*target.write(source, made.path), *_of_weights(source)]
        difference = None
        if check:
            difference = _difference(source, target, made.path)
        made.manifest = _manifest(source, target, notes, difference)
    return Told(notes, difference)


def _of_weights(source: Source) -> list[str]:
    kind = source.model.backbone.quantization
    if kind is None:
        return []
    return [
        f"the run computes with weights in {kind}: what has weights of the model has those numbers "
        "in full, and what is only an adapter gives the run's scores on a model that is quantised "
        "the same way"
    ]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars of other libraries, and PEFT's use of what transformers has renamed."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def _difference(source: Source, target: Target, folder: Path) -> float | None:
    """The largest one between logits; ``RunError`` if it cannot be rounding."""
    texts = source.texts()
    wanted = [source.logits(text) for text in texts]
    found = target.logits(source, folder, texts)
    if not found:
        return None
    differences = [
        float((theirs.float() - ours[:, : theirs.shape[1]]).abs().max())
        for ours, theirs in zip(wanted, found, strict=True)
    ]
    largest = max(differences)
    exact = source.dtype == source.model.backbone.dtype == torch.float32
    if exact and not largest <= TOLERANCE:
        raise RunError(
            f"what was written gives other logits than the run, by up to {largest:.3g}; it was "
            "thrown away. This is a fault of Polyprefix: please report it with the run's "
            "record.json"
        )
    return largest


def _manifest(
    source: Source, target: Target, notes: list[str], difference: float | None
) -> dict[str, Any]:
    record = source.record
    return {
        "format": FORMAT,
        "target": target.name,
        "run": record["id"],
        "method": record["method"]["name"],
        "model": {
            "name": public_name(record["model"]["name"]),
            "revision": record["model"]["revision"],
        },
        "prompt": record["task"]["prompt"],
        "notes": notes,
        "largest_logit_difference": difference,
        "versions": package_versions(),
        "commit": source_commit(),
    }


def public_name(name: str) -> str:
    """A model's name without the folders of this machine."""
    return Path(name).name if Path(name).expanduser().exists() else name
