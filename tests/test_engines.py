"""What executes a study's runs: the driver's work, what runs ask for, mistakes. Nothing here needs
a cluster, see ``tests/test_clusters.py``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from polyprefix.config import ConfigError, RunError, StudyRun, Unwritable
from polyprefix.results import Silent, StudyFolder
from polyprefix.study import make_engine, prepare, run_study
from polyprefix.study.engines import (
    ClusterEngine,
    Needs,
    NeedsConfig,
    Outcome,
    Ticket,
    Work,
    engines,
    work,
)
from polyprefix.study.engines.needs import needs_of
from polyprefix.study.engines.slurm import SlurmConfig
from polyprefix.study.engines.worker import write_ticket
from polyprefix.study.probe import probe_key
from tests.conftest import ROOT, Cli
from tests.trial_study import Make, Recorder, maker, scores, trial_values


@pytest.fixture
def values(tiny_folder: Path, sib_folder: Path) -> dict[str, Any]:
    values = trial_values(tiny_folder, sib_folder)
    values["base"]["runtime"] = {"device": "cpu"}
    return values


@pytest.fixture
def make(values: dict[str, Any], tmp_path: Path) -> Make:
    return maker(values, tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the file systems of other machines."""
    monkeypatch.setattr("polyprefix.study.engines.worker.SEEN", 0.0)
    monkeypatch.setattr("polyprefix.study.engines.cluster.HELD", 0.0)
    monkeypatch.setattr("polyprefix.study.engines.cluster.POLL", 0.05)


class Inline(ClusterEngine):
    """A cluster in this process. ``before`` may say what becomes of a run instead of running it, or
    do something before it is run."""

    name = "inline"
    title = "a test's"

    def __init__(
        self, before: Callable[[Ticket, int], Outcome | None] | None = None, **config: Any
    ) -> None:
        super().__init__(NeedsConfig(**config))
        self.before = before or (lambda ticket, number: None)
        self.jobs: list[tuple[Ticket, Needs]] = []
        self.stopped: list[int] | None = None

    def submit(self, tickets: Sequence[tuple[Ticket, Needs]], work: Work) -> Sequence[int]:
        self.jobs.extend(tickets)
        return list(range(len(self.jobs) - len(tickets), len(self.jobs)))

    def poll(self, jobs: Sequence[int], seconds: float) -> list[tuple[int, Outcome]]:
        ticket = self.jobs[jobs[0]][0]
        return [(jobs[0], self.before(ticket, jobs[0]) or work(ticket))]

    def stop(self, jobs: Sequence[int], work: Work) -> None:
        self.stopped = list(jobs)


# The driver --------------------------------------------------------------------------------------


def test_a_cluster_gives_what_this_process_gives(make: Make) -> None:
    study, folder = make()
    engine, progress = Inline(), Recorder()
    assert run_study(study, folder, engine=engine, progress=progress) == {"finished": 2}
    assert len(progress.saying("finished on")) == 2
    alone, place = make(output="alone")
    run_study(alone, place)
    assert scores(study, folder) == scores(alone, place)
    assert None not in scores(study, folder)
    run_study(study, folder, engine=engine)
    assert len(engine.jobs) == 2  # nothing was left to hand out
    run_study(study, folder, engine=engine, again=True)
    assert [ticket.again for ticket, _ in engine.jobs] == [False, False, True, True]


def test_a_run_whose_worker_died_is_tried_again(make: Make) -> None:
    def dies(ticket: Ticket, number: int) -> Outcome | None:
        return Outcome("died", "far", "a worker died") if number in (0, 2) else None

    study, folder = make()
    engine, progress = Inline(dies), Recorder()
    assert run_study(study, folder, engine=engine, progress=progress) == {"finished": 2}
    assert [ticket.key for ticket, _ in engine.jobs].count(study.runs[0].key) == 3
    assert progress.saying("a worker died: trying again (2 of 2)")

    def always(ticket: Ticket, number: int) -> Outcome | None:
        return Outcome("died", "far", "out of memory") if ticket.key == hopeless else None

    study, folder = make(output="hopeless")
    hopeless = study.runs[1].key
    assert run_study(study, folder, engine=Inline(always)) == {"finished": 1, "failed": 1}
    assert folder.error(hopeless) == "out of memory; 3 times in all"
    assert run_study(study, folder, engine=Inline(), retry_failed=True) == {"finished": 2}


