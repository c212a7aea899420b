"""Studies whose runs are jobs: parameters, and real queues, this machine's and SLURM's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.run import Workspace, checkpoints_in
from sri_cli.studies.job import RunJob
from sri_cli.studies.plan import plan_study
from sri_cli.studies.protocol import StudyRun, read_study
from sri_cli.studies.queues import Local, job_name, minutes_of, open_queue
from sri_cli.training.log import read_log
from sri_cli.training.trainer import train
from tests import small_cli
from tests.small_cli import ENVIRONMENT, finish, processes_of, sri, wait_until
from tests.small_data import write_small_data
from tests.small_slurm import running_slurm

pytest.importorskip("submitit")
STUDY: dict[str, Any] = {
    "name": "jobs",
    "data": {"name": "demo-towers", "size": 32},
    "overrides": [
        *("size=tiny", "model.slots=3", "model.slot_size=8", "train.precision=fp32"),
        *("train.log_every=1", "train.checkpoint_every=1000000"),
    ],
    "steps": 12,
    "batch": 4,
    "seeds": [0, 1],
    "systems": {"genesis-v2-mog": {}},
    "metrics": {"elbo": 4},
}
RUNS = ["genesis-v2-mog-seed-0", "genesis-v2-mog-seed-1"]
study = partial(sri, "study", "jobs.yaml")


@pytest.fixture
def folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data."""
    write_small_data(here / "data" / "demo-towers-32.h5")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return here


def write(folder: Path, **changes: Any) -> list[StudyRun]:
    (folder / "jobs.yaml").write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return read_study(Workspace(Path("data"), Path("runs")), "jobs.yaml").runs()


def start(environment: Mapping[str, str], *more: str) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return small_cli.start("study", "jobs.yaml", *more, env=dict(environment))


def output_of(name: str) -> str:
    """What all jobs of a run wrote."""
    return "".join(path.read_text() for path in Path("runs/study-jobs", name).glob("job/*.out"))


def weights(root: str, name: str) -> bytes:
    newest = checkpoints_in(Path(root, "study-jobs", name))[-1]
    return (newest / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("4:00:00", 240), ("1:30", 1.5), ("2-0", 2880), ("1-1:30", 1530)]
    + [("0-0:0:30", 0.5), ("1-2:3:30", 1563.5)],
)
def test_time_limits_are_those_of_sbatch(text: str, minutes: float) -> None:
    assert minutes_of(text) == minutes


def test_without_slurm_or_with_unbalanced_parameters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    monkeypatch.setenv("PATH", str(folder))
    for parameters, named in (("", "sbatch"), ("partition='gpu", "SRI_SLURM")):
        monkeypatch.setenv("SRI_SLURM", parameters)
        assert named in study("--executor", "slurm", code=2).stderr
    assert not Path("runs").exists()


def test_parameters_and_the_plan_of_jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = write(folder)
    parameters = open_queue("local", ["time=1:00:00", "time=30"]).parameters
    assert parameters == {"time": 30, "signal_delay_s": 120}
    assert open_queue("local", ["time=2"]).parameters["signal_delay_s"] == 30
    for unknown in ("gpus=1", "gpus_per_node=1", "setup=module load cuda"):
        with pytest.raises(SriError, match=unknown.partition("=")[0]):
            open_queue("local", [unknown])
    monkeypatch.setenv("SRI_SLURM", "partition=gpu account=mine")  # of SLURM alone
    assert study("--executor", "local", "--dry-run").exit_code == 0
    plan = plan_study(Workspace(Path("data"), Path("runs")), "jobs.yaml", measure=False)
    assert plan["queue"] is None
    plan = plan_study(
        Workspace(Path("data"), Path("runs")), "jobs.yaml", measure=False, queue=Local({})
    )
    assert list(plan["queue"]["runs"]) == RUNS
    cluster = type("Cluster", (Local,), {"name": "slurm"})({})  # all at once: not on this machine
    for threads, how in {None: "2 at a time", "3": "2 at a time, 3 threads each"}.items():
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if threads is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        plan = plan_study(Workspace(Path("data"), Path("runs")), "jobs.yaml", queue=cluster)
        assert (plan["jobs"], plan["slots"]) == (2, how)
    assert not Path("runs").exists()
    names = {job_name(run) for run in runs}
    os.chdir("..")  # other runs of the same name
    assert len(names | {job_name(run) for run in runs}) == 4


