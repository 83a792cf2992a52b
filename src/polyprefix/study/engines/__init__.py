"""What executes the runs of a study: this process, Ray, SLURM, or what other packages announce."""

from polyprefix.study.engines.base import Engine, Work, engines, make_engine, register_engine
from polyprefix.study.engines.cluster import ClusterEngine, Job
from polyprefix.study.engines.local import LocalEngine
from polyprefix.study.engines.needs import Needs, NeedsConfig
from polyprefix.study.engines.ray import RayEngine
from polyprefix.study.engines.slurm import SlurmEngine
from polyprefix.study.engines.worker import Outcome, Ticket, work

__all__ = [
    "ClusterEngine",
    "Engine",
    "Job",
    "LocalEngine",
    "Needs",
    "NeedsConfig",
    "Outcome",
    "RayEngine",
    "SlurmEngine",
    "Ticket",
    "Work",
    "engines",
    "make_engine",
    "register_engine",
    "work",
]