def test_a_worker_that_died_after_its_work_has_done_it(make: Make) -> None:
    def late(ticket: Ticket, number: int) -> Outcome:
        work(ticket)
        return Outcome("died", "far", "a worker died")

    study, folder = make()
    engine = Inline(late)
    assert run_study(study, folder, engine=engine) == {"finished": 2}
    assert len(engine.jobs) == 2


def test_a_run_that_fails_does_not_stop_the_others(make: Make) -> None:
    study, folder = make({"method.name": ["lora"], "train.learning_rate": [1e25, 1e-3]})
    progress = Recorder()
    found = run_study(study, folder, engine=Inline(), progress=progress)
    assert found == {"failed": 1, "finished": 1}
    assert progress.saying("failed on ")
    assert progress.saying("training stopped at step")


def test_a_run_that_another_process_holds_is_taken_over_or_left(make: Make) -> None:
    study, folder = make()
    prepared = prepare(study.runs[0].config, Silent())
    prepared.folder.path.parent.mkdir(parents=True)
    lock = FileLock(prepared.folder.lock)
    lock.acquire()
    progress = Recorder()
    engine = Inline(patience=0.2)
    assert run_study(study, folder, engine=engine, progress=progress) == {
        "running": 1,
        "finished": 1,
    }
    assert progress.saying("another process is working on it")
    assert progress.saying("1 runs are left to other processes")

    engine, progress = Inline(patience=60), Recorder()
    real = folder.state
    looks = []

    def state(key: str) -> Any:
        looks.append(key)
        if len(looks) == 4:  # once as held, then the other process ends
            lock.release()
        return real(key)

    folder.state = state  # type: ignore[method-assign]
    assert run_study(study, folder, engine=engine, progress=progress) == {"finished": 2}
    assert progress.saying("continuing what another process left")
    assert len(engine.jobs) == 1


@pytest.mark.parametrize(("kind", "error"), [("stop", RunError), ("full", Unwritable)])
def test_what_no_run_could_get_past_stops_the_study(
    make: Make, kind: Any, error: type[Exception]
) -> None:
    study, folder = make()
    engine = Inline(lambda ticket, number: Outcome(kind, "far", "far has no room"))
    with pytest.raises(error, match="far has no room"):
        run_study(study, folder, engine=engine)
    assert engine.stopped == [1]  # the other run is taken back
    assert {folder.state(run.key) for run in study.runs} == {"missing"}  # and neither has failed


def test_ctrl_c_takes_back_what_was_handed_out(make: Make) -> None:
    def interrupt(ticket: Ticket, number: int) -> Outcome:
        raise KeyboardInterrupt

    study, folder = make()
    engine = Inline(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, folder, engine=engine)
    assert engine.stopped == [0, 1]


# Workers -----------------------------------------------------------------------------------------


@pytest.fixture
def ticket(make: Make) -> Ticket:
    study, folder = make()
    return write_ticket(study.runs[0], folder, again=False)


def test_a_ticket_is_plain_values_and_says_what_the_driver_sees(
    ticket: Ticket, tiny_folder: Path, sib_folder: Path
) -> None:
    assert json.loads(json.dumps(asdict(ticket))) == asdict(ticket)
    assert ticket.paths == {"task.data": str(sib_folder), "model.name": str(tiny_folder)}
    assert ticket.cwd is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"folder": "/nowhere/study"}, "does not see the study's folder '/nowhere/study' of"),
        ({"mark": "another"}, "does not see the study's folder"),
        ({"version": "0.0.1"}, "has 0.0.1: install the same version"),
        ({"cwd": "/nowhere"}, "has no folder '/nowhere', where"),
        ({"paths": {"task.data": "/nowhere/sib"}}, r"not have '/nowhere/sib' \(key 'task.data'\)"),
    ],
)
def test_a_worker_says_what_its_machine_lacks(
    ticket: Ticket, change: dict[str, Any], text: str
) -> None:
    outcome = work(replace(ticket, **change))
    assert outcome.kind == "stop"
    assert re.search(text, outcome.text)
    assert StudyFolder(Path(ticket.folder)).state(ticket.key) == "missing"


