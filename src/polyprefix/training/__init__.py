"""The one training loop."""

from polyprefix.training.job import (
    DevScore,
    Job,
    Trained,
    TrainingExample,
    num_steps,
    peak_learning_rate,
    read_log,
)
from polyprefix.training.loop import train, train_together

__all__ = [
    "DevScore",
    "Job",
    "Trained",
    "TrainingExample",
    "num_steps",
    "peak_learning_rate",
    "read_log",
    "train",
    "train_together",
]
