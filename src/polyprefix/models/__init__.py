"""Backbones: loading, families, prefix-aware attention."""

import polyprefix.models.messages  # noqa: F401
from polyprefix.models.backbone import PACKAGED, Backbone, load_backbone, load_pretrained
from polyprefix.models.context import CallContext, Entering, calling, current
from polyprefix.models.families import Family, families, get_family, register_family
from polyprefix.models.prefixes import LayerPrefix, PrefixProducer, slot_of
from polyprefix.models.rotary import rotate

__all__ = [
    "PACKAGED",
    "Backbone",
    "CallContext",
    "Entering",
    "Family",
    "LayerPrefix",
    "PrefixProducer",
    "calling",
    "current",
    "families",
    "get_family",
    "load_backbone",
    "load_pretrained",
    "register_family",
    "rotate",
    "slot_of",
]
