"""Studies on real engines: a Ray cluster of two nodes on this machine, submitit's own jobs.

``make test-clusters`` installs what they need and runs them. A cluster is started once for all
tests; a test that kills a node starts it for itself.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from polyprefix.config import RunError, Study
from polyprefix.results import StudyFolder
from polyprefix.study import make_engine, run_study
from polyprefix.training import read_log
from tests.conftest import ROOT
from tests.trial_study import Make, Recorder, maker, scores, trial_values

pytestmark = pytest.mark.slow

STEPS = 150
"""Of a run that is to be caught in the middle."""


@pytest.fixture
def values(tiny_folder: Path, sib_folder: Path) -> dict[str, Any]:
    values = trial_values(tiny_folder, sib_folder)
    values["base"]["runtime"] = {"device": "cpu"}
    return values | {"grid": {"method.name": ["lora", "prefix_tuning"], "seed": [0, 1]}}


@pytest.fixture
def make(values: dict[str, Any], tmp_path: Path) -> Make:
    def study(output: str = "study", **base: Any) -> tuple[Study, StudyFolder]:
        return maker(values, tmp_path)(output=output, base=values["base"] | base)

    return study


def same_as_local(study: Study, folder: StudyFolder, make: Make, **base: Any) -> None:
    """Every run has the scores that it has here, and its steps once."""
    alone, place = make(output="alone", **base)
    assert run_study(alone, place) == {"finished": len(alone.runs)}
    assert scores(study, folder) == scores(alone, place)
    assert None not in scores(study, folder)
    names = [
        sorted(path.parent.name for path in at.path.glob("*/log.jsonl")) for at in (folder, place)
    ]
    assert len(names[0]) == len(study.runs)
    assert names[0] == names[1]
    for name in names[0]:
        ours, theirs = (
            [json.loads(line) for line in (at.path / name / "log.jsonl").open()]
            for at in (folder, place)
        )
        assert [line.get("loss") for line in ours] == [line.get("loss") for line in theirs]


# Ray ---------------------------------------------------------------------------------------------


def free_port() -> int:
    """Below those that the system hands out to whoever asks next."""
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Cluster:
    """Nodes of Ray on this machine: a head without CPUs, and workers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        self.nodes: list[psutil.Process] = []
        self._start("--head", "--port", self.address.partition(":")[2], "--num-cpus", "0")

    def _start(self, *options: str) -> psutil.Process:
        before = {process.pid for process in raylets()}
        head = ["--temp-dir", str(self.folder), "--include-dashboard=false"]
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ray")),
                "start",
                *options,
                *(head if "--head" in options else []),
                "--object-store-memory=80000000",
                "--disable-usage-stats",
            ],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (new,) = [process for process in raylets() if process.pid not in before]
        self.nodes.append(new)
        return new

    def add(self) -> psutil.Process:
        return self._start("--address", self.address, "--num-cpus", "1")

    def stop(self) -> None:
        """End what was started here, and nothing else."""
        ours = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
        ]
        for process in [*self.nodes, *ours]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def raylets() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Of two nodes that work; a short path, as sockets must have."""
    pytest.importorskip("ray", reason="pip install 'polyprefix[ray]'; make test-clusters does")
    # Unset, it depends on whether an earlier local cluster has left a token in the home folder:
    # then a head asks for it and a node that joins does not send it.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        started = Cluster(Path(folder))
        try:
            started.add()
            started.add()
            yield started
        finally:
            started.stop()


def ray_engine(cluster: Cluster, *settings: str) -> Any:
    return make_engine("ray", [f"address={cluster.address}", "patience=60", *settings])


def test_ray_gives_what_local_gives_and_errors_say_what_is_wrong(
    cluster: Cluster, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = make()
    progress = Recorder()
    assert run_study(study, folder, engine=ray_engine(cluster), progress=progress) == {
        "finished": 4
    }
    assert len(progress.saying("finished on")) == 4
    assert progress.saying("ray: 4 runs, each asking for 1 CPU, 0 GPU")
    same_as_local(study, folder, make)
    again = Recorder()
    assert run_study(study, folder, engine=ray_engine(cluster), progress=again) == {"finished": 4}
    assert not again.lines  # nothing to do: no cluster is asked

    # A run that fails is written down, the others go on; no run gets what no node has.
    broken, beside = make(output="broken", train={"steps": 3, "learning_rate": 1e25})
    progress = Recorder()
    engine = ray_engine(cluster, "memory=1MiB")
    assert run_study(broken, beside, engine=engine, progress=progress) == {"failed": 4}
    assert len(progress.saying("training stopped at step")) == 4

    # A worker that does not see the folder: another one stands under its path.
    hidden, place = make(output="hidden")
    place.path.mkdir()
    monkeypatch.setattr(StudyFolder, "mark", lambda self: "another")
    with pytest.raises(RunError, match=r"does not see the study's folder .*hidden"):
        run_study(hidden, place, engine=ray_engine(cluster))
    assert {place.state(run.key) for run in hidden.runs} == {"missing"}


def wait_for(what: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def training(folder: StudyFolder) -> list[Path]:
    """Checkpoints there are: runs that are in the middle."""
    return list(folder.path.glob("*/checkpoints/[0-9]*"))


LONG = {"train": {"steps": STEPS, "batch_size": 8, "evaluate_every": 10}}


def test_a_node_is_killed_and_the_study_ends_all_the_same(cluster: Cluster, make: Make) -> None:
    study, folder = make(**LONG)
    killed = []

    def kill() -> None:
        """A node that is at a run: its raylet and, as where power fails, its workers."""
        wait_for(lambda: training(folder))
        busy = next(
            (node, workers)
            for node in cluster.nodes[1:]
            if (workers := [p for p in node.children() if "ray::" in " ".join(p.cmdline())])
        )
        for process in (busy[0], *busy[1]):
            process.kill()
        killed.append(busy)

    thread = threading.Thread(target=kill)
    thread.start()
    progress = Recorder()
    found = run_study(study, folder, engine=ray_engine(cluster), progress=progress)
    thread.join()
    assert killed
    assert found == {"finished": 4}
    assert progress.saying("trying again (1 of 2)")
    assert len(progress.saying("finished on")) == 4
    same_as_local(study, folder, make, **LONG)


def drive(values: dict[str, Any], folder: Path, *options: str) -> subprocess.Popen[bytes]:
    path = folder / "trial.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    arguments = ["study", "run", str(path), "--output", str(folder / "study"), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "polyprefix", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_was_stopped_is_started_again(
    cluster: Cluster, make: Make, values: dict[str, Any], tmp_path: Path, how: signal.Signals
) -> None:
    values["base"] |= LONG
    study, folder = make()
    on = ["--on", "ray", "--engine-set", f"address={cluster.address}"]
    driver = drive(values, tmp_path, *on)
    wait_for(lambda: training(folder) or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()
    driver.send_signal(how)
    said = driver.communicate(timeout=240)[0].decode()
    if how == signal.SIGINT:
        assert driver.returncode == 130
        assert "each writes a checkpoint" in said
        assert "the same command goes on from here" in said
        states = [folder.state(run.key) for run in study.runs]
        assert "running" not in states
        assert "stopped" in states
        found = training(folder)
        assert found
        for path in found:  # of the step at which it was stopped
            assert int(path.name) == read_log(path.parents[1])[-1]["step"]
    second = drive(values, tmp_path, *on)
    said = second.communicate(timeout=400)[0].decode()
    assert second.returncode == 0, said
    assert "4 finished" in said
    same_as_local(study, folder, make)


# SLURM -------------------------------------------------------------------------------------------


Slurm = Callable[..., Any]


@pytest.fixture
def slurm() -> Slurm:
    pytest.importorskip("submitit", reason="pip install 'polyprefix[slurm]'")
    return lambda *settings: make_engine("slurm", ["time=30", "patience=60", *settings])


real = pytest.mark.skipif(shutil.which("sbatch") is None, reason="no SLURM on this machine")


@pytest.mark.parametrize("where", ["local", pytest.param("slurm", marks=real)])
def test_submitit_gives_what_local_gives(slurm: Slurm, make: Make, where: str) -> None:
    study, folder = make()
    progress = Recorder()
    engine = slurm(f"cluster={where}")
    assert run_study(study, folder, engine=engine, progress=progress) == {"finished": 4}
    assert len(progress.saying("finished on")) == 4
    assert len(list((folder.path / "study" / "slurm").glob("*/*_log.out"))) == 4
    same_as_local(study, folder, make)


@real
def test_jobs_outlive_the_driver(
    make: Make, values: dict[str, Any], tmp_path: Path, slurm: Slurm
) -> None:
    values["base"] |= LONG
    study, folder = make()
    on = ["--on", "slurm", "--engine-set", "time=30"]
    driver = drive(values, tmp_path, *on)
    wait_for(lambda: training(folder) or driver.poll() is not None)
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=240)[0].decode()
    assert driver.returncode == 130, said
    assert "To cancel them: scancel " in said
    jobs = {run.key: folder.job(run.key) for run in study.runs}
    progress = Recorder()
    assert run_study(study, folder, engine=slurm(), progress=progress) == {"finished": 4}
    assert progress.saying("were handed out before")
    assert jobs == {run.key: folder.job(run.key) for run in study.runs}  # none was submitted twice
    same_as_local(study, folder, make)


def test_a_job_whose_time_is_up_goes_on(slurm: Slurm, make: Make) -> None:
    """submitit is told, as SLURM tells it, that the time is up; and one job is killed."""
    study, folder = make(**LONG)
    engine = slurm("cluster=local")
    submitted: list[Any] = []
    submit = engine.submit

    def noted(*arguments: Any) -> Any:
        jobs = submit(*arguments)
        submitted.extend(jobs)
        return jobs

    engine.submit = noted

    def disturb() -> None:
        wait_for(lambda: len(training(folder)) > 1)
        first, second = submitted[:2]
        psutil.Process(first._process.pid).children()[0].send_signal(signal.SIGUSR2)
        psutil.Process(second._process.pid).children()[0].kill()

    thread = threading.Thread(target=disturb)
    thread.start()
    progress = Recorder()
    assert run_study(study, folder, engine=engine, progress=progress) == {"finished": 4}
    thread.join()
    assert "Requeued" in (submitted[0].stderr() or "") + (submitted[0].stdout() or "")
    assert len(progress.saying("trying again (1 of 2)")) == 1
    assert len(submitted) == 5
    assert len(progress.saying("finished on")) == 4
    same_as_local(study, folder, make, **LONG)