def test_relative_paths_are_the_drivers(
    values: dict[str, Any], tmp_path: Path, sib_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "sib").symlink_to(sib_folder)
    values["base"]["task"]["data"] = "sib"
    monkeypatch.chdir(here)
    study, folder = maker(values, Path("out"))({"method.name": ["none"]})
    ticket = write_ticket(study.runs[0], folder, again=False)
    monkeypatch.chdir(there)
    assert work(ticket).kind == "over"
    assert Path.cwd() == there
    assert StudyFolder(here / "out" / "study").state(ticket.key) == "finished"
    assert not list(there.iterdir())


# What runs ask for -------------------------------------------------------------------------------


def asking(make: Make, device: str, auto_gpus: bool = False, **config: Any) -> Needs:
    study, folder = make()
    (run, *_) = study.runs
    runtime = run.config.runtime.model_copy(update={"device": device})
    run = replace(run, config=run.config.model_copy(update={"runtime": runtime}))
    for kind, memory in (("cpu", 2**30), ("cuda", 2**35)):
        numbers = {"parameters": 1, "train_examples": 80, "step": 2.0, "dev": 0.0, "test": 4.0}
        folder.write_probe(probe_key(run.config, kind), numbers | {"memory": memory})
    return needs_of(run, folder, NeedsConfig.read(config), auto_gpus=auto_gpus)


def test_what_a_run_asks_for(make: Make) -> None:
    assert asking(make, "cpu") == Needs(1, 0, 5 * 2**28, 10)  # 3 steps of 2 s, 4 s of tests
    assert asking(make, "auto") == asking(make, "cpu")
    # What a probe says of a GPU's memory is nothing to ask a node's memory by.
    assert asking(make, "cuda") == Needs(1, 1, None, 10)
    assert asking(make, "auto", auto_gpus=True) == asking(make, "cuda")
    assert asking(make, "cuda:0", gpus="0.5", cpus="4") == Needs(4, 0.5, None, 10)
    assert asking(make, "cuda", memory="3GiB").memory == 3 * 2**30
    study, folder = make(output="without")
    assert needs_of(study.runs[0], folder, NeedsConfig()) == Needs(1, 0, None, None)


@pytest.mark.parametrize(
    ("device", "config", "text"),
    [
        ("cuda:1", {}, "'cuda:1' is a GPU of one machine.*runtime.device=cuda"),
        ("cuda", {"gpus": "0"}, "gpus=0.*needs one"),
        ("cpu", {"gpus": "2"}, "gpus=2 has no effect: key 'runtime.device' is 'cpu'"),
    ],
)
def test_devices_and_gpus_that_do_not_go_together(
    make: Make, device: str, config: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        asking(make, device, **config)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("240", 240), ("4:00:00", 240), ("30:30", 31), ("1-12", 2160), ("1-00:00:01", 1441)],
)
def test_times_are_slurms(text: str, minutes: int) -> None:
    assert SlurmConfig.read({"time": text}).time == minutes


# Settings and mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("rai", [], r"--on: unknown engine 'rai'. Did you mean 'ray'\? Known: .*local, ray, slurm"),
        ("local", ["gpus=1"], "'gpus=1' has no effect: engine 'local' has no keys"),
        ("ray", ["gpus"], "'gpus': expected key=value"),
        ("ray", ["adress=x:1"], "unknown key 'adress'. Did you mean 'address'"),
        ("ray", ["memory=lots"], "--engine-set of ray: key 'memory'"),
        ("slurm", ["partion=gpu"], "Did you mean 'partition'"),
        ("slurm", ["time=soon"], "a time as SLURM writes it: 240, 4:00:00"),
        ("slurm", ["cluster=moon"], "key 'cluster': .*'slurm' or 'local'"),
    ],
)
def test_settings_that_cannot_be(name: str, settings: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_engine(name, settings)


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_extra_that_is_not_installed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    place = ["--scale", "nano", "--output", str(tmp_path / "out")]
    code, _, err = cli("study", "run", "less-is-more/lengths", *place, "--on", name)
    assert code == 2
    assert f"pip install 'polyprefix[{name}]'" in err
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="pip install 'polyprefix[ray]'; make test-clusters does")
    study, folder = make()
    with pytest.raises(ConfigError, match="expected HOST:PORT, 'auto' or 'local'"):
        run_study(study, folder, engine=make_engine("ray", ["address=head"]))
    began = time.monotonic()
    with pytest.raises(RunError, match=r"no Ray cluster at '127.0.0.1:9'.*ray start --head"):
        run_study(study, folder, engine=make_engine("ray", ["address=127.0.0.1:9"]))
    assert time.monotonic() - began < 60  # Ray itself asks for minutes
    assert {folder.state(run.key) for run in study.runs} == {"missing"}


