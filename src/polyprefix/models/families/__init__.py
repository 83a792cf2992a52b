"""Model families, one file for each kind of architecture."""

from polyprefix.models.families import bloom, gpt2, gpt_neox, llama_like, xglm
from polyprefix.models.families.base import (
    Family,
    families,
    get_family,
    register_family,
    supported_family,
)

__all__ = [
    "Family",
    "bloom",
    "families",
    "get_family",
    "gpt2",
    "gpt_neox",
    "llama_like",
    "register_family",
    "supported_family",
    "xglm",
]
