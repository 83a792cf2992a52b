"""What the benchmarks share: a random model, methods with their peer in PEFT, timing, the report.

Both sides of a benchmark load the same folder. Without ``--model`` that is a Llama with random
weights and a tokenizer that is trained on the texts at hand, so nothing is downloaded. Weights say
nothing about speed; they are drawn wide enough that a wrong computation gives another loss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported, which reads it then

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from benchmarks.goals import with_goals
from benchmarks.wording import MEMORY, named, said, short
from polyprefix.methods import AdaptedModel, Adapter, save_adapter
from polyprefix.models import PACKAGED
from polyprefix.results import machine, package_versions, source_commit, write_json

transformers_logging.disable_progress_bar()
warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # of PEFT

METHODS: dict[str, dict[str, Any]] = {
    "prefix_tuning": {
        "length": 20,
        "layers": "all",
        "initialization": "random",
        "positions": "peft",
    },
    "llama_adapter": {"length": 10, "layers": "all", "initialization": "random", "gate": "layer"},
    "soft_prompt": {"length": 20, "position": "start"},
    "lora": {"rank": 4},
}
"""Methods that PEFT has too, as it has them: in all layers, a prefix at positions 0 to P - 1, one
gate a layer, soft tokens before the text."""

TOKENIZER = 32000
"""Entries of a random model's tokenizer that texts are made of, at most. The rest of a larger
``--vocabulary`` never occurs, so that all sizes compute the same tokens."""

NOISE = 0.1
"""Standard deviation of what is added to an adapter's parameters at the start: as they are, most
adapters change nothing, and one that a side forgot would not be noticed."""


LOGITS = 2 << 30
"""Bytes of the peer's logits beyond which a batch size is not tried: it holds several such tensors
at a time."""


class Parser(argparse.ArgumentParser):
    """Keeps what was given, as ``options.given``, for the report to say how it was made."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        options = super().parse_args(args, namespace)
        options.given = list(sys.argv[1:] if args is None else args)
        return options


def arguments(description: str | None, *, data: bool = True) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; ``data``: it reads some."""
    parser = Parser(description=(description or "").partition("\n")[0])
    add = parser.add_argument
    if data:
        add("--data", type=Path, required=True, help="see the text at the top of this script")
    add("--model", help="a name or a folder; by default a random Llama of the sizes that follow")
    add("--vocabulary", type=int, nargs="+", default=[32000], help="V of the random model")
    add("--hidden-size", type=int, default=512, help="d of the random model")
    add("--num-layers", type=int, default=8, help="L of the random model")
    add("--rounds", type=int, default=5, help="measurements of each side, in turn")
    add("--seed", type=int, default=0, help="of weights and of the choice of examples")
    add("--device", default="cpu")
    add("--json", type=Path, help="where to write the figures")
    return parser


# Models ------------------------------------------------------------------------------------------


def make_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE trained on ``texts``, with ``size`` entries.

    It has them all, though some may never occur: lm-evaluation-harness cuts the head of a PEFT
    model to the size of its tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(size, TOKENIZER),
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    saved = json.loads(tokenizer.to_str())
    entries = saved["model"]["vocab"]
    entries |= {f"<unused {number}>": number for number in range(len(entries), size)}
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def make_model(folder: Path, options: argparse.Namespace, size: int, texts: Iterable[str]) -> str:
    """The folder of ``--model``, or of a random Llama with V = ``size`` that is written to
    ``folder``. With the default sizes it has 40 million parameters at V = 32000, embeddings
    tied."""
    if options.model:
        return str(PACKAGED.get(options.model, options.model))
    make_tokenizer(texts, size).save_pretrained(folder)
    random_model(options, size).save_pretrained(folder)
    return str(folder)


def random_model(options: argparse.Namespace, size: int) -> Any:
    """A random Llama with V = ``size`` and the other sizes of the options."""
    width = options.hidden_size
    heads = max(2, width // 64)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=size,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=options.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,  # a linear map keeps the size of what goes through it
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(options.seed)
    return AutoModelForCausalLM.from_config(config)


def attach(
    model: AdaptedModel, method: str, folder: Path, seed: int = 0, length: int | None = None
) -> None:
    """Attach a method's adapter, add noise to it, and write it for PEFT.

    Args:
        model: what to attach it to.
        method: one of ``METHODS``.
        folder: receives the adapter in both formats.
        seed: of its parameters.
        length: P in place of the one in ``METHODS``, where the method has one.

    Raises:
        SystemExit: PEFT cannot compute it on this model.
    """
    values = dict(METHODS[method])
    if length is not None and "length" in values:
        values["length"] = length
    adapter = model.attach({"name": method, **values}, seed=seed)
    add_noise(adapter, seed)
    if reason := save_adapter(adapter, folder):
        raise SystemExit(f"{method}: there is no peer to compare with: {reason}")


def add_noise(adapter: Adapter, seed: int) -> None:
    """Move all parameters of an adapter by :data:`NOISE`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapter.trainable().values():
            value.add_(NOISE * torch.randn(value.shape, generator=generator).to(value.device))


# Timing ------------------------------------------------------------------------------------------

Work = Callable[[], object]


def seconds(work: Work, device: str = "cpu") -> float:
    """How long a call takes, with what it has started on a device."""
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def in_turn(works: Sequence[Work], rounds: int, device: str) -> list[list[float]]:
    """Seconds of each piece of work in every round. All are measured in each round, and the order
    turns from round to round, so that a machine that slows down does not favour any."""
    found: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        order = range(len(works)) if number % 2 == 0 else reversed(range(len(works)))
        for place in order:
            found[place].append(seconds(works[place], device))
    return found


