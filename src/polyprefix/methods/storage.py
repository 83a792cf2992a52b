"""Adapters on disk.

A folder holds ``polyprefix.json`` (method, configuration, backbone) and ``polyprefix.safetensors``
(what is trained), and, where PEFT can express the adapter, also ``adapter_config.json`` and
``adapter_model.safetensors``, so that ``PeftModel.from_pretrained(model, folder)`` loads it. A
folder that only PEFT wrote can be loaded too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from polyprefix.config import RunError
from polyprefix.methods.adapted import AdaptedModel
from polyprefix.methods.base import Adapter, NotInPeft, method_config, methods
from polyprefix.results import write_atomically, write_json

CONFIG, WEIGHTS = "polyprefix.json", "polyprefix.safetensors"
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = 1


def save_adapter(adapter: Adapter, folder: Path) -> str | None:
    """Write an adapter.

    Returns:
        ``None`` if PEFT can load it too, else the reason why it cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous().cpu() for name, value in adapter.state().items()}
    write_atomically(folder / WEIGHTS, save(tensors))
    reason = None
    try:
        peft, peft_tensors = adapter.to_peft()
    except NotInPeft as error:
        reason = str(error)
    else:
        peft["base_model_name_or_path"] = adapter.backbone.name
        peft_tensors = {name: value.contiguous().cpu() for name, value in peft_tensors.items()}
        write_atomically(folder / PEFT_WEIGHTS, save(peft_tensors))
        write_json(folder / PEFT_CONFIG, peft)
    # Last: its presence says that the folder is whole.
    write_json(
        folder / CONFIG,
        {
            "format": FORMAT,
            "method": {"name": adapter.method, **adapter.config.model_dump(mode="json")},
            "backbone": {
                "name": adapter.backbone.name,
                "revision": adapter.backbone.revision,
                "model_type": adapter.backbone.family.model_type,
            },
            "trainable_parameters": adapter.num_trainable(),
            "readable_by_peft": reason is None,
            "not_in_peft_because": reason,
        },
    )
    return reason


def load_adapter(model: AdaptedModel, folder: str | Path, name: str = "default") -> Adapter:
    """Attach an adapter that was saved by :func:`save_adapter` or by PEFT.

    Raises:
        RunError: the folder holds no adapter, or a damaged one.
        ConfigError: it does not fit the backbone.
    """
    folder = Path(folder)
    try:
        if (folder / CONFIG).is_file():
            values = _read(folder / CONFIG)
            if values.get("format") != FORMAT:
                raise RunError(
                    f"{folder / CONFIG}: format {values.get('format')!r}, this version of "
                    f"Polyprefix reads format {FORMAT}"
                )
            config = method_config(values["method"])
            tensors = load_file(folder / WEIGHTS)
        elif (folder / PEFT_CONFIG).is_file():
            peft = _read(folder / PEFT_CONFIG)
            kinds = {m.peft_type: m for m in methods().values() if m.peft_type}
            if peft.get("peft_type") not in kinds:
                raise RunError(
                    f"{folder / PEFT_CONFIG}: PEFT's {peft.get('peft_type')} is not among "
                    f"{', '.join(sorted(kinds))}"
                )
            method = kinds[peft["peft_type"]]
            config, tensors = method.from_peft(
                model.backbone, peft, load_file(folder / PEFT_WEIGHTS)
            )
        else:
            raise RunError(f"no adapter in {str(folder)!r}: neither {CONFIG} nor {PEFT_CONFIG}")
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"cannot read the adapter in {str(folder)!r}: {error}") from error
    adapter = model.attach(config, name, restore=True)
    adapter.load_state({key: value.to(model.backbone.device) for key, value in tensors.items()})
    return adapter


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    return values
