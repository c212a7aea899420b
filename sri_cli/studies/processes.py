"""The processes of a study: several runs at once, a GPU or a share of the cores for each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sri_cli.atomic import cannot_write, ensure_folder
from sri_cli.errors import Diverged, Interrupted, SriError
from sri_cli.signals import StopFlag
from sri_cli.studies.protocol import StudyRun
from sri_cli.studies.worker import Task

POLL_SEC = 0.1
STDERR = 2
# Python code for a process that finds the same packages as this one.
START = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
WORKER = START + "from sri_cli.studies.worker import main; sys.exit(main())"
SRI = START + "from sri_cli.cli.main import main; main()"


@dataclass(frozen=True)
class Slots:
    """How many runs at once, and on what: GPUs (0: none), or CPU threads for each."""

    jobs: int
    gpus: int
    threads: int

    def __str__(self) -> str:
        if self.gpus:
            return f"{self.jobs} at a time on {self.gpus} GPU{'s' * (self.gpus > 1)}"
        return f"{self.jobs} at a time, {self.threads} thread{'s' * (self.threads > 1)} each"

    def environment(self, slot: int) -> dict[str, str]:
        """The environment variables of a process in this slot."""
        if self.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else [str(gpu) for gpu in range(self.gpus)]
            return {"CUDA_VISIBLE_DEVICES": names[slot % len(names)]}
        return {"OMP_NUM_THREADS": str(self.threads)}


def choose_slots(jobs: int | None) -> Slots:
    """`jobs` at a time; by default one for each GPU, on a CPU one.

    Threads of a job: OMP_NUM_THREADS where it is set, else its share of the cores.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if jobs is not None and jobs < 1:
        raise SriError(f"--jobs {jobs}: at least one run at a time", "use --jobs 1")
    number = jobs or gpus or 1
    omp = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, torch.get_num_threads() // number)
    return Slots(number, gpus, int(omp) if omp.isdecimal() and int(omp) > 0 else share)


@dataclass(frozen=True)
class Ended:
    """A run that ended: its exit code, and its error unless that is 0."""

    run: StudyRun
    code: int
    error: str

    @property
    def failed(self) -> bool:
        """Neither finished nor diverged."""
        return self.code not in (0, Diverged.exit_code)


@dataclass
class Child:
    """The process of a run in progress; `log_start` is the size of its log before."""

    run: StudyRun
    slot: int
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    stopping: bool = field(default=False)

    def stop(self) -> None:
        """Ask the process once to save and end."""
        if not self.stopping:
            self.stopping = True
            self.process.send_signal(signal.SIGTERM)

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if self.process.stdin:
            self.process.stdin.close()
        if self.stopping and code in (-signal.SIGTERM, -signal.SIGINT):
            code = Interrupted.exit_code  # stopped before it could catch the signal
        if code < 0:
            return Ended(self.run, code, f"killed by {signal.Signals(-code).name}")
        return Ended(self.run, code, "" if code == 0 else self._error())

    def _error(self) -> str:
        """The `Error:` line of its log, else the last line."""
        text = self.log.read_bytes()[self.log_start :].decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return (errors or lines or ["no output"])[-1]


def run_all(
    tasks: Sequence[tuple[StudyRun, Task]],
    slots: Slots,
    logs: Path,
    stop: StopFlag,
    *,
    on_start: Callable[[StudyRun], None],
    on_poll: Callable[[Sequence[StudyRun]], None],
    on_end: Callable[[Ended], None],
) -> list[Ended]:
    """Process the tasks in order, `slots.jobs` at a time; after a signal all save and end.

    Output goes to `logs/<run>.txt`, because several runs at once would mix theirs.
    """
    waiting, running, ended = list(tasks), list[Child](), list[Ended]()
    try:
        while (waiting and not stop.name) or running:
            while waiting and len(running) < slots.jobs and not stop.name:
                run, task = waiting.pop(0)
                free = set(range(slots.jobs)) - {child.slot for child in running}
                running.append(_start(run, task, min(free), slots, logs))
                on_start(run)
            for child in list(running):
                if stop.name:
                    child.stop()
                end = child.poll()
                if end is not None:
                    running.remove(child)
                    ended.append(end)
                    on_end(end)
            on_poll([child.run for child in running])
            time.sleep(POLL_SEC)
    finally:
        for child in running:  # only after a second signal or an exception
            child.process.kill()
            child.process.wait()
    return ended


def _start(run: StudyRun, task: Task, slot: int, slots: Slots, logs: Path) -> Child:
    path = ensure_folder(logs) / f"{run.name}.txt"
    try:
        log = open(path, "ab")  # noqa: SIM115 (closed below, the process has its own)
    except OSError as error:
        raise cannot_write(path, error) from error
    with log:
        process = _python(WORKER, [], log, slots.environment(slot), subprocess.PIPE)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; its exit code says why
            process.stdin.write(task.line())
            process.stdin.flush()
        return Child(run, slot, process, path, log.tell())


def run_sri(words: Sequence[str], stop: StopFlag) -> int:
    """Run `sri WORDS` with all output on stderr, passing a signal on; the exit code."""
    process = _python(SRI, words, STDERR, {}, subprocess.DEVNULL)
    stopping = False
    try:
        while process.poll() is None:
            if stop.name and not stopping:
                stopping = True
                process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SEC)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode


def _python(
    code: str, words: Sequence[str], out: int | IO[bytes], more: dict[str, str], stdin: int
) -> subprocess.Popen[bytes]:
    """Python in a session of its own, so that Ctrl-C reaches the study alone."""
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(sys.path), *words],
        stdin=stdin,
        stdout=out,
        stderr=out,
        env=os.environ | more,
        start_new_session=True,
    )
