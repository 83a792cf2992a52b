"""Tasks, one file each, and the data of a run."""

from polyprefix.tasks import (
    belebele,
    mgsm,
    mlqa,
    paws_x,
    polytopics,
    sib200,
    tydiqa_goldp,
    xcopa,
    xnli,
    xquad,
)
from polyprefix.tasks.base import AnswerTask, ChoiceTask, Task
from polyprefix.tasks.data import TaskData, load_task_data
from polyprefix.tasks.examples import (
    BadRow,
    Example,
    RowError,
    Split,
    SplitName,
    label_in,
    text_in,
    unpaired,
)
from polyprefix.tasks.prompt import Prompt
from polyprefix.tasks.registry import get_task, register_task, tasks

__all__ = [
    "AnswerTask",
    "BadRow",
    "ChoiceTask",
    "Example",
    "Prompt",
    "RowError",
    "Split",
    "SplitName",
    "Task",
    "TaskData",
    "belebele",
    "get_task",
    "label_in",
    "load_task_data",
    "mgsm",
    "mlqa",
    "paws_x",
    "polytopics",
    "register_task",
    "sib200",
    "tasks",
    "text_in",
    "tydiqa_goldp",
    "unpaired",
    "xcopa",
    "xnli",
    "xquad",
]
