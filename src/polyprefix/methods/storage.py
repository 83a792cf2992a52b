"""Adapters on disk.

A folder holds ``polyprefix.json`` (method, configuration, backbone) and ``polyprefix.safetensors``
(what is trained), and, where PEFT can express the adapter, also ``adapter_config.json`` and
``adapter_model.safetensors``, so that ``PeftModel.from_pretrained(model, folder)`` loads it. A
folder that only PEFT wrote can be loaded too.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from polyprefix.config import ConfigError, PolyprefixError, RunError
from polyprefix.methods.adapted import AdaptedModel
from polyprefix.methods.base import (
    Adapter,
    MethodConfig,
    NotInPeft,
    method_config,
    methods,
)
from polyprefix.models import Backbone
from polyprefix.results import read_json, write_atomically, write_json, writing

CONFIG, WEIGHTS = "polyprefix.json", "polyprefix.safetensors"
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = 1

Peft = tuple[dict[str, Any], dict[str, torch.Tensor]]
"""An adapter's configuration and tensors, as PEFT has them."""


def save_adapter(
    adapter: Adapter,
    folder: str | Path,
    base_model: str | None = None,
    *,
    state: dict[str, torch.Tensor] | None = None,
    peft: Peft | NotInPeft | None = None,
) -> str | None:
    """Write an adapter, over one that the folder may hold.

    Args:
        adapter: to be written.
        folder: receives it.
        base_model: the backbone's name, by default the one it was loaded by.
        state: the adapter's, where not all of it is in this process.
        peft: what :func:`for_peft` makes of it, where other processes take part in that.

    Returns:
        ``None`` if PEFT can load it too, else the reason why it cannot.

    Raises:
        RunError: the folder cannot be written to.
    """
    folder = Path(folder)
    _clear(folder)
    write_atomically(folder / WEIGHTS, _packed(state or adapter.state()))
    peft = peft or for_peft(adapter)
    reason = str(peft) if isinstance(peft, NotInPeft) else None
    if not isinstance(peft, NotInPeft):
        _write_peft(peft, folder, base_model or adapter.backbone.name)
    write_json(
        folder / CONFIG,
        {
            "format": FORMAT,
            "method": {"name": adapter.method, **adapter.config.model_dump(mode="json")},
            "backbone": {
                "name": base_model or adapter.backbone.name,
                "revision": adapter.backbone.revision,
                "model_type": adapter.backbone.family.model_type,
            },
            "trainable_parameters": adapter.num_trainable(),
            "readable_by_peft": reason is None,
            "not_in_peft_because": reason,
        },
    )
    return reason


def save_for_peft(adapter: Adapter, folder: str | Path, base_model: str | None = None) -> None:
    """Write what ``PeftModel.from_pretrained(model, folder)`` loads, and nothing else.

    Args:
        adapter: to be written.
        folder: receives ``adapter_config.json`` and ``adapter_model.safetensors``.
        base_model: the backbone's name in the configuration, by default the one it was loaded by.

    Raises:
        NotInPeft: PEFT cannot express it; nothing was written.
        RunError: the folder cannot be written to.
    """
    _write_peft(adapter.to_peft(), Path(folder), base_model or adapter.backbone.name)


def for_peft(adapter: Adapter) -> Peft | NotInPeft:
    """What PEFT loads, or why there is no such thing."""
    try:
        return adapter.to_peft()
    except NotInPeft as error:
        return error


def _write_peft(peft: Peft, folder: Path, base_model: str) -> None:
    config, tensors = peft
    write_atomically(folder / PEFT_WEIGHTS, _packed(tensors))
    write_json(folder / PEFT_CONFIG, config | {"base_model_name_or_path": base_model})


def _clear(folder: Path) -> None:
    """Take an earlier adapter away, first what says that it is whole: beside new weights an old
    configuration would lie."""
    with writing(folder):
        for name in (CONFIG, PEFT_CONFIG, PEFT_WEIGHTS):
            (folder / name).unlink(missing_ok=True)


def _packed(tensors: dict[str, torch.Tensor]) -> bytes:
    packed: bytes = save({name: value.contiguous().cpu() for name, value in tensors.items()})
    return packed


