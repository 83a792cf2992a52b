"""Runs: execute what is missing, continue what was interrupted."""

from polyprefix.study.prepare import Prepared, prepare
from polyprefix.study.run import load_run, run

__all__ = ["Prepared", "load_run", "prepare", "run"]
