"""The one training loop."""

from polyprefix.training.loop import (
    DevScore,
    Trained,
    TrainingExample,
    num_steps,
    peak_learning_rate,
    read_log,
    train,
)

__all__ = [
    "DevScore",
    "Trained",
    "TrainingExample",
    "num_steps",
    "peak_learning_rate",
    "read_log",
    "train",
]
