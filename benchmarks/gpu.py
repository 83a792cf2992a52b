"""Training at the shapes of real models on a GPU, with random weights: against PEFT, and against
what the GPU can do.

    python -m benchmarks.gpu --data new_wiki_v1.0.json --shapes llama-1b llama-8b

``--data`` is a file in the format of SQuAD v1.1. Both sides compute on the same weights, in bf16
with adapters in fp32. Beside the ratio there are, for ours, the tokens a second (as they are laid
out, and as the examples hold them) and the share of the GPU's matrix product ceiling, which is
measured first: the operations that the training needs, 4 for each weight of the frozen layers and
token and 4 for each weight of the head and labelled token, over time and ceiling. Attention is not
counted. Peak memory is of one pass over the examples, weights included. ``--profile`` adds the
kernels that take the most time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.common import (
    Comparison,
    Result,
    attach,
    fastest,
    finish,
    make_tokenizer,
    seconds,
    timed,
)
from benchmarks.memory import reset, used
from benchmarks.train_shared import choose
from benchmarks.training import CHECKED, Job, Ours, Theirs, agreement, encode, options_of
from benchmarks.wording import MEMORY
from polyprefix.methods import AdaptedModel
from polyprefix.models import Backbone
from polyprefix.models.batching import Text, lay_out
from polyprefix.models.budget import training_tokens
from polyprefix.tasks import get_task
from polyprefix.training import TrainingExample

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"model_type": "llama", "vocab_size": 1024, "hidden_size": 64, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128},
    "llama-1b": {"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048}
    | {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True},
    "llama-8b": {"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096}
    | {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"head_dim": 128, "intermediate_size": 14336},
    "mistral-24b": {"model_type": "mistral", "vocab_size": 131072, "hidden_size": 5120}
    | {"num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8}
    | {"head_dim": 128, "intermediate_size": 32768, "sliding_window": None},
}
"""Of Llama 3.2 1B, Llama 3.1 8B and Mistral Small 24B."""

LOSS, NORM = 5e-3, 5e-2
"""How far apart losses and norms may be, as a share, in bf16."""

MATRIX = 8192
"""Side of the square matrices whose product is the ceiling."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; print the table."""
    parser = options_of(__doc__)
    parser.set_defaults(device="cuda", batch_size=64, methods=["prefix_tuning", "lora"])
    add = parser.add_argument
    add("--shapes", nargs="+", default=["llama-1b"], choices=list(SHAPES))
    add("--passages", type=int, default=48)
    add("--profile", action="store_true", help="add ours' most expensive kernels")
    options = parser.parse_args(arguments)
    ceiling = matrix_ceiling(options.device)
    results: list[Result] = []
    for shape in options.shapes:
        results += compare(shape, ceiling, options)
    return finish("gpu", options, results)


def matrix_ceiling(device: str) -> float:
    """Operations a second of a bf16 matrix product on random numbers."""
    side = MATRIX if device.startswith("cuda") else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * side**3 / statistics.median(seconds(lambda: a @ b, device) for _ in range(10))