# SLURM without SLURM -----------------------------------------------------------------------------


@pytest.fixture
def submitted(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What sbatch is given; the one here writes it down and says that it is job 7."""
    pytest.importorskip("submitit", reason="pip install 'polyprefix[slurm]'")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"sbatch": f"cp $1 {tmp_path}/job.sh; echo job 7", "srun": ""}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")

    def submit(*settings: str, runs: int = 2) -> str:
        study, folder = make()
        engine = make_engine("slurm", settings)
        assert isinstance(engine, ClusterEngine)
        doing = Work(study.runs, folder, False, None, Silent())  # type: ignore[arg-type]
        engine.connect(doing)
        given: list[tuple[StudyRun, Needs]] = [
            (run, needs_of(run, folder, engine.config)) for run in study.runs[:runs]
        ]
        jobs = engine.submit(
            [(write_ticket(run, folder, again=False), needs) for run, needs in given], doing
        )
        assert [folder.job(run.key) for run, _ in given] == [
            {"cluster": "slurm", "job": job.job_id} for job in jobs
        ]
        return (tmp_path / "job.sh").read_text()

    return submit


def test_what_sbatch_is_told(submitted: Callable[..., str]) -> None:
    script = submitted(
        *["time=4:00:00", "partition=gpu", "cpus=4", "memory=12GiB", "parallel=1"],
        *["setup=module load cuda", "sbatch.mail-type=END"],
    )
    lines = script.splitlines()
    for option in (
        *["time=240", "partition=gpu", "cpus-per-task=4", "mem=12GB", "mail-type=END"],
        "array=0-1%1",
    ):
        assert f"#SBATCH --{option}" in lines
    assert "gpus-per-node" not in script
    assert "module load cuda" in lines
    assert "array" not in submitted("time=5", runs=1).partition("# command")[0].replace("%A", "")


def test_how_long_a_job_takes_must_be_known(submitted: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"how long.*--engine-set time=4:00:00.*--estimates"):
        submitted()
    with pytest.raises(ConfigError, match=r"cpus=0\.5: SLURM gives whole ones only"):
        submitted("time=5", "cpus=0.5")


def test_slurm_is_not_here(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="pip install 'polyprefix[slurm]'")
    monkeypatch.setenv("PATH", "/nowhere")
    study, folder = make()
    with pytest.raises(RunError, match=r"cannot submit to SLURM: .*cluster=local"):
        run_study(study, folder, engine=make_engine("slurm", ["time=5"]))


# Another package's -------------------------------------------------------------------------------

TOY = """
from polyprefix.study.engines import LocalEngine, register_engine

class Shouting(LocalEngine):
    name = "shouting"
    title = "this process, aloud"
    def execute(self, work):
        work.progress.say(f"LOOK: {len(work.runs)} RUNS")
        super().execute(work)
"""


def test_an_engine_outside_the_package_is_found_by_its_entry_point(
    values: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "toy_engine.py").write_text(TOY)
    info = tmp_path / "toy_engine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-engine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[polyprefix.engines]\nshouting = toy_engine:Shouting\n")
    values["grid"] = {"method.name": ["none"]}
    (tmp_path / "trial.yaml").write_text(json.dumps(values))
    arguments = ["study", "run", str(tmp_path / "trial.yaml"), "--on", "shouting", "--output"]
    done = subprocess.run(
        [sys.executable, "-m", "polyprefix", *arguments, str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "LOOK: 1 RUNS" in done.stderr
    assert "1 finished" in done.stdout


def test_engines_are_listed(cli: Cli) -> None:
    code, out, _ = cli("list", "engines")
    assert code == 0
    for name in engines():
        assert name in out
    assert "partition" in out