def load_adapter(model: AdaptedModel, folder: str | Path, name: str = "default") -> Adapter:
    """Attach an adapter that was saved by :func:`save_adapter` or by PEFT.

    Raises:
        RunError: the folder holds no adapter, or a damaged one.
        ConfigError: it does not fit the backbone, or the name is taken.
        NotInPeft: PEFT's adapter is not one that Polyprefix can compute.
        UnsupportedModel: the method cannot work on this backbone.
    """
    source = find_adapter(folder)
    read = _read if source.name == CONFIG else _read_peft
    before = model.active
    attached = False
    try:
        config, tensors = read(source, model.backbone)
        adapter = model.attach(config, name, restore=True)
        attached = True
        adapter.load_state({k: v.to(model.backbone.device) for k, v in tensors.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{source} is damaged: {type(error).__name__}: {error}") from error
    except PolyprefixError as error:
        if attached:
            model.detach(name)
            model.use(before)
        raise type(error)(f"{source}: {error}") from error
    return adapter


def find_adapter(folder: str | Path) -> Path:
    """The file that describes the adapter in a folder, or in the folder of a run: ours where there
    is one, else PEFT's.

    Raises:
        RunError: there is none.
    """
    folder = Path(folder)
    for place in (folder, folder / "adapter"):
        for name in (CONFIG, PEFT_CONFIG):
            if (place / name).is_file():
                return place / name
    if not folder.is_dir():
        raise RunError(f"no adapter: folder {str(folder)!r} does not exist")
    raise RunError(f"no adapter in {str(folder)!r}: neither {CONFIG} nor {PEFT_CONFIG}")


def adapter_revision(folder: str | Path) -> str:
    """A hash of an adapter's configuration and weights.

    Raises:
        RunError: there is none, or its weights are missing.
    """
    source = find_adapter(folder)
    weights = source.with_name(WEIGHTS if source.name == CONFIG else PEFT_WEIGHTS)
    total = hashlib.sha256()
    try:
        for path in (source, weights):
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise RunError(_unreadable(weights, error)) from error
    return f"sha256:{total.hexdigest()[:16]}"


def described(folder: str | Path) -> tuple[str, str | None]:
    """Who wrote an adapter, ``Polyprefix`` or ``PEFT``, and on which model it says that it was
    trained.

    Raises:
        RunError: there is none, or it is damaged.
    """
    source = find_adapter(folder)
    values = read_json(source)
    try:
        if source.name == CONFIG:
            return "Polyprefix", values["backbone"]["name"] or None
        return "PEFT", values.get("base_model_name_or_path") or None
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{source} is damaged: {type(error).__name__}: {error}") from error


def _unreadable(path: Path, error: Exception) -> str:
    if not path.exists() and (pickled := path.with_name("adapter_model.bin")).exists():
        return (
            f"{str(pickled)!r} is a pickle, which can run any code and is not read. Load it with "
            "PEFT and save it again: save_pretrained(folder, safe_serialization=True)"
        )
    return f"cannot read {str(path)!r}: {error}"


def _read(source: Path, backbone: Backbone) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Configuration and state of one of our own."""
    values = read_json(source)
    if values["format"] != FORMAT:
        raise RunError(
            f"format {values['format']!r}, this version of Polyprefix reads format {FORMAT}"
        )
    family = values["backbone"]["model_type"]
    if family != backbone.family.model_type:
        raise ConfigError(
            f"was trained on a {family} model, this one is {backbone.family.model_type}"
        )
    trained_on = values["backbone"]["revision"]
    if None not in (trained_on, backbone.revision) and trained_on != backbone.revision:
        warnings.warn(
            f"{source}: was trained on {values['backbone']['name']} of revision {trained_on}, this "
            f"is {backbone.name} of revision {backbone.revision}",
            stacklevel=4,
        )
    return method_config(values["method"]), _tensors(source.with_name(WEIGHTS))


def _read_peft(source: Path, backbone: Backbone) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Configuration and state of one that PEFT wrote."""
    values = read_json(source)
    kinds = {method.peft_type: method for method in methods().values() if method.peft_type}
    kind = values["peft_type"]
    if kind not in kinds:
        raise NotInPeft(f"PEFT's {kind} is not among {', '.join(sorted(kinds))}")
    return kinds[kind].from_peft(backbone, values, _tensors(source.with_name(PEFT_WEIGHTS)))


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(_unreadable(path, error)) from error
    return tensors
