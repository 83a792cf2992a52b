"""What prefix tuning and LLaMA-Adapter share: each of some layers' attention carries a prefix."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial

from polyprefix.methods.base import Adapter
from polyprefix.models import LayerPrefix, slot_of


class PrefixedLayers(Adapter):
    """An adapter that stands in the attention slots of ``layers``."""

    layers: list[int]

    @abstractmethod
    def prefix(self, place: int) -> LayerPrefix:
        """The prefix of the layer at ``place`` in ``layers``, computed from the parameters."""

    @property
    def lowest_layer(self) -> int:
        return min(self.layers)

    def install(self) -> None:
        for place, layer in enumerate(self.layers):
            slot = slot_of(self.backbone.attentions[layer])
            slot.prefixes[self.index] = partial(self.prefix, place)

    def remove(self) -> None:
        for layer in self.layers:
            slot_of(self.backbone.attentions[layer]).prefixes.pop(self.index)
