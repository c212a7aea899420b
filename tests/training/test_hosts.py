"""A job on two hosts, and a job of SLURM: real ones, on this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sri_cli.data.dataset import DataFile
from sri_cli.training.log import read_log
from sri_cli.training.trainer import train
from tests import small_cli
from tests.ranks import free_port
from tests.small_data import write_small_data
from tests.small_slurm import run_as_root, running_slurm
from tests.training.test_launch import small_recipe, wait_for_step

pytestmark = pytest.mark.slow

STEPS = 40
RECIPE = small_recipe(steps=STEPS)
# As in training/README.md: restarted processes must not reuse old addresses.
ENVIRONMENT = small_cli.ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_small_data(tmp_path / "towers-32.h5")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable, with the names of two hosts."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"sri-{os.getpid()}-{letter}" for letter in "ab"]
    folders = [Path("/etc/netns") / name for name in names]
    try:
        try:
            for name in names:
                run_as_root("ip", "netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        a, b = names
        ends = ["netns", a, "type", "veth", "peer", "name", "cable", "netns", b]
        run_as_root("ip", "link", "add", "cable", *ends)
        table = "127.0.0.1 localhost\n10.99.0.1 host-a\n10.99.0.2 host-b\n"
        for number, (name, folder) in enumerate(zip(names, folders, strict=True), 1):
            run_as_root("ip", "-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", "cable")
            for device in ("cable", "lo"):
                run_as_root("ip", "-n", name, "link", "set", device, "up")
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(table)  # its /etc/hosts
        yield names
    finally:
        for name, folder in zip(names, folders, strict=True):
            kill_host(name)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


def kill_host(name: str) -> None:
    """Every process of a namespace, at once."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
    for pid in pids.split():
        os.kill(int(pid), signal.SIGKILL)


def start_on(host: str, name: str, words: list[str], log: Path) -> subprocess.Popen[str]:
    """torchrun on one of two hosts, as in training/README.md, with one CPU process each."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d"]
    torchrun += ["--rdzv-id", "job", "--rdzv-endpoint", "host-a:29500", "-m", "--", *words]
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', host, *torchrun]
    with log.open("ab") as output:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *named],
            env=os.environ | ENVIRONMENT,
            stdout=output,
            stderr=output,
            text=True,
        )


def test_two_hosts_train_as_one_process_and_survive_the_loss_of_one(
    tmp_path: Path, data: Path, hosts: list[str]
) -> None:
    train(RECIPE, DataFile(data), tmp_path / "one")
    run, recipe = tmp_path / "two", tmp_path / "small.yaml"
    recipe.write_text(RECIPE.model_dump_json())
    words = ["sri_cli", "train", "--gpus", "0", "--recipe", str(recipe), "--data", str(data)]
    words += ["--run", str(run)]
    logs = [tmp_path / "a.txt", tmp_path / "b.txt"]
    a = start_on("host-a", hosts[0], words, logs[0])
    b = start_on("host-b", hosts[1], words, logs[1])
    try:
        wait_for_step(run, 4, a)
    except AssertionError as error:
        raise AssertionError(text_of(logs)) from error
    kill_host(hosts[1])
    assert b.wait(timeout=60) != 0
    assert read_log(run)[-1]["step"] < STEPS, "the kill came too late"
    b = start_on("host-b", hosts[1], words, logs[1])
    assert a.wait(timeout=300) == 0 and b.wait(timeout=60) == 0, text_of(logs)
    assert "2 processes on cpu" in text_of(logs) and "resuming" in text_of(logs)
    together, alone = read_log(run), read_log(tmp_path / "one")
    assert [record["step"] for record in together] == list(range(1, STEPS + 1))
    losses = [record["loss"] for record in alone]
    assert [record["loss"] for record in together] == pytest.approx(losses, rel=1e-3)


def text_of(logs: list[Path]) -> str:
    return "\n".join(log.read_text() for log in logs if log.exists())


@pytest.fixture
def slurm() -> Iterator[dict[str, str]]:
    with running_slurm(ENVIRONMENT) as environment:
        yield environment


def test_a_slurm_job_is_stopped_by_its_time_limit_requeued_and_finished(
    tmp_path: Path, data: Path, slurm: dict[str, str]
) -> None:
    """The script of training/README.md, with CPU processes and a limit of one minute."""
    short = small_recipe(steps=6, checkpoint_every=100)
    record = train(short, DataFile(data), tmp_path / "timed").record
    # So many that they do not fit into one time limit, which leaves at most 30 s.
    steps = round(40 * record["images_per_second"] / short.train.batch)
    recipe, run = tmp_path / "small.yaml", tmp_path / "run"
    recipe.write_text(small_recipe(steps=steps, checkpoint_every=100).model_dump_json())
    readme = (small_cli.ROOT / "sri_cli" / "training" / "README.md").read_text()
    script = re.findall(r"```\n(#!/bin/bash\n#SBATCH.*?)```", readme, re.DOTALL)[0]
    words = f"train --gpus 0 --recipe {recipe} --data {data} --run {run}"
    for ours, here in (
        (r"--nproc-per-node \d+", "--nproc-per-node 2"),
        (r":29500", f":{free_port()}"),
        (r"train --recipe [^&\n]*", f"{words} "),
    ):
        script, count = re.subn(ours, here, script)
        assert count == 1, ours
    (tmp_path / "job.sh").write_text(script)
    limits = ["--nodes=1", "--gpus-per-node=0", "--time=1", "--signal=B:USR1@30"]
    options = ["--parsable", f"--output={tmp_path}/out.txt", *limits]
    submitted = ["sbatch", *options, str(tmp_path / "job.sh")]
    done = subprocess.run(submitted, env=slurm, cwd=small_cli.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    states, began = {}, time.monotonic()
    while time.monotonic() - began < 900:
        show = ["scontrol", "--oneliner", "show", "job", done.stdout.strip()]
        shown = subprocess.run(show, env=slurm, capture_output=True, text=True).stdout
        states = dict(word.split("=", 1) for word in shown.split() if "=" in word)
        if states["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
            break
        time.sleep(1)
    output = (tmp_path / "out.txt").read_text()
    assert states["JobState"] == "COMPLETED", output
    assert int(states["Restarts"]) >= 1 and "resuming" in output, output
    assert [record["step"] for record in read_log(run)] == list(range(1, steps + 1))
