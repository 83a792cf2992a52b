"""What a run leaves behind: one format, written atomically."""

from polyprefix.results.files import (
    read_json,
    read_jsonl,
    write_atomically,
    write_json,
    write_jsonl,
)
from polyprefix.results.progress import Progress, Silent

__all__ = [
    "Progress",
    "Silent",
    "read_json",
    "read_jsonl",
    "write_atomically",
    "write_json",
    "write_jsonl",
]
