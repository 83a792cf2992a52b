"""A training step against its floor.

    python -m benchmarks.floor --task xquad --data new_wiki_v1.0.json

The floor is what no training of an adapter can do without: the frozen backbone forward, and
backward down to the input of the lowest adapted layer, every token that examples share computed
once, logits at labelled positions only. It has no adapter, no optimizer, no log and no batches to
make: ids are laid out beforehand, in rows of whole groups of examples. Attention is computed piece
by piece, each exactly as large as it has to be: shared tokens among themselves, then each example's
own tokens with what they see. The model is transformers' own.

The other side is :func:`polyprefix.training.train` with an adapter that changes nothing at the
start, in the last ``--layers`` layers. So both sides have the same loss at the first step. The
ratio is floor to training: 0.91 means that training takes a tenth longer.

``--data`` is a file that the task reads: SQuAD v1.1, XTREME's XNLI, SIB-200.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AutoModelForCausalLM

from benchmarks.common import Result, alternate, arguments, fastest, finish, make_model
from benchmarks.training import CHECKED, LOSS, Job, Ours, encode
from polyprefix.config import ModelConfig, RuntimeConfig
from polyprefix.methods import AdaptedModel, save_adapter
from polyprefix.models import load_backbone
from polyprefix.tasks import Example, get_task
from polyprefix.training import TrainingExample

METHODS: dict[str, dict[str, Any]] = {
    "prefix_tuning": {"initialization": "zero"},
    "llama_adapter": {"initialization": "random"},
    "lora": {},
}
"""Each without effect at the start."""

ROWS = (512, 1024, 2048, 4096)
"""Tokens of a row at least, of which the floor takes what it is fastest with."""

SHARED = 16
"""Tokens that examples share at least, for the shared part to be computed once."""


@dataclass
class Packed:
    """Groups of examples in one row.

    Attributes:
        ids: ``[1, T]``.
        positions: ``[1, T]``.
        pieces: of each group, where its shared tokens begin, then where each example's own begin,
            and where the last ends; of an example that is alone, where it begins and ends.
        reads: ``[N]`` places at which an answer's token is predicted.
        targets: ``[N]`` those tokens.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    pieces: list[list[int]]
    reads: torch.Tensor
    targets: torch.Tensor


