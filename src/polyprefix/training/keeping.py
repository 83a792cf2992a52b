"""Whether a training keeps the hidden states below the lowest adapted layer, and where.

A step costs a forward through all L layers and a backward through those from the lowest adapted
one, l, on; with kept states both begin at l. Where half of the layers are below that is 2/3 of the
work, where seven eighths are, 2/9, head and batches not counted. The price is d numbers for each
distinct beginning of a training text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from polyprefix.config import ConfigError, RunError, RuntimeConfig
from polyprefix.distributed import world
from polyprefix.methods import AdaptedModel, Adapter
from polyprefix.models.batching import Batch, Text, beginnings, lay_out
from polyprefix.models.budget import EVALUATION_HELP, Budget, lay_out_fitting
from polyprefix.models.hidden_states import HiddenStates, states_entering
from polyprefix.results import Progress, free_memory

FILE = "hidden_states.bin"
"""In the run's folder, while it trains."""

SHARE = 1 / 4
"""Of the free memory, what ``auto`` takes at most."""

BELOW = 1 / 2
"""Of the layers, how many have to be below the lowest adapted one for ``auto`` to keep states."""

PASSES = 2
"""How often texts must be trained on for ``auto`` to keep states: once costs as much without."""


def keep_hidden_states(
    model: AdaptedModel,
    adapters: Sequence[Adapter],
    texts: Sequence[Text],
    passes: float,
    runtime: RuntimeConfig,
    folder: Path,
    progress: Progress,
) -> HiddenStates | None:
    """Compute and keep what enters the lowest layer that any of the adapters changes.

    Args:
        model: in evaluation mode, under the precision that it is trained in, with one of the
            adapters in use.
        adapters: that are trained.
        texts: all that they will be trained on, each once.
        passes: how often each text is trained on, in the mean.
        runtime: ``keep_hidden_states`` and the tokens of a forward pass.
        folder: holds the file, if it is one. A file that a killed training left is removed.
        progress: is told how large it is, before anything is computed.

    Returns:
        The states; ``None`` where they are not to be kept, or ``auto`` does not.

    Raises:
        ConfigError: they are to be kept and are not the same in every epoch.
        RunError: they fit neither memory nor disk.
    """
    file = folder / FILE
    world().first(lambda: file.unlink(missing_ok=True))
    wanted, layers = runtime.keep_hidden_states, model.backbone.num_layers
    if world().size > 1:  # each would compute those of all texts
        if wanted in ("memory", "disk"):
            raise ConfigError(
                "key 'runtime.keep_hidden_states': a run of several processes keeps none; leave "
                "the key out"
            )
        return None
    layer = kept_layer(adapters, passes, runtime, layers)
    if layer is None:
        return None
    lowest = min(adapters, key=lambda adapter: adapter.lowest_layer)
    if layer == 0:
        raise ConfigError(
            f"key 'runtime.keep_hidden_states': {lowest.title} with this configuration changes "
            "what the first layer computes, so that no hidden states stay as they are while it is "
            "trained. Adapt upper layers only, where the method has them to choose "
            "(method.layers=last:2), or leave the key out."
        )
    sample = _sample(model, layer, texts)
    if sample is None:
        if wanted == "auto":
            return None
        raise ConfigError(
            f"key 'runtime.keep_hidden_states': the model has dropout below layer {layer}, the "
            "lowest adapted one: hidden states there are others in every epoch. Set its dropout to "
            "0 in the model's config.json, or leave the key out."
        )
    count, numbers = beginnings([text.ids for text in texts])
    width = sample.shape[-1]
    size = count * width * sample.element_size()
    what = f"hidden states below layer {layer} of {len(texts):,} texts: {amount(size)}"
    if wanted != "disk" and size > (free := free_memory()) * (SHARE if wanted == "auto" else 1):
        if wanted == "auto":
            progress.say(
                f"{what}, computed anew in every epoch; runtime.keep_hidden_states=disk keeps them"
            )
            return None
        raise RunError(
            f"{what}, and {amount(free)} of memory are free: runtime.keep_hidden_states=disk keeps "
            "them in a file"
        )
    progress.say(f"{what}, kept {'in memory' if wanted != 'disk' else f'in {file}'}")
    of_texts = {tuple(text.ids): found for text, found in zip(texts, numbers, strict=True)}
    on_disk = file if wanted == "disk" else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = HiddenStates(layer, of_texts, (count, width), sample.dtype, on_disk)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise RunError(f"{what}: cannot write {str(file)!r}: {error.strerror or error}") from error
    try:
        budget = Budget(runtime.evaluation_batch_tokens, help=EVALUATION_HELP, say=progress.say)
        _fill(kept, model, texts, budget, progress)
    except BaseException:
        kept.close()
        raise
    return kept


def kept_layer(
    adapters: Sequence[Adapter], passes: float, runtime: RuntimeConfig, layers: int
) -> int | None:
    """The layer that kept states would enter, where they are to be kept; ``None``: nowhere."""
    wanted = runtime.keep_hidden_states
    # Where adapters move the text differently, its states are others for each of them.
    moved = {adapter.position_offset for adapter in adapters}
    layer = min(adapter.lowest_layer for adapter in adapters) if len(moved) == 1 else 0
    if wanted == "never" or (wanted == "auto" and (layer < BELOW * layers or passes < PASSES)):
        return None
    return layer


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _fill(
    kept: HiddenStates,
    model: AdaptedModel,
    texts: Sequence[Text],
    budget: Budget,
    progress: Progress,
) -> None:
    """Compute all states, what texts share once in a batch."""
    progress.start("computing hidden states", len(texts))
    try:
        for batch, states in lay_out_fitting(
            texts,
            budget,
            model.pad_id,
            model.backbone.device,
            model.attention_length,
            lambda batch: _states(model, kept.layer, batch),
        ):
            kept.put(texts, batch, states)
            progress.advance(len(batch.texts))
    finally:
        progress.finish()


def _states(model: AdaptedModel, layer: int, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return states_entering(
            model.backbone.layers[layer],
            lambda: model(batch.input_ids, position_ids=batch.position_ids, until=batch.until),
        )


def _sample(model: AdaptedModel, layer: int, texts: Sequence[Text]) -> torch.Tensor | None:
    """What enters the layer at the longest text; ``None`` if it is something else in training
    mode. That is asked of the model itself: families name their dropout in many ways."""
    longest = max(texts, key=lambda text: len(text.ids))
    device = model.backbone.device
    [batch] = lay_out([longest], len(longest.ids), model.pad_id, device)
    plain = _states(model, layer, batch)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.train()
        try:
            training = _states(model, layer, batch)
        finally:
            model.eval()
    return plain if torch.equal(plain, training) else None
