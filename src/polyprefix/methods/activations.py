"""What a frozen backbone computes for a text, to start a prefix from."""

from __future__ import annotations

from typing import Any

import torch

from polyprefix.config import ConfigError
from polyprefix.models import Backbone, CallContext, calling


def cyclic(ids: torch.Tensor, length: int) -> torch.Tensor:
    """``[T] -> [length]``: the ids, cut or repeated."""
    return ids.repeat(-(-length // len(ids)))[:length]


def text_ids(backbone: Backbone, text: str | None, fallback: torch.Tensor | None) -> torch.Tensor:
    """Token ids of ``text``, or the fallback, without special tokens.

    Raises:
        ConfigError: there is neither, or the text is empty.
    """
    if text is not None:
        ids = torch.tensor(
            backbone.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long
        )
        if not len(ids):
            raise ConfigError("key 'method.init_text' holds no token")
        return ids
    if fallback is None or not len(fallback):
        raise ConfigError(
            "this initialization needs a text: give 'method.init_text', or pass text= to attach()"
        )
    return fallback


@torch.no_grad()
def attention_inputs(backbone: Backbone, ids: torch.Tensor) -> list[torch.Tensor]:
    """``[T] -> L x [T, d]``: the normalised input of every layer's attention, in fp32."""
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            seen[layer] = hidden[0].detach().float()

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(layer), with_kwargs=True)
        for layer, module in enumerate(backbone.attentions)
    ]
    training = backbone.model.training
    backbone.model.eval()
    try:
        with calling(CallContext()):
            backbone.hidden_states(input_ids=ids[None].to(backbone.device), use_cache=False)
    finally:
        backbone.model.train(training)
        for hook in hooks:
            hook.remove()
    return [seen[layer] for layer in range(backbone.num_layers)]


def prefix_inputs(backbone: Backbone, ids: torch.Tensor, length: int) -> list[torch.Tensor]:
    """``L x [P, d]``: attention inputs of ``length`` tokens of a text.

    The first position is left out: models put most of their attention and outsized activations on
    whatever stands there, which is a poor start for P prefix vectors."""
    limit = int(getattr(backbone.config, "max_position_embeddings", None) or 1 << 30)
    ids = cyclic(ids, min(length + 1, limit))
    inputs = attention_inputs(backbone, ids)
    rows = cyclic(torch.arange(1, len(ids)), length) if len(ids) > 1 else torch.zeros(length).long()
    return [hidden[rows.to(hidden.device)] for hidden in inputs]
