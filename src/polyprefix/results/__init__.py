"""What a run leaves behind: one format, written atomically."""

from polyprefix.results.environment import (
    free_memory,
    machine,
    package_versions,
    peak_memory,
    source_commit,
)
from polyprefix.results.files import (
    read_json,
    read_jsonl,
    write_atomically,
    write_json,
    write_jsonl,
)
from polyprefix.results.folder import RunFolder
from polyprefix.results.progress import Progress, Silent

__all__ = [
    "Progress",
    "RunFolder",
    "Silent",
    "free_memory",
    "machine",
    "package_versions",
    "peak_memory",
    "read_json",
    "read_jsonl",
    "source_commit",
    "write_atomically",
    "write_json",
    "write_jsonl",
]
