"""Runs and grids of them: execute what is missing, continue what was interrupted."""

from polyprefix.study.engines import Engine, make_engine, register_engine
from polyprefix.study.grid import Planned, plan_study, run_study
from polyprefix.study.kept import Kept
from polyprefix.study.plan import Plan, plan_run
from polyprefix.study.prepare import Prepared, prepare
from polyprefix.study.run import execute, load_run, run
from polyprefix.study.together import run_together

__all__ = [
    "Engine",
    "Kept",
    "Plan",
    "Planned",
    "Prepared",
    "execute",
    "load_run",
    "make_engine",
    "plan_run",
    "plan_study",
    "prepare",
    "register_engine",
    "run",
    "run_study",
    "run_together",
]
