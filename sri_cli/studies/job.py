"""The job of a run in a queue: what submitit calls on the node. It imports no torch.

The work is done by a process of its own (`processes.py`), which saves and ends at SIGTERM. A time
limit or a preemption reaches the job as submitit's signal: submitit calls `RunJob.checkpoint`,
which stops the process, and puts the job into the queue again under the same number.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from sri_cli.run import MEASUREMENTS, checkpoints_in

JOB_FOLDER = "job"  # in a run folder: submitit's files and the log
LOG = "{id}_0_log.out"  # in it, as submitit names it
MAX_IDLE_STARTS = 3  # starts in a row that come no further; then the time limit is too short
KILLED = 128  # exit code of a process that a signal ended, as a shell has it


class RunJob:
    """Trains and measures a run; picklable.

    Args:
        run_dir: of the run.
        arguments: those of `processes.main`.
        environment: variables of the process, beside those of the job.
        idle_starts: how often the job was started before without coming further.
    """

    def __init__(
        self,
        run_dir: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        idle_starts: int = 0,
    ) -> None:
        self.run_dir, self.arguments = run_dir, list(arguments)
        self.environment, self.idle_starts = dict(environment), idle_starts
        self.before, self.pid = self._progress(), 0

    def __call__(self) -> None:
        """Run the process to its end; SystemExit with its code unless that is 0."""
        self.before = self._progress()
        more = dict(self.environment)
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores and "OMP_NUM_THREADS" not in os.environ | more:
            more["OMP_NUM_THREADS"] = cores  # not every cluster confines a job to its cores
        words = ["sri_cli.studies.processes", *self.arguments]
        # The scheduler may signal every process of the job; the process ignores submitit's signal.
        number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
        handler = signal.signal(number, signal.SIG_IGN)
        process = start_python(words, sys.stdout.fileno(), more, subprocess.PIPE)
        self.pid = process.pid
        signal.signal(number, handler)
        signal.signal(signal.SIGTERM, self._stop)  # of a cancelled job
        code = process.wait()
        if code:
            if code < 0:
                print(f"Error: {end_of(code)}", flush=True)
            sys.exit(code if code > 0 else KILLED - code)

    def checkpoint(self) -> Any:
        """Let the process save and end; what submitit calls next, or None to end the job."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        with suppress(OSError):  # none was started, or its end was noticed already
            # Popen.wait cannot be called here: this may have interrupted it.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        idle = self.idle_starts + 1 if self._progress() == self.before else 0
        if idle == MAX_IDLE_STARTS:
            print("Error: the time limit is too short to come any further", flush=True)
            return None
        return DelayedSubmission(RunJob(self.run_dir, self.arguments, self.environment, idle))

    def _stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, signal.SIGTERM)

    def _progress(self) -> tuple[str, int]:
        """The newest checkpoint, and the size of what was measured."""
        checkpoints, measured = checkpoints_in(self.run_dir), self.run_dir / MEASUREMENTS
        name = checkpoints[-1].name if checkpoints else ""
        return name, measured.stat().st_size if measured.exists() else 0


def end_of(code: int) -> str:
    """How a process ended whose exit code is negative: by a signal."""
    return f"killed by {signal.Signals(-code).name}"


def error_in(output: Sequence[str]) -> str:
    """Why a process ended: the last `Error:` line of its output, else the last line."""
    lines = [line for line in output if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (errors or lines or ["no output"])[-1]


def start_python(
    words: Sequence[str], output: int | IO[bytes], more: Mapping[str, str], stdin: int
) -> subprocess.Popen[bytes]:
    """`python -P -m WORDS` in a session of its own, so that Ctrl-C reaches its parent alone."""
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the same packages as here
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *words],
        stdin=stdin,
        stdout=output,
        stderr=output,
        env=os.environ | paths | dict(more),
        start_new_session=True,
    )
