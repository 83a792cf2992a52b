"""An adapter that is there already, trained by Polyprefix or by PEFT, to be evaluated as it is.

It is no method of its own: attached, it is the adapter that it was saved from.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from polyprefix.config import RunError
from polyprefix.methods.adapted import AdaptedModel
from polyprefix.methods.base import (
    Adapter,
    MethodConfig,
    get_method,
    register_method,
)
from polyprefix.methods.storage import CONFIG, adapter_revision, find_adapter, load_adapter
from polyprefix.results import read_json


class SavedConfig(MethodConfig):
    """Keys of ``saved``.

    ``folder``: of the adapter, in Polyprefix's format or in PEFT's, or of a run.
    """

    folder: str

    @model_validator(mode="after")
    def _there(self) -> Self:
        try:
            find_adapter(self.folder)
        except RunError as error:
            raise ValueError(f"key 'method.folder': {error}") from None
        return self

    def identity(self) -> dict[str, Any]:
        """The adapter's contents: where they stand does not matter."""
        return {"adapter": adapter_revision(self.folder)}


@register_method
class Saved(Adapter):
    """See the module's text."""

    method = "saved"
    title = "Saved adapter"
    paper = "the adapter's own"
    Config = SavedConfig
    trains = False
    listed = False

    @classmethod
    def reference_learning_rate(cls, config: SavedConfig) -> float:
        return 0.0

    @classmethod
    def mixes(cls, config: SavedConfig) -> bool:
        source = find_adapter(config.folder)
        if source.name != CONFIG:  # what is read of PEFT's leaves the backbone alone
            return True
        values = read_json(source).get("method", {})
        method = get_method(str(values.get("name")))
        options = {key: value for key, value in values.items() if key != "name"}
        return method.mixes(method.Config.read(options, where=str(source)))

    @classmethod
    def loaded(cls, model: AdaptedModel, config: SavedConfig, name: str) -> Adapter:
        return load_adapter(model, config.folder, name)
