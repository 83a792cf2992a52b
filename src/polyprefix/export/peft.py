"""``--to peft``: a folder that ``PeftModel.from_pretrained`` loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from polyprefix.config import ConfigError
from polyprefix.export.base import Source, Target, public_name, register_target
from polyprefix.methods import NotInPeft, save_for_peft


def refuse_for_peft(source: Source) -> None:
    """Say why PEFT cannot hold the adapter of a run, if it cannot.

    Raises:
        ConfigError: with the reason.
    """
    try:
        source.adapter.to_peft()
    except NotInPeft as error:
        raise ConfigError(
            f"PEFT cannot hold the adapter of {str(source.folder.path)!r} without computing "
            f"something else: {error}"
        ) from None


def logits_in_peft(source: Source, folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
    """What the adapter in a folder gives under PEFT, one text at a time: PEFT pads some wrongly."""
    model, _ = source.pretrained()
    model.to(source.model.backbone.dtype)
    adapted = PeftModel.from_pretrained(model, str(folder)).eval()
    found = []
    for text in texts:
        ids = torch.tensor([source.token_ids(text)])
        with torch.no_grad():
            output = adapted(input_ids=ids, attention_mask=torch.ones_like(ids))
        found.append(output.logits[0, -ids.shape[1] :])
    return found


@register_target
class Peft(Target):
    """See the module's text."""

    name = "peft"
    options = ("base_model",)

    def refuse(self, source: Source) -> None:
        refuse_for_peft(source)

    def write(self, source: Source, folder: Path) -> list[str]:
        name = source.options.get("base_model") or public_name(source.model.backbone.name)
        save_for_peft(source.adapter, folder, name)
        return [f"PEFT is told that the base model is {name!r}"]

    def logits(self, source: Source, folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
        return logits_in_peft(source, folder, texts)