def groups_of(examples: Sequence[TrainingExample]) -> list[tuple[int, list[TrainingExample]]]:
    """Examples whose prompts begin alike, and how many tokens they share."""
    groups: list[tuple[int, list[TrainingExample]]] = []
    for example in sorted(examples, key=lambda item: item.prompt):
        # A prompt's last token is never shared: the first token of the answer is read there.
        own = len(example.prompt) - 1
        if groups:
            shared, members = groups[-1]
            pairs = zip(members[0].prompt, example.prompt, strict=False)
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            alike = min(alike, own, shared if len(members) > 1 else len(members[0].prompt) - 1)
            if alike >= max(SHARED, shared // 2):
                groups[-1] = (alike, [*members, example])
                continue
        groups.append((own, [example]))
    return groups


def pack(examples: Sequence[TrainingExample], budget: int, device: str) -> list[Packed]:
    """Groups laid out in rows of about ``budget`` tokens."""
    rows: list[tuple[list[int], list[int], list[list[int]], list[int], list[int]]] = []
    for shared, members in groups_of(examples):
        if not rows or len(rows[-1][0]) >= budget:
            rows.append(([], [], [], [], []))
        ids, positions, pieces, reads, targets = rows[-1]
        bounds = [len(ids)]
        alone = len(members) == 1
        if alone:
            shared = 0
        ids += members[0].prompt[:shared]
        positions += range(shared)
        for member in members:
            first = len(ids)
            bounds += [] if alone else [first]
            ids += [*member.prompt[shared:], *member.answer[:-1]]
            positions += range(shared, shared + len(ids) - first)
            reads += range(len(ids) - len(member.answer), len(ids))
            targets += member.answer
        pieces.append([*bounds, len(ids)])
    return [
        Packed(
            torch.tensor([ids], device=device),
            torch.tensor([positions], device=device),
            pieces,
            torch.tensor(reads, device=device),
            torch.tensor(targets, device=device),
        )
        for ids, positions, pieces, reads, targets in rows
    ]


_pieces: list[list[int]] = []
"""Of the row that is being computed; transformers hands nothing of ours to attention."""


def attend(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of :class:`Packed`, as transformers calls it: ``[1, H, T, D] -> [1, T, H, D]``."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    found = []
    for start, *bounds in _pieces:
        asked, keys, values = (states[:, :, start : bounds[0]] for states in (query, key, value))
        found.append(F.scaled_dot_product_attention(asked, keys, values, is_causal=True))
        for first, last in pairwise(bounds):
            own = query[:, :, first:last]
            mask = own.new_ones(last - first, bounds[0] - start + last - first, dtype=torch.bool)
            found.append(
                F.scaled_dot_product_attention(
                    own,
                    torch.cat([keys, key[:, :, first:last]], dim=2),
                    torch.cat([values, value[:, :, first:last]], dim=2),
                    attn_mask=mask.tril(bounds[0] - start),
                )
            )
    return torch.cat(found, dim=2).transpose(1, 2), None


class Floor:
    """The frozen model of a folder, differentiated from layer ``lowest`` on."""

    def __init__(self, folder: str, lowest: int, device: str) -> None:
        AttentionInterface.register("floor", attend)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="floor"
        )
        self.model, self.lowest = model.to(device).requires_grad_(False), lowest

    def __call__(self, rows: Sequence[Packed]) -> float:
        """Forward and backward of all rows; the mean loss of their labelled tokens."""
        tokens = sum(len(row.targets) for row in rows)
        decoder, total = self.model.model, 0.0
        for row in rows:
            _pieces[:] = row.pieces
            hidden = decoder.embed_tokens(row.ids)
            angles = decoder.rotary_emb(hidden, row.positions)
            for number, layer in enumerate(decoder.layers):
                if number == self.lowest:
                    hidden = hidden.detach().requires_grad_()
                hidden = layer(hidden, attention_mask=None, position_embeddings=angles)
            logits = self.model.lm_head(decoder.norm(hidden)[0, row.reads])
            loss = F.cross_entropy(logits, row.targets, reduction="sum") / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total


def main(arguments_: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--task", choices=["xquad", "xnli", "sib200"], default="xquad")
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    add("--layers", nargs="+", default=["all"], help="adapted layers: all, last:4...")
    add("--examples", type=int, default=128)
    add("--batch-size", type=int, default=32, help="examples of an optimizer step")
    add("--micro-batch-tokens", type=int, default=RuntimeConfig().micro_batch_tokens)
    options = parser.parse_args(arguments_)
    task = get_task(options.task)
    chosen = _choose(task.read_file(options.data, "train").examples, options)
    texts = [task.prompt.render(example.fields) for example in chosen]
    results = []
    for size in options.vocabulary if options.model is None else [0]:
        with tempfile.TemporaryDirectory() as name:
            model = make_model(Path(name, "model"), options, size, texts)
            backbone = load_backbone(ModelConfig(name=model))
            if (kind := backbone.family.model_type) != "llama":
                raise SystemExit(f"the floor is written for llama, not for {kind}")
            examples = encode(backbone.tokenizer, task, chosen)
            for method in options.methods:
                for layers in options.layers:
                    case = {"task": task.name, "method": method, "layers": layers}
                    case |= {"V": backbone.vocab_size}
                    folder = Path(name, method, layers.replace(":", "-"))
                    results.append(compare(case, model, folder, examples, options))
    return finish("floor", options, results)


def compare(
    case: dict[str, Any],
    model: str,
    folder: Path,
    examples: list[TrainingExample],
    options: argparse.Namespace,
) -> Result:
    """One method in some layers."""
    adapted = AdaptedModel(load_backbone(ModelConfig(name=model)))
    named = {"name": case["method"], "layers": case["layers"], **METHODS[case["method"]]}
    adapter: Any = adapted.attach(named)
    save_adapter(adapter, folder)
    batch, budget, device = options.batch_size, options.micro_batch_tokens, options.device
    ours = Ours(Job(model, str(folder), [], batch, budget, 1, device))
    theirs = Floor(model, min(adapter.layers), device)
    some = examples[:CHECKED]
    [(loss, _)] = ours(some, len(some), 1)
    apart = abs(loss - theirs(pack(some, budget, device)))

    def load(tokens: int) -> list[list[Packed]]:
        parts = [examples[i : i + batch] for i in range(0, len(examples), batch)]
        return [pack(part, tokens, device) for part in parts]

    loads = {tokens: load(tokens) for tokens in (*ROWS, budget)}
    best = fastest(sorted(loads), lambda tokens: theirs(loads[tokens][0]), device)
    mine, other = alternate(
        lambda: ours(examples, batch),
        lambda: [theirs(rows) for rows in loads[best]],
        options.rounds,
        device,
    )
    separate = sum(len(example.prompt) + len(example.answer) - 1 for example in examples)
    computed = sum(row.ids.shape[1] for rows in loads[best] for row in rows)
    more = {
        "tokens": {"one by one": separate, "shared once": computed},
        "floor's tokens of a row": best,
    }
    agreement = {"loss": loss, "apart": apart}
    agrees = apart < LOSS * max(1.0, loss)
    return Result(case, "floor", len(examples), mine, other, agrees, agreement, more)


def _choose(found: list[Example], options: argparse.Namespace) -> list[Example]:
    """Examples at random, whole passages with all their questions, so that there is something to
    share; those of a batch stand together in the floor's rows."""
    units: dict[str, list[Example]] = {}
    for example in found:
        units.setdefault(example.fields.get("context", example.id), []).append(example)
    order = random.Random(options.seed).sample(list(units), len(units))
    return [example for unit in order for example in units[unit]][: options.examples]


if __name__ == "__main__":
    sys.exit(main())
