"""One run of a study to its end, be it an error, in whatever process."""

from __future__ import annotations

import errno
import traceback

from polyprefix.config import PolyprefixError, RunLocked, StudyRun, Unwritable
from polyprefix.results import Progress, StudyFolder
from polyprefix.study.kept import Kept
from polyprefix.study.prepare import prepare
from polyprefix.study.run import execute

FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a full disk."""


def run_single(
    run: StudyRun, folder: StudyFolder, kept: Kept, *, again: bool, progress: Progress
) -> bool:
    """One run to its end; what stops it is written down as its error.

    Returns:
        ``False``: another process is working on it.

    Raises:
        Unwritable: the disk is full, or the folder cannot be written to.
    """
    try:
        prepared = prepare(run.config, progress, kept)
        folder.begin(run.key, prepared.folder.id)
        execute(prepared, again=again, progress=progress)
    except RunLocked:
        return False
    except Exception as error:
        stop_if_full(error)
        unforeseen = not isinstance(error, PolyprefixError)
        folder.fail(run.key, error_text(error), traceback.format_exc() if unforeseen else None)
        progress.say(f"failed: {error_text(error)}")
        kept.drop_backbone()
    return True


def stop_if_full(error: BaseException) -> None:
    """Raise what every other run would meet as well."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in FULL
        if full or isinstance(cause, Unwritable):
            raise Unwritable(
                f"{error}. No run can go on; once that is mended, the same command continues"
            ) from error
        cause = cause.__cause__ or cause.__context__


def error_text(error: BaseException) -> str:
    """What a user is told: the text of a mistake, the kind and the text of a bug."""
    return str(error) if isinstance(error, PolyprefixError) else repr(error)
