"""A backbone with adapters: the one model that training, scoring and decoding call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from polyprefix.config import ConfigError, unknown
from polyprefix.methods.base import (
    Adapter,
    MethodConfig,
    Setting,
    check_frozen,
    method_config,
    method_of,
)
from polyprefix.models import Backbone, CallContext, Entering, block_sparse, calling, pieces
from polyprefix.models.batching import ATTENTION_LENGTH
from polyprefix.models.last_layer import Read


@dataclass(frozen=True, slots=True)
class Output:
    """``logits``: ``[B, T, V]``, or ``[N, V]`` where N positions were asked for."""

    logits: torch.Tensor
    past_key_values: Any = None


class AdaptedModel(nn.Module):
    """A backbone and any number of adapters, by name.

    Calls use the adapter chosen by :meth:`use`, or one a row, named in the call.

    Example::

        model = AdaptedModel(load_backbone(ModelConfig(name="polyprefix/nano")))
        model.attach({"name": "prefix_tuning", "length": 10})
        logits = model(input_ids, attention_mask).logits
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.__dict__["backbone"] = backbone
        self.model = backbone.model
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self._next_index = 0
        self._next_soft_id = backbone.vocab_size
        self.eval()

    backbone: Backbone

    # Adapters ----------------------------------------------------------------------------------

    def attach(
        self,
        config: MethodConfig | Mapping[str, Any],
        name: str = "default",
        *,
        seed: int = 0,
        text: str | None = None,
        restore: bool = False,
    ) -> Adapter:
        """Build an adapter, hook it in and use it.

        Args:
            config: a method's configuration, or ``{"name": method, ...}``.
            name: the adapter's name on this model.
            seed: of its initialisation.
            text: what ``activations`` and ``text`` start from when the configuration has none.
            restore: saved tensors will follow (:func:`load_adapter`): no initialisation by text.

        Raises:
            ConfigError: bad configuration, or the name is taken.
            UnsupportedModel: the method cannot work on this backbone.
        """
        if name in self.adapters:
            raise ConfigError(f"the model has an adapter {name!r} already")
        if not isinstance(config, MethodConfig):
            config = method_config(config)
        check_frozen(method_of(config), config, self.backbone)
        if (loaded := method_of(config).loaded(self, config, name)) is not None:
            return loaded
        ids = None
        if text is not None:
            encoded = self.backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = torch.tensor(encoded, dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        adapter = method_of(config)(self.backbone, config, Setting(generator, ids, restore))
        if self.backbone.tuned and not self.adapters:
            raise ConfigError(
                "an adapter that was taken off has trained this backbone's own weights: load the "
                "backbone again"
            )
        all_mix = all(other.mixes(other.config) for other in (adapter, *self._all()))
        if self.adapters and not all_mix:
            raise ConfigError(
                "an adapter that tunes the backbone itself must be the only one on it"
            )
        adapter.index = self._next_index
        self._next_index += 1
        adapter.first_soft_id = self._next_soft_id
        self._next_soft_id += adapter.num_soft_tokens
        adapter.to(self.backbone.device)
        adapter.install()
        self.adapters[name] = adapter
        self.use(name)
        return adapter

    def detach(self, name: str = "default") -> None:
        """Take an adapter off; the others keep their names and soft token ids."""
        self.adapter(name).remove()
        del self.adapters[name]
        if self.active == name:
            self.active = None

    def use(self, name: str | None) -> None:
        """Calls that name no rows carry this adapter from now on; ``None``: none."""
        if name is not None:
            self.adapter(name).activate()
        self.active = name
        self.trained([] if name is None else [name])

    def trained(self, names: Iterable[str]) -> None:
        """Gradients are of these adapters alone from now on, until another is used."""
        chosen = [self.adapter(name).trainable().values() for name in names]
        wanted = {id(parameter) for parameters in chosen for parameter in parameters}
        for adapter in self._all():
            for parameter in adapter.trainable().values():
                parameter.requires_grad_(id(parameter) in wanted)

    def adapter(self, name: str | None = None) -> Adapter:
        """An adapter by name, by default the one in use.

        Raises:
            ConfigError: there is none of that name.
        """
        name = self.active if name is None else name
        if name is None or name not in self.adapters:
            raise ConfigError(unknown("adapter", str(name), self.adapters))
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter

    def _all(self) -> list[Adapter]:
        return [adapter for adapter in self.adapters.values() if isinstance(adapter, Adapter)]

    def wrap(self, prompt_ids: Sequence[int], name: str | None = None) -> list[int]:
        """Prompt ids with the soft tokens of an adapter (by default the one in use) in place."""
        if name is None and self.active is None:
            return list(prompt_ids)
        before, after = self.adapter(name).prompt_ids()
        return [*before, *prompt_ids, *after]

    def room(self, limit: int, name: str | None = None) -> int:
        """Tokens that prompt and answer may have: ``limit``, or less where the model's context
        also has to hold the soft tokens or the moved positions of an adapter."""
        context = self.backbone.context_length
        if context is None:
            return limit
        taken = 0
        if name is not None or self.active is not None:
            adapter = self.adapter(name)
            taken = adapter.num_soft_tokens + adapter.position_offset
        return min(limit, context - taken)

    @property
    def pad_id(self) -> int:
        """The id that fills rows up; which one does not matter, it is masked."""
        for name in ("pad_token_id", "eos_token_id"):
            value = getattr(self.backbone.tokenizer, name, None)
            if value is not None:
                return int(value)
        return 0

    @property
    def attention_length(self) -> float:
        """See :func:`polyprefix.models.batching.lay_out`."""
        return float("inf") if self._blocks or self._in_pieces else ATTENTION_LENGTH

    @property
    def _plain(self) -> bool:
        """Whether attention may leave out what is hidden: not where scores are changed each."""
        return not self.backbone.family.alibi and self.backbone.softcap is None

    @property
    def _blocks(self) -> bool:
        """Whether packed rows are attended to in blocks."""
        backbone = self.backbone
        available = block_sparse.available(backbone.device, backbone.dtype, backbone.head_dim)
        return self._plain and available

    @property
    def _in_pieces(self) -> bool:
        """Whether packed rows are attended to in pieces."""
        return self._plain and self.backbone.device.type in pieces.DEVICES

    def _read(self, flat: npt.NDArray[np.int64], batch: int, length: int) -> Read | None:
        last, device = self.backbone.num_layers - 1, self.backbone.device
        return Read.of(last, flat, batch, length, device)

    # Computation -------------------------------------------------------------------------------

    def without_gradients(self) -> contextlib.AbstractContextManager[object]:
        """How to call the model where no gradient is wanted. What a sharded backbone gathers is
        used again in training, where tensors of inference mode are refused."""
        return torch.no_grad() if self.backbone.sharded else torch.inference_mode()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        position_ids: torch.Tensor | None = None,
        until: npt.NDArray[np.int64] | None = None,
        adapters: Sequence[str | None] | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        keep: npt.ArrayLike | None = None,
        entering: Entering | None = None,
    ) -> Output:
        """Logits of a batch.

        Args:
            input_ids: ``[B, T]``; ids from V on are soft tokens.
            attention_mask: ``[B, S]``, S = cached + T; 0 is padding, on either side.
            position_ids: ``[B, T]``, the place of each token in its text; by default counted along
                the row. Not with a mask or a cache.
            until: ``[B, T]``, packed rows: the token at place j is seen by those at j to
                ``until[j]``, see :mod:`polyprefix.models.batching`. With ``position_ids``.
            adapters: the adapter of each row, ``None`` for none. By default the one in use.
            past_key_values: a cache of transformers, holding text only.
            use_cache: return a cache.
            keep: ``[N]`` indices into the ``B * T`` positions at which logits are wanted. In main
                memory, as ``until`` is.
            entering: what these texts' hidden states are below the adapted layers, where it is
                known; layers below are not computed. Not with a cache.

        Returns:
            logits ``[B, T, V]``, or ``[N, V]`` with ``keep``; the cache.
        """
        batch, length = input_ids.shape
        read = None if keep is None else np.asarray(keep)
        if entering is not None:
            if past_key_values is not None or use_cache:
                raise ValueError("entering excludes a cache: layers below have no keys and values")
            for name in {self.active} if adapters is None else set(adapters):
                if name is not None and self.adapter(name).lowest_layer < entering.layer:
                    raise ValueError(f"adapter {name!r} changes layers below {entering.layer}")
        if position_ids is not None:
            if attention_mask is not None or past_key_values is not None:
                raise ValueError("position_ids excludes attention_mask and past_key_values")
            positions = key_positions = position_ids
            # given, so that transformers does not look for packed texts in the positions
            attention_mask = torch.ones_like(input_ids)
        else:
            if until is not None:
                raise ValueError("until needs position_ids")
            if attention_mask is None:
                seen = 0 if past_key_values is None else past_key_values.get_seq_length()
                attention_mask = input_ids.new_ones(batch, seen + length)
            key_positions = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
            positions = key_positions[:, -length:]
        positions_matter = until is not None or self.backbone.family.alibi
        context, offset = self._route(
            adapters,
            batch,
            input_ids.device,
            until=None if until is None else torch.from_numpy(until).to(input_ids.device),
            key_positions=key_positions if positions_matter else None,
            blocks=self._blocks,
            unpadded=position_ids is not None and until is None,
            cuts=pieces.cuts(until) if until is not None and self._in_pieces else None,
            entering=entering,
            read=None if read is None else self._read(read, batch, length),
        )
        with calling(context):
            output = self.backbone.hidden_states(
                inputs_embeds=self._embed(input_ids, context),
                attention_mask=attention_mask,
                position_ids=positions + offset,
                past_key_values=past_key_values,
                use_cache=use_cache,
            )
            hidden = output.last_hidden_state
            if read is not None:
                hidden = hidden.flatten(0, 1)[torch.from_numpy(read).to(hidden.device)]
            return Output(self.backbone.logits(hidden), output.past_key_values)

    def _embed(self, input_ids: torch.Tensor, context: CallContext) -> torch.Tensor:
        """``[B, T] -> [B, T, d]``, soft tokens included."""
        vocabulary = self.backbone.vocab_size
        embedded: torch.Tensor = self.backbone.embedding(input_ids.clamp_max(vocabulary - 1))
        with_soft = [adapter for adapter in self._all() if adapter.num_soft_tokens]
        if not with_soft:
            return embedded
        # One table of all soft tokens; ids of adapters that were taken off leave gaps.
        tables: list[torch.Tensor] = []
        place = torch.zeros_like(input_ids)
        soft = torch.zeros_like(input_ids, dtype=torch.bool)
        start = 0
        for adapter in with_soft:
            own = input_ids - adapter.first_soft_id
            mine = (own >= 0) & (own < adapter.num_soft_tokens)
            place, soft = torch.where(mine, own + start, place), soft | mine
            start += adapter.num_soft_tokens
            # An adapter that no row carries must not make the layers below the others' want a
            # gradient.
            carried = adapter.index == context.adapter or adapter.index in context.members
            with contextlib.nullcontext() if carried else torch.no_grad():
                tables.append(adapter.soft_tokens())
        table = torch.cat(tables).to(embedded.dtype)
        return torch.where(soft[..., None], F.embedding(place, table), embedded)

    def _route(
        self, names: Sequence[str | None] | None, batch: int, device: torch.device, **more: Any
    ) -> tuple[CallContext, torch.Tensor | int]:
        """The call's context, with ``more`` in it, and the position offset of its rows."""
        if names is not None and len(names) != batch:
            raise ValueError(f"{len(names)} adapter names for {batch} rows")
        different = {self.active} if names is None else set(names)
        if names is None or len(different) == 1:
            [name] = different
            if name is None:
                return CallContext(**more), 0
            adapter = self.adapter(name)
            return CallContext(adapter=adapter.index, **more), adapter.position_offset
        adapters = {name: self.adapter(name) for name in dict.fromkeys(names) if name is not None}
        carried = [-1 if name is None else adapters[name].index for name in names]
        offsets = [0 if name is None else adapters[name].position_offset for name in names]
        moved = torch.tensor(offsets, device=device)[:, None] if any(offsets) else 0
        return CallContext.of_rows(carried, device, **more), moved
