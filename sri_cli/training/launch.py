"""Training on several GPUs of one machine: one process for each, under PyTorch's elastic launcher.

When a process is lost, the launcher stops the others, all are started again, and they resume from
the last checkpoint. Several machines use the same launcher: `torchrun ... -m -- sri_cli train ...`.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.run import checkpoints_in
from sri_cli.signals import STOP_SIGNALS, handled, is_ignored, let_go_of_closed_terminal
from sri_cli.training.trainer import Outcome, check_data, train

MAX_RESTARTS = 3  # without a new checkpoint
PR_SET_PDEATHSIG = 1  # of prctl(2)
EXIT_AFTER_SEC = 3.0  # for a launcher that is not stopping to fetch the result
PASSED_ON = (*STOP_SIGNALS, signal.SIGQUIT)  # to the processes


def launch(
    count: int,
    recipe: Recipe,
    data: DataFile,
    run_dir: Path,
    *,
    command: str = "sri train",
    **options: Any,
) -> Outcome:
    """Train as `trainer.train` does with these options, with `count` processes of this machine.

    `preview` is a module's function.

    Raises:
        SriError: what `train` raises.
        SriFailure: a process was lost once more than MAX_RESTARTS times without a new checkpoint.
    """
    check_data(recipe, data)
    options["command"] = command
    try:
        results = start_until_done(
            count, run_dir, train_in_process, recipe, data.path, run_dir, options
        )
    except SignalException as stopped:
        saved = checkpoints_in(run_dir)
        where = "before the first step."
        if saved:
            where = f"at step {int(saved[-1].name.removeprefix('step-'))}; checkpoint saved."
        raise Interrupted(f"Stopped {where}", f"Resume with: {command}") from stopped
    except ChildFailedError as lost:
        raise SriFailure(
            f"a process was lost and {MAX_RESTARTS} restarts did not help: {first_reason(lost)}",
            f"resume from the last checkpoint with: {command}",
        ) from lost
    outcome: Outcome | SriError = results[0]
    if isinstance(outcome, SriError):
        raise outcome
    return outcome


def check_gpus(count: int) -> None:
    """SriError unless this machine has `count` GPUs."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < count:
        raise SriError(
            f"--gpus {count}: PyTorch sees {there} GPU{'s' * (there != 1)} here",
            f"--gpus {there}" if there else "leave --gpus out, or give --gpus 0",
        )


def start_until_done(
    count: int, run_dir: Path, work: Callable[..., Any], *args: Any
) -> dict[int, Any]:
    """`start_together`, and again when a process is lost.

    Raises:
        SignalException: as there.
        ChildFailedError: a process was lost once more than MAX_RESTARTS times without a new
            checkpoint in `run_dir`.
    """
    failures, newest = 0, checkpoints_in(run_dir)[-1:]
    with handled(PASSED_ON, stop_launcher):  # also between two starts
        while True:
            try:
                return start_together(count, work, *args)
            except ChildFailedError:
                before, newest = newest, checkpoints_in(run_dir)[-1:]
                failures = 1 if newest > before else failures + 1
                if failures > MAX_RESTARTS:
                    raise


def start_together(count: int, work: Callable[..., Any], *args: Any) -> dict[int, Any]:
    """Call `work(*args)`, a module's function, in `count` processes; returns results by rank.

    Raises:
        SignalException: this process received a signal, and passed it on to the others.
        ChildFailedError: a process was lost.
    """
    # We report failures ourselves. Each of these loggers has a level of its own.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with handled(PASSED_ON, stop_launcher):  # the launcher never undoes its own
        return elastic_launch(launch_config(count), work)(*args)


def stop_launcher(number: int, _: FrameType | None) -> None:
    """As the launcher's own handler, which it sets when it starts the processes."""
    if number == signal.SIGHUP:
        let_go_of_closed_terminal()
    raise SignalException("stopped by a signal", signal.Signals(number))


def launch_config(count: int) -> LaunchConfig:
    """One machine, any free port, no restart when a process is lost: `start_until_done` does so."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(one.name for one in PASSED_ON if not is_ignored(one)),
    )


def train_in_process(
    recipe: Recipe, data: Path, run_dir: Path, options: dict[str, Any]
) -> Outcome | SriError:
    """The work of one process. An error that a restart would only repeat is a result."""
    stop_with_parent()
    try:
        return train(recipe, DataFile(data), run_dir, **options)
    except Interrupted as error:
        # A launcher that passed a signal on does not fetch the result, and would wait 30 s.
        threading.Thread(target=exit_soon, args=(error.exit_code,), daemon=True).start()
        return error
    except SriError as error:
        return error


def exit_soon(code: int) -> None:
    """End this process, if nothing else has by then."""
    time.sleep(EXIT_AFTER_SEC)
    os._exit(code)


def stop_with_parent() -> None:
    """Receive SIGTERM when the launcher is killed (Linux only), so that no process trains on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def first_reason(lost: ChildFailedError) -> str:
    """The error of the process that failed first, in one line."""
    rank, failure = lost.get_first_failure()
    message: Any = failure.message  # a dict with "message" where the process raised an exception
    message = message.get("message", message) if isinstance(message, dict) else message
    return f"process {rank}: {' '.join(str(message).split())[:200]}"
