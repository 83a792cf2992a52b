"""A frozen causal language model with prefix-aware attention, and its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from polyprefix.config import ModelConfig, UnsupportedModel
from polyprefix.models import attention, context
from polyprefix.models.families import Family, supported_family
from polyprefix.models.hidden_states import make_enterable
from polyprefix.models.layout import outputs_together
from polyprefix.models.offload import offload_layers
from polyprefix.models.quantization import keep_weights_narrow, quantization_config
from polyprefix.models.rotary import is_fixed

PACKAGED = {"polyprefix/nano": Path(__file__).parent / "packaged" / "nano"}
"""Models that come with the package, by the name ``--model`` takes."""


@dataclass(eq=False)
class Backbone:
    """A causal language model, its family and its tokenizer.

    Attributes:
        model: a ``PreTrainedModel`` with a language modelling head. Frozen on construction.
        tokenizer: its tokenizer, ``None`` where only tensors are computed.
        name: hub name or folder.
        revision: the hub's commit of the weights, or a hash of a local folder's files.
        quantization: of its linear maps, see :mod:`polyprefix.models.quantization`.
        offload: ``cpu``: its layers wait in main memory, see :mod:`polyprefix.models.offload`.
        tuned: an adapter trains, or has trained, the model's own weights.
        sharded: every process of a run holds a part of it; calls are made by all at once.
    """

    model: Any
    tokenizer: Any = None
    name: str = ""
    revision: str | None = None
    quantization: Literal["int8", "nf4"] | None = None
    offload: Literal["none", "cpu"] = field(default="none", init=False)
    tuned: bool = field(default=False, init=False)
    sharded: bool = field(default=False, init=False)
    family: Family = field(init=False)

    def __post_init__(self) -> None:
        self.family = supported_family(self.model.config)
        attention.register()
        if self.family.prepare is not None:
            self.family.prepare(self.model)
            # The registry's setter refuses families it does not know to call the registry; the
            # name still decides which mask they are given.
            self.model.config._attn_implementation_internal = attention.IMPLEMENTATION
        else:
            self.model.set_attn_implementation(attention.IMPLEMENTATION)
        for number, layer in enumerate(self.layers):
            make_enterable(layer, number)
        if self.quantization is not None:
            keep_weights_narrow(self.model)
        self.model.requires_grad_(False)
        self.model.eval()

    # Dimensions, in the letters of ARCHITECTURE.md ---------------------------------------------

    @property
    def config(self) -> Any:
        """transformers' configuration of the model."""
        return self.model.config

    @property
    def hidden_size(self) -> int:
        """d"""
        return int(self.config.hidden_size)

    @property
    def num_layers(self) -> int:
        """L"""
        return int(self.config.num_hidden_layers)

    @property
    def num_heads(self) -> int:
        """H"""
        return int(self.config.num_attention_heads)

    @property
    def num_key_value_heads(self) -> int:
        """H_kv"""
        return int(getattr(self.config, "num_key_value_heads", None) or self.num_heads)

    @property
    def head_dim(self) -> int:
        """D"""
        return int(getattr(self.config, "head_dim", None) or self.hidden_size // self.num_heads)

    @property
    def vocab_size(self) -> int:
        """V: rows of the input embedding, which may exceed the tokenizer's vocabulary."""
        return int(self.embedding.weight.shape[0])

    @property
    def context_length(self) -> int | None:
        """Positions the model was made for, ``None`` where there is no limit (ALiBi)."""
        limit: int | None = getattr(self.config, "max_position_embeddings", None)
        return limit

    # Modules -----------------------------------------------------------------------------------

    @property
    def embedding(self) -> nn.Embedding:
        """The input embeddings, ``[V, d]``."""
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    @cached_property
    def layers(self) -> list[nn.Module]:
        return list(self.model.get_submodule(self.family.layers).children())

    @cached_property
    def attentions(self) -> list[nn.Module]:
        return [layer.get_submodule(self.family.attention) for layer in self.layers]

    @cached_property
    def rotary(self) -> nn.Module | None:
        """The rotary embedding that all layers share, where its angles depend on the position
        alone."""
        if self.family.rotary is None:
            return None
        module: nn.Module = self.model.get_submodule(self.family.rotary)
        return module if is_fixed(module) else None

    @property
    def num_parameters(self) -> int:
        """All."""
        return int(self.model.num_parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return self.embedding.weight.dtype

    @property
    def softcap(self) -> float | None:
        """Gemma 2's cap on attention scores."""
        cap: float | None = getattr(self.config, "attn_logit_softcapping", None)
        return cap

    @property
    def sliding_window(self) -> int | None:
        """The window of the layers that have one, in tokens."""
        kinds = getattr(self.config, "layer_types", None)
        window: int | None = getattr(self.config, "sliding_window", None)
        if kinds is not None and "sliding_attention" not in kinds:
            return None
        return window

    def offload_layers(self, device: torch.device) -> None:
        """Keep the layers' weights in main memory, where all are now, and compute on a device."""
        offload_layers(self.model, self.layers, device)
        self.offload = "cpu"

    # Computation -------------------------------------------------------------------------------

    def hidden_states(self, **inputs: Any) -> Any:
        """The decoder's output, before the language modelling head."""
        return self.model.base_model(**inputs)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[..., d] -> [..., V]``: the head, applied where the caller wants it only."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def project(self, layer: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``[P, d] -> [H_kv, P, D]`` twice: the layer's own keys and values, not rotated.

        ``hidden`` stands where the layer's normalised input stands. Other adapters that sit on
        W_k or W_v (LoRA) do not take part: the prefix's rows are not rows of the batch."""
        module = self.attentions[layer]
        with self._put_together(layer), context.calling(context.NO_ADAPTER):
            return self.family.project(module, hidden.to(self.dtype))

    @contextmanager
    def _put_together(self, layer: int) -> Iterator[None]:
        """Within, this process has all of a layer; within a forward pass it has already."""
        module: Any = self.layers[layer]
        apart = self.sharded and any(isinstance(p, DTensor) for p in module.parameters())
        if not apart:
            yield
            return
        module.unshard()
        try:
            yield
        finally:
            module.reshard()

    def gradient_checkpointing(self, on: bool) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        if on:
            self.model.activation_checkpointing_enable(
                {"use_reentrant": False, "context_fn": context.checkpoint_context}
            )
            # transformers makes the embeddings want a gradient, which reentrant checkpointing needs
            # and this does not: every layer below the lowest adapted one would be differentiated.
            self.model.disable_input_require_grads()
        else:
            self.model.activation_checkpointing_disable()


def packaged(name: str) -> str:
    """The folder of a packaged model, or the name unchanged."""
    return str(PACKAGED.get(name, name))


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(config: ModelConfig) -> tuple[Any, Any]:
    """A model's configuration and its tokenizer, without its weights.

    Raises:
        UnsupportedModel: see :func:`load_pretrained`.
    """
    with _loading(config):
        source, common = _source(config)
        model_config = AutoConfig.from_pretrained(source, **common)
        supported_family(model_config)
        return model_config, AutoTokenizer.from_pretrained(source, **common)


def _source(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Where transformers finds a model, and the arguments that all its loaders take."""
    source = packaged(config.name)
    if source.startswith((".", "/", "~")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise UnsupportedModel(f"model folder {config.name!r} does not exist (key model.name)")
    common: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision is not None:  # given as None, transformers would not look for safetensors
        common["revision"] = config.revision
    return source, common


@contextmanager
def _loading(config: ModelConfig) -> Iterator[None]:
    try:
        yield
    except UnsupportedModel:
        raise
    except Exception as error:  # tokenizers raise that itself, and damaged files anything
        raise UnsupportedModel(
            f"cannot load model {config.name!r} (key model.name; weights have to be safetensors): "
            f"{error}"
        ) from error


def load_pretrained(
    config: ModelConfig, device: torch.device | None = None
) -> tuple[Any, Any, str | None]:
    """A model, its tokenizer and its revision, as transformers loads them from the hub, a folder or
    the package.

    Args:
        config: which model.
        device: where a quantised one is to be, by default the CPU; others are on the CPU.

    Raises:
        UnsupportedModel: the family is not registered, the model cannot be quantised as it should
            be, or the files cannot be loaded.
    """
    with _loading(config):
        source, common = _source(config)
        model_config = AutoConfig.from_pretrained(source, **common)
        supported_family(model_config)  # before any weight is read
        tokenizer = AutoTokenizer.from_pretrained(source, **common)
        more: dict[str, Any] = {}
        if config.quantization is not None:
            trust = config.trust_remote_code
            more["quantization_config"] = quantization_config(
                config.quantization, model_config, trust_remote_code=trust
            )
            more["device_map"] = {"": device or torch.device("cpu")}  # where it is quantised
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=DTYPES.get(config.dtype, "auto"),
                use_safetensors=True,
                **more,
                **common,
            )
        finally:
            if bars:
                transformers_logging.enable_progress_bar()
    revision = getattr(model_config, "_commit_hash", None) or folder_revision(Path(source))
    return model, tokenizer, revision


def load_backbone(config: ModelConfig, device: str | torch.device = "cpu") -> Backbone:
    """Load a model and its tokenizer from the hub, a folder or the package.

    Raises:
        UnsupportedModel: see :func:`load_pretrained`.
    """
    device = torch.device(device)
    model, tokenizer, revision = load_pretrained(config, device)
    # On a CPU all weights are in main memory.
    offloaded = config.offload == "cpu" and device.type != "cpu"
    if config.quantization is None and not offloaded:
        model = model.to(device)
        outputs_together(model)
    backbone = Backbone(model, tokenizer, config.name, revision, config.quantization)
    if offloaded:
        backbone.offload_layers(device)
    return backbone


HASHED_WHOLE = 1 << 28
"""Bytes up to which a file is hashed in full."""

_REVISED = {".safetensors", ".json", ".txt", ".model", ".spm", ".jinja", ".py"}
"""Kinds of files that weights, tokenizers and code are in."""


def folder_revision(folder: Path) -> str | None:
    """A hash of a local model folder: of its files' contents, and of samples of weight files that
    are larger than ``HASHED_WHOLE``, whose headers, sizes and 16 pieces tell models apart without
    reading many gigabytes."""
    if not folder.is_dir():
        return None
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in _REVISED:
            continue
        size = path.stat().st_size
        total.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            if size <= HASHED_WHOLE:
                total.update(hashlib.file_digest(file, "sha256").digest())
                continue
            for place in range(0, size, size // 16):
                file.seek(place)
                total.update(file.read(1 << 20))
    return f"sha256:{total.hexdigest()[:16]}"
