"""The one training loop."""

from polyprefix.training.loop import (
    DevScore,
    Trained,
    TrainingExample,
    num_steps,
    read_log,
    train,
)

__all__ = ["DevScore", "Trained", "TrainingExample", "num_steps", "read_log", "train"]