def test_a_job_that_is_preempted_before_it_began_is_requeued(tmp_path: Path) -> None:
    assert RunJob(tmp_path, [], {}).checkpoint() is not None


@pytest.mark.slow
def test_local_jobs_outlive_the_command_and_one_that_dies_stops_no_other(folder: Path) -> None:
    write(folder, steps=900)
    environment = os.environ | ENVIRONMENT
    local = ("--executor", "local", "--jobs", "2", "--slurm", "time=0:30")
    first = start(environment, *local, "--slurm", "signal_delay_s=15")
    began = [Path("runs/study-jobs", name, "log.jsonl") for name in RUNS]
    wait_until(lambda: all(path.exists() for path in began), first)
    first.send_signal(signal.SIGINT)
    message = finish(first, 75, 850)[1].splitlines()[-1]
    assert "--cancel" in message and all(map(processes_of, RUNS))
    (number,) = processes_of(RUNS[1])
    os.kill(number, signal.SIGKILL)  # as the kernel does without memory
    second = start(environment, *local)
    wait_until(lambda: set(processes_of(RUNS[1])) - {number}, second)
    (number,) = processes_of(RUNS[1])
    os.kill(number, signal.SIGKILL)
    errors = finish(second, 1, 850)[1]
    assert errors.count("SIGKILL; see ") > 1 and f"{RUNS[1]}/job/" in errors.splitlines()[-2]
    assert "Requeued job" in output_of(RUNS[0])  # its time limit struck
    third = study(*local, code=0)
    for name in RUNS:
        records = read_log(Path("runs/study-jobs", name))
        assert [record["step"] for record in records] == list(range(1, 901))
    assert "2/2" in third.stdout and "submitted" not in study(*local).stderr
    cancelled = study("--executor", "local", "--cancel")
    assert (cancelled.exit_code, cancelled.stdout.strip()) == (0, "")


@pytest.fixture
def slurm() -> Iterator[dict[str, str]]:
    with running_slurm(ENVIRONMENT) as environment:
        yield environment


@pytest.mark.slow
def test_slurm_jobs_are_requeued_at_their_limit_and_give_the_same_weights(
    folder: Path, slurm: dict[str, str]
) -> None:
    (run, _) = write(folder, steps=200)
    timed = train(run.recipe, DataFile("data/demo-towers-32.h5"), Path("timed"))
    # So many that they do not fit into one time limit, whose signal comes after 50 s at the latest.
    steps = round(60 * 200 / timed.seconds)
    runs = write(folder, steps=steps)
    names = [job_name(run) for run in runs]

    def jobs() -> list[str]:
        listed = ["squeue", "--noheader", "--states=all", "--format=%i %j"]
        done = subprocess.run(listed, env=slurm, capture_output=True, text=True, check=True)
        lines = [line.split() for line in done.stdout.splitlines()]
        return [number for number, name in lines if name in names]

    words = ("--executor", "slurm", "--slurm", "time=1", "--slurm", "signal_delay_s=10")
    words += ("--slurm", "cpus_per_task=1")
    shown = start(slurm, *words, "--dry-run").communicate()[0]
    assert "to be submitted" in shown and "#SBATCH --time=1" in shown and not jobs()
    finish(start(slurm, *words), limit_sec=850)
    assert len(jobs()) == 2  # both runs were submitted once
    for name in RUNS:
        assert "Requeued job" in output_of(name) and "resuming" in output_of(name)
        records = read_log(Path("runs/study-jobs", name))
        assert [record["step"] for record in records] == list(range(1, steps + 1))
    small_cli.sri("--runs-root", "whole", "study", "jobs.yaml", "--jobs", "2", code=0)
    for name in RUNS:
        assert weights("runs", name) == weights("whole", name)
