"""The processes of a study: several runs at once, a GPU or a share of the cores for each.

`python -m sri_cli.studies.processes` is the process of one run: it trains the run to its end, then
measures it. Its stdin is a pipe that the study keeps open: when the study ends, even by kill -9,
the run saves and stops.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sri_cli import __version__
from sri_cli.atomic import cannot_write, write_atomic
from sri_cli.console import counted, print_line
from sri_cli.cores import Threads
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device
from sri_cli.errors import Diverged, Interrupted, SriError
from sri_cli.generation.trained_run import open_run
from sri_cli.metrics.evaluate import evaluate_run
from sri_cli.plotting.previews import draw_preview
from sri_cli.run import Workspace
from sri_cli.signals import StopFlag, StopSignal
from sri_cli.strict_json import to_json
from sri_cli.studies.job import end_of, error_in, start_python
from sri_cli.studies.protocol import StudyRun, check_unchanged, read_study
from sri_cli.studies.reuse import with_reused_runs
from sri_cli.studies.status import DIVERGED, MACHINE, status_of
from sri_cli.training.step_timing import machine
from sri_cli.training.trainer import train

POLL_SEC = 0.1


@dataclass(frozen=True)
class Slots:
    """How many runs at once, and on what: GPUs (0: none), or CPU threads for each.

    `threads` is the largest number where they follow the free cores (not `fixed_threads`).
    """

    jobs: int
    gpus: int
    threads: int
    fixed_threads: bool = False

    def __str__(self) -> str:
        if self.gpus:
            return f"{self.jobs} at a time on {counted(self.gpus, 'GPU')}"
        at_most = "" if self.fixed_threads else "at most "
        return f"{self.jobs} at a time, {at_most}{counted(self.threads, 'thread')} each"

    def environment(self, slot: int) -> dict[str, str]:
        """The environment variables of a process in this slot."""
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.fixed_threads else {}
        if not self.gpus:
            return threads
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(self.gpus)]
        return threads | {"CUDA_VISIBLE_DEVICES": names[slot % len(names)]}


def choose_slots(jobs: int | None, threads: Threads | None = None) -> Slots:
    """`jobs` at a time, by default one for each GPU, on a CPU one; each on its share of the cores.

    `threads`: those of each job, where their number is fixed.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if jobs is not None and jobs < 1:
        raise SriError(f"--jobs {jobs}: at least one run at a time", "use --jobs 1")
    number = jobs or gpus or 1
    each = Threads(threads.fixed if threads else None, sharers=number)
    return Slots(number, gpus, each.most, each.fixed is not None)


class RunProcess:
    """The process of a run; `arguments` are those of `main`, its output is added to `log`."""

    def __init__(
        self, run: StudyRun, slot: int, slots: Slots, log: Path, arguments: Sequence[str]
    ) -> None:
        self.run, self.slot, self.log, self.stopping = run, slot, log, False
        words = ["sri_cli.studies.processes", *arguments]
        try:
            with open(log, "ab") as file:
                self.log_start = file.tell()
                self.process = start_python(words, file, slots.environment(slot), subprocess.PIPE)
        except OSError as error:
            raise cannot_write(log, error) from error

    def stop(self) -> None:
        """Request once that the run saves and ends."""
        if not self.stopping:
            self.stopping = True
            self.process.send_signal(signal.SIGTERM)

    def poll(self) -> int | None:
        """The exit code, or None while the run goes on; negative for a signal."""
        code = self.process.poll()
        if code is not None and self.process.stdin:
            self.process.stdin.close()
        if self.stopping and code in (-signal.SIGTERM, -signal.SIGINT):
            return Interrupted.exit_code  # stopped before it could catch the signal
        return code

    def error(self) -> str:
        """Why it ended: the `Error:` line of its log, else the last line."""
        code = self.process.returncode
        if code < 0:
            return end_of(code)
        text = self.log.read_bytes()[self.log_start :].decode("utf-8", "replace")
        return error_in(text.splitlines())

    def kill(self) -> None:
        """End the process without saving."""
        self.process.kill()
        self.process.wait()


def run_sri(words: Sequence[str], stop: StopFlag) -> int:
    """Run `sri WORDS` with all output on stderr; the exit code. A signal stops both."""
    process = start_python(["sri_cli", *words], 2, {}, subprocess.DEVNULL)
    try:
        stop.at_once = True
        if stop.received:  # while it was started
            raise StopSignal
        return process.wait()
    finally:
        stop.at_once = False
        process.terminate()  # nothing if it has ended; else it saves what it has made
        try:
            process.wait()
        finally:
            process.kill()  # at a second signal


def work(
    workspace: Workspace, study_file: str, run_name: str, data_file: str, sharers: str
) -> None:
    """Train or resume the run; then measure what its metrics.jsonl lacks.

    `sharers` runs of the study share the cores of this machine.
    """
    study, data = read_study(workspace, study_file), DataFile(data_file)
    check_unchanged(study)  # the file may have been edited since the study began
    study = with_reused_runs(study, data)
    run = next(run for run in study.runs() if run.name == run_name)
    try:
        if run.name not in study.reused:
            options: dict[str, Any] = {"threads": Threads(sharers=int(sharers))}
            options |= {"command": study.command(run, data.path), "preview": draw_preview}
            # Who stops the study may signal its processes, too, and the study then does so again.
            train(run.recipe, data, run.run_dir, **options, patient=True)
    except Diverged as error:
        write_atomic(run.run_dir / DIVERGED, f"{error.message}\n".encode())
        raise
    if not (run.run_dir / MACHINE).exists():  # a run that is trained already was trained there
        versions = {"sri": __version__, "python": platform.python_version()}
        facts = machine(choose_device()) | versions | {"numpy": np.__version__}
        write_atomic(run.run_dir / MACHINE, f"{to_json(facts)}\n".encode())
    trained = open_run(workspace, str(run.run_dir))
    by_num: dict[int, list[str]] = {}  # metrics of as many images share one pass over them
    for metric, num in status_of(study, run, data).missing.items():
        by_num.setdefault(num, []).append(metric)
    for num, metrics in by_num.items():
        evaluate_run(trained, metrics, data_file, study.protocol.split, num)


def main() -> int:
    """The arguments are those of `work`; the exit codes are those of `sri`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    data_root, runs_root, *arguments = sys.argv[1:]
    try:
        work(Workspace(Path(data_root), Path(runs_root)), *arguments)
    except SriError as error:
        prefix = "" if isinstance(error, Interrupted) else "Error: "
        print_line(f"{prefix}{error.message}\n{error.hint or ''}")
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    return 0


def _stop_with_parent() -> None:
    """Send SIGTERM to this process when the other end of stdin is closed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
