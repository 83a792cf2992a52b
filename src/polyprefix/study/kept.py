"""What runs of one process have in common is loaded once: the backbone, the data."""

from __future__ import annotations

import gc

import torch

from polyprefix.config import ModelConfig, PolyprefixError, TaskConfig, digest
from polyprefix.models import Backbone, load_backbone
from polyprefix.tasks import TaskData, load_task_data


class Kept:
    """The backbone and the data that were asked for last.

    What could not be loaded is not tried again: it may be a hub that does not answer, and there may
    be hundreds of runs that want it.
    """

    def __init__(self) -> None:
        self._backbone: tuple[str, Backbone] | None = None
        self._data: tuple[str, TaskData] | None = None
        self._errors: dict[str, PolyprefixError] = {}

    def backbone(self, config: ModelConfig, device: torch.device) -> Backbone:
        """A backbone without adapters.

        Raises:
            UnsupportedModel: see :func:`polyprefix.models.load_backbone`.
        """
        key = digest(["model", config.model_dump(mode="json"), str(device)])
        if self._backbone is not None:
            found, backbone = self._backbone
            # An adapter may have trained the model's own weights; a sharded one is its model's.
            if found == key and not (backbone.tuned or backbone.sharded):
                return backbone
            del backbone
            self.drop_backbone()  # two may not fit
        self._refuse(key)
        try:
            backbone = load_backbone(config, device)
        except PolyprefixError as error:
            self._errors[key] = error
            raise
        self._backbone = key, backbone
        return backbone

    def data(self, config: TaskConfig, seed: int, *, with_training: bool) -> TaskData:
        """A task's data.

        Raises:
            PolyprefixError: see :func:`polyprefix.tasks.load_task_data`.
        """
        samples = (config.train_samples, config.dev_samples, config.test_samples)
        drawn = seed if any((*samples, config.train_per_class)) else None
        key = digest(["data", config.model_dump(mode="json"), drawn, with_training])
        if self._data is None or self._data[0] != key:
            self._refuse(key)
            try:
                self._data = key, load_task_data(config, seed=seed, with_training=with_training)
            except PolyprefixError as error:
                self._errors[key] = error
                raise
        return self._data[1]

    def drop_backbone(self) -> None:
        """Forget the backbone, which a run that failed may have left with its adapter on."""
        self._backbone = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _refuse(self, key: str) -> None:
        if key in self._errors:
            raise self._errors[key]
