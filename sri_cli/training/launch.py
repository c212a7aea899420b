"""Several GPUs of one machine: PyTorch's elastic launcher, one process for each.

A process that is lost takes the others with it; the launcher starts all of them again and they go
on from the last checkpoint. Several machines: `torchrun -m sri_cli train`, the same launcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sri_cli import checkpoint as checkpoints
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.training.distributed import is_launched
from sri_cli.training.loop import check_data, train
from sri_cli.training.trainer import Outcome

MAX_RESTARTS = 3
PR_SET_PDEATHSIG = 1  # of prctl(2)
PATIENCE_SEC = 3.0  # in which a launcher that is not stopping takes a result
# The launcher would keep one store for all restarts, and processes started again would read the
# addresses of the dead in it: so the first of them makes a new one each time.
FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
STOPPING = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # passed on to the processes


@dataclass(frozen=True)
class Job:
    """What `loop.train` is called with, in a form that travels to another process."""

    recipe: Recipe
    data: Path
    run_dir: Path
    device: str
    fresh: bool
    command: str

    def go(self) -> Outcome:
        """Train in this process."""
        return train(
            self.recipe,
            DataFile(self.data),
            self.run_dir,
            device=self.device,
            fresh=self.fresh,
            command=self.command,
        )


def train_on(count: int, job: Job) -> Outcome:
    """Train with `count` processes: here for one, or for one that a launcher started.

    Raises what `loop.train` raises, and SriFailure when processes are lost again and again.
    """
    if count <= 1 or is_launched():
        return job.go()
    check_data(job.recipe, DataFile(job.data))
    if job.device == "cuda":
        check_gpus(count)
    return launch(count, job)


def check_gpus(count: int) -> None:
    """SriError unless there are so many GPUs."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < count:
        raise SriError(
            f"--gpus {count}: PyTorch sees {there} GPU{'s' * (there != 1)} here",
            f"--gpus {there}" if there else "leave --gpus out, or give --gpus 0",
        )


def launch(count: int, job: Job) -> Outcome:
    """`count` processes of this machine train together; a lost one restarts them all."""
    try:
        results = start_together(count, MAX_RESTARTS, in_process, job)
    except SignalException as stopped:
        raise interrupted(job, stopped.sigval.name) from stopped
    except ChildFailedError as lost:
        raise SriFailure(
            f"a process was lost and {MAX_RESTARTS} restarts did not help: {first_reason(lost)}",
            f"go on from the last checkpoint: {job.command}",
        ) from lost
    outcome: Outcome | SriError = results[0]
    if isinstance(outcome, SriError):
        raise outcome
    return outcome


def start_together(
    count: int, restarts: int, work: Callable[..., Any], *args: Any
) -> dict[int, Any]:
    """`work(*args)`, a module's function, in `count` processes; what each rank returned.

    Raises SignalException when this process is told to stop (it tells the others), and
    ChildFailedError when one is lost once more than `restarts` times.
    """
    os.environ.update(FRESH_STORE)
    for talkative in ("torch.distributed", "torch.multiprocessing"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)  # we tell it ourselves
    with handlers_restored():
        return elastic_launch(launch_config(count, restarts), work)(*args)


@contextmanager
def handlers_restored() -> Iterator[None]:
    """The launcher takes over the signals that stop it, and would keep them."""
    numbers = [getattr(signal, name) for name in STOPPING.split(",") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, stop_launcher) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_launcher(number: int, _: FrameType | None) -> None:
    """As the launcher's own handler; older ones know of no SIGUSR1."""
    raise SignalException("told to stop", signal.Signals(number))


def launch_config(count: int, restarts: int) -> LaunchConfig:
    """One machine, any free port, restarts when a process is lost."""
    more: dict[str, Any] = {}
    if "signals_to_handle" in {field.name for field in dataclasses.fields(LaunchConfig)}:
        more["signals_to_handle"] = STOPPING
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=restarts,
        **more,
    )


def in_process(job: Job) -> Outcome | SriError:
    """What each process does. An error that a restart would only repeat is a result."""
    end_with_parent()
    try:
        return job.go()
    except Interrupted as error:
        # A launcher that passed a signal on never asks for the result, and would wait 30 s.
        threading.Thread(target=leave_soon, args=(error.exit_code,), daemon=True).start()
        return error
    except SriError as error:
        return error


def leave_soon(code: int) -> None:
    """End this process, if nobody has done so before."""
    time.sleep(PATIENCE_SEC)
    os._exit(code)


def end_with_parent() -> None:
    """Get SIGTERM when the launcher is killed, so that nobody trains on unseen; Linux alone can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def interrupted(job: Job, signal_name: str) -> Interrupted:
    """The processes got the signal, saved and ended."""
    found = checkpoints.checkpoints_in(job.run_dir)
    saved = f"saved in {found[-1]}" if found else "before anything was saved"
    return Interrupted(f"stopped by {signal_name}, {saved}", f"go on: {job.command}")


def first_reason(lost: ChildFailedError) -> str:
    """What the process that failed first had to say, in one line."""
    rank, failure = lost.get_first_failure()
    told: Any = failure.message  # a dict with "message" where the process could still speak
    message = told.get("message", told) if isinstance(told, dict) else told
    return f"process {rank}: {' '.join(str(message).split())[:200]}"
