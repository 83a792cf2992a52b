"""What a run leaves behind: one format, written atomically."""

from polyprefix.results.environment import (
    forget_peak_memory,
    free_memory,
    machine,
    package_versions,
    peak_memory,
    source_commit,
)
from polyprefix.results.files import (
    read_json,
    read_jsonl,
    read_object,
    remove_parts,
    write_atomically,
    write_json,
    write_jsonl,
    writing,
)
from polyprefix.results.folder import RunFolder
from polyprefix.results.progress import Progress, Silent
from polyprefix.results.study_folder import State, StudyFolder

__all__ = [
    "Progress",
    "RunFolder",
    "Silent",
    "State",
    "StudyFolder",
    "forget_peak_memory",
    "free_memory",
    "machine",
    "package_versions",
    "peak_memory",
    "read_json",
    "read_jsonl",
    "read_object",
    "remove_parts",
    "source_commit",
    "write_atomically",
    "write_json",
    "write_jsonl",
    "writing",
]