def alternate(ours: Work, theirs: Work, rounds: int, device: str) -> tuple[list[float], ...]:
    """:func:`in_turn` of two sides."""
    return tuple(in_turn((ours, theirs), rounds, device))


def affordable(batches: Sequence[int], vocabulary: int, tokens: int) -> list[int]:
    """Batch sizes whose logits at all of ``tokens`` positions a row fit :data:`LOGITS`; 1 if none
    does."""
    return [size for size in batches if 4 * vocabulary * tokens * size <= LOGITS] or [1]


def fastest(candidates: Sequence[int], work: Callable[[int], object], device: str) -> int:
    """The setting that a side is fastest with. Settings that follow one that took a third longer
    than the best are not tried: they stand in order of size. What one measurement decides is
    measured again, so that a disturbance does not cost a side its best setting. The side has worked
    before: first calls are slow for other reasons."""
    if len(candidates) == 1:
        return candidates[0]

    def once(candidate: int) -> float:
        return seconds(partial(work, candidate), device)

    taken: dict[int, float] = {}
    for candidate in candidates:
        best = min(taken.values(), default=float("inf"))
        taken[candidate] = once(candidate)
        if taken[candidate] > best * 4 / 3:
            taken[candidate] = min(taken[candidate], once(candidate))
            if taken[candidate] > best * 4 / 3:
                break
    best = min(taken.values())
    near = [candidate for candidate, time in taken.items() if time <= best * 1.15]
    if len(near) > 1:
        taken |= {candidate: min(taken[candidate], once(candidate)) for candidate in near}
    return min(near, key=lambda candidate: taken[candidate])


# Report ------------------------------------------------------------------------------------------


@dataclass
class Comparison:
    """One line of a benchmark, ready to be timed.

    Attributes:
        case: what is measured, in words: method, task, vocabulary.
        peer: whom against.
        work: examples of one measurement.
        ours: what is timed on our side.
        theirs: on the peer's.
        agrees: whether both sides computed the same.
        agreement: by how much they differ.
        more: settings and further figures.
    """

    case: dict[str, Any]
    peer: str
    work: int
    ours: Work
    theirs: Work
    agrees: bool
    agreement: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """A line that was timed: as in :class:`Comparison`, but ``ours`` and ``theirs`` are the seconds
    of each round."""

    case: dict[str, Any]
    peer: str
    work: int
    ours: list[float]
    theirs: list[float]
    agrees: bool
    agreement: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """How many times faster we were in each round."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def summary(self) -> dict[str, Any]:
        ratios = sorted(self.ratios)
        memory = self.more.get(MEMORY, {})
        both = memory.keys() >= {"ours", "theirs"}
        return {
            **asdict(self),
            "ratio": statistics.median(ratios),
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
            "ours_per_second": self.work / statistics.median(self.ours),
            "theirs_per_second": self.work / statistics.median(self.theirs),
            "memory_ratio": memory["ours"] / memory["theirs"] if both else None,
        }


def timed(comparisons: Sequence[Comparison], options: argparse.Namespace) -> list[Result]:
    """Measure lines, all in turn in every round."""
    works = [work for each in comparisons for work in (each.ours, each.theirs)]
    times = in_turn(works, options.rounds, options.device)
    return [
        Result(
            case=each.case,
            peer=each.peer,
            work=each.work,
            ours=ours,
            theirs=theirs,
            agrees=each.agrees,
            agreement=each.agreement,
            more=each.more,
        )
        for each, ours, theirs in zip(comparisons, times[::2], times[1::2], strict=True)
    ]


def processor() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def surroundings(device: str) -> dict[str, Any]:
    """Machine and versions."""
    versions: dict[str, str | None] = dict(package_versions())
    try:
        versions["lm_eval"] = version("lm_eval")
    except PackageNotFoundError:
        versions["lm_eval"] = None
    where = machine() | {"processor": processor(), "torch_threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        where["accelerator"] = torch.cuda.get_device_name(device)
    return {"machine": where, "versions": versions, "commit": source_commit()}


def finish(name: str, options: argparse.Namespace, results: Sequence[Result]) -> int:
    """Print the table and write ``--json``; 1 if the sides do not agree somewhere."""
    table = Table(box=SIMPLE_HEAD, title=f"{name}: median of {options.rounds} rounds")
    for column in ("case", "ours /s", "theirs /s", "ratio", "min", "max", "agreement"):
        first = column == "case"
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    lines = with_goals(name, [result.summary() for result in results])
    for line in lines:
        table.add_row(
            f"{named(line['case'])} against {line['peer']}",
            *(f"{line[key]:.3g}" for key in ("ours_per_second", "theirs_per_second", "ratio")),
            *(f"{line[key]:.3g}" for key in ("ratio_min", "ratio_max")),
            ("" if line["agrees"] else "NOT THE SAME: ") + said(line["agreement"]),
        )
        for key, value in line["more"].items():
            table.add_row(f"  {key}: {short(value)}")
    Console(width=150).print(table)
    if options.json is not None:
        settings = {key: _plain(value) for key, value in vars(options).items()}
        given = settings.pop("given")
        about = {"benchmark": name, "given": given, "settings": settings}
        about |= surroundings(options.device)
        write_json(options.json, about | {"results": lines})
    return int(not lines or not all(line["agrees"] for line in lines))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
