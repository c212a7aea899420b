"""A real SLURM of one node, for tests of jobs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ranks import free_port

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def run_as_root(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextmanager
def running_slurm(variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment of SLURM's commands: this one, these variables, and where the SLURM is."""
    missing = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge ({', '.join(missing)})")
    # Not pytest's folder: munge wants a short path of a socket, and that others may enter it.
    folder = Path(tempfile.mkdtemp(prefix="sri-slurm-"))
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf, host = folder / "slurm.conf", socket.gethostname().partition(".")[0]
    ports = (free_port(), free_port())
    conf.write_text(SLURM_CONF.format(folder=folder, host=host, ports=ports, cores=os.cpu_count()))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | dict(variables) | {"SLURM_CONF": str(conf), "PATH": path}
    files = {name: f"{folder}/munge.{name}" for name in ("socket", "key")}
    files |= {f"{name}-file": f"{folder}/munged.{name}" for name in ("pid", "log", "seed")}
    files["key-file"] = files.pop("key")
    try:
        run_as_root("mungekey", "--create", f"--keyfile={files['key-file']}")
        run_as_root("munged", "--force", *(f"--{name}={value}" for name, value in files.items()))
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon], check=True, env=environment, capture_output=True)
        yield environment
    finally:
        for daemon in ("slurmd", "slurmctld", "munged"):
            if (folder / f"{daemon}.pid").exists():
                os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)
        time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)