def compare(shape: str, ceiling: float, options: argparse.Namespace) -> list[Result]:
    """All methods at one shape, on one set of weights."""
    task = get_task("xquad")
    chosen = choose(task, options)
    values = dict(SHAPES[shape])
    tokenizer = make_tokenizer(
        [task.prompt.render(example.fields) for example in chosen], values["vocab_size"]
    )
    config = AutoConfig.for_model(
        **values,
        max_position_embeddings=8192,
        initializer_range=values["hidden_size"] ** -0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(options.seed)
    with torch.device(options.device):
        theirs = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    same: dict[int, Any] = {id(value): value for value in theirs.parameters()}
    backbone = Backbone(copy.deepcopy(theirs, same), tokenizer, shape)
    examples = encode(tokenizer, task, chosen)
    results = []
    for method in options.methods:
        with tempfile.TemporaryDirectory() as name:
            adapted = AdaptedModel(backbone)
            attach(adapted, method, Path(name), options.seed, options.length)
            case = {"shape": shape, "method": method, "V": backbone.vocab_size}
            found = prepare(case, adapted, theirs, Path(name), examples, ceiling, options)
            [result] = timed([found], options)
            results.append(with_rates(result, ceiling))
            adapted.detach()
            if options.device.startswith("cuda"):
                torch.cuda.empty_cache()
    return results


def prepare(
    case: dict[str, Any],
    adapted: AdaptedModel,
    base: Any,
    folder: Path,
    examples: Sequence[TrainingExample],
    ceiling: float,
    options: argparse.Namespace,
) -> Comparison:
    """One method at one shape."""
    device, batch = options.device, options.batch_size
    job = Job(
        model=case["shape"],
        adapter=str(folder),
        examples=[],
        batch_size=batch,
        micro_batch_tokens=options.micro_batch_tokens,
        micro_batch=options.peer_batches[0],
        device=device,
        keep_hidden_states="never",
    )
    ours, theirs = Ours(job, adapted), Theirs(job, base)
    agrees, apart = agreement(ours, theirs, examples[:CHECKED], LOSS, NORM)
    some = examples[: 2 * batch]
    sizes = [size for size in options.peer_batches if size <= batch]
    best = fastest(sizes, lambda size: theirs(some, batch, micro_batch=size), device)
    theirs.job = replace(job, micro_batch=best)
    memory = {}
    for side, runner in (("ours", ours), ("theirs", theirs)):
        reset(device)
        runner(examples, batch)
        memory[side] = used(device) / 2**20
    operations, laid = needed(adapted, examples, batch, options)
    more: dict[str, Any] = {
        "peer's micro-batch": best,
        MEMORY: memory,
        "tokens": {"one by one": tokens_of(examples), "laid out": laid},
        "operations": operations,
        "ceiling, TFLOP/s": round(ceiling / 1e12, 1),
    }
    if options.profile:
        more["kernels"] = kernels(lambda: ours(examples, batch))
    return Comparison(
        case=case,
        peer="PEFT",
        work=len(examples),
        ours=lambda: ours(examples, batch),
        theirs=lambda: theirs(examples, batch),
        agrees=agrees,
        agreement=apart,
        more=more,
    )


def with_rates(result: Result, ceiling: float) -> Result:
    """The result with ours' tokens a second, and the share of the ceiling."""
    taken = statistics.median(result.ours)
    more = dict(result.more)
    operations = more.pop("operations")
    tokens = more["tokens"].items()
    more["tokens a second"] = {name: round(count / taken) for name, count in tokens}
    more["share of the ceiling"] = round(operations / taken / ceiling, 3)
    return replace(result, more=more)


def tokens_of(examples: Sequence[TrainingExample]) -> int:
    """Of prompts and answers."""
    return sum(len(example.prompt) + len(example.answer) for example in examples)


def needed(
    model: AdaptedModel,
    examples: Sequence[TrainingExample],
    batch_size: int,
    options: argparse.Namespace,
) -> tuple[float, int]:
    """Operations of one pass over the examples, and tokens as they are laid out in steps of
    neighbours."""
    device = torch.device("cpu")
    budget = training_tokens(options.micro_batch_tokens, model.backbone.device)
    texts = [Text(model.wrap(e.prompt) + e.answer[:-1], ()) for e in examples]
    steps = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    laid = sum(
        batch.input_ids.numel()
        for step in steps
        for batch in lay_out(step, budget, 0, device, model.attention_length)
    )
    of_layers = sum(p.numel() for layer in model.backbone.layers for p in layer.parameters())
    of_head = model.backbone.hidden_size * model.backbone.vocab_size
    labels = sum(len(example.answer) for example in examples)
    return 4.0 * (of_layers * laid + of_head * labels), laid


def kernels(work: Any) -> dict[str, str]:
    """The share of the GPU's time of the kernels that take the most."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as measured:
        work()
    events = [e for e in measured.key_averages() if e.self_device_time_total > 0]
    total = sum(event.self_device_time_total for event in events) or 1.0
    events.sort(key=lambda event: -event.self_device_time_total)
    cpu = sum(event.self_cpu_time_total for event in measured.key_averages())
    found = {"GPU / CPU ms": f"{total / 1e3:.0f} / {cpu / 1e3:.0f}"}
    for event in events[:14]:
        share = event.self_device_time_total / total
        found[event.key[:90]] = f"{100 * share:.1f} % in {event.count} calls"
    return found


if __name__ == "__main__":
    sys.exit(main())
