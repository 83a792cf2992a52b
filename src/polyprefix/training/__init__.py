"""The one training loop."""

from polyprefix.training.batches import batches_from, most_of
from polyprefix.training.job import (
    DevScore,
    Job,
    Trained,
    TrainingExample,
    num_steps,
    peak_learning_rate,
    read_log,
)
from polyprefix.training.keeping import kept_layer
from polyprefix.training.loop import train, train_together
from polyprefix.training.loss import micro_batch_losses

__all__ = [
    "DevScore",
    "Job",
    "Trained",
    "TrainingExample",
    "batches_from",
    "kept_layer",
    "micro_batch_losses",
    "most_of",
    "num_steps",
    "peak_learning_rate",
    "read_log",
    "train",
    "train_together",
]
