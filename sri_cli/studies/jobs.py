"""The processes of a study: so many runs at a time, a GPU or a share of the cores for each."""

from __future__ import annotations

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
from sri_cli.studies.file import Cell
from sri_cli.studies.worker import Task

LOOK_EVERY_SEC = 0.1
STDERR = 2
# A process of Python that sees the packages that this one sees, wherever they lie.
START = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
RUN = START + "from sri_cli.studies.worker import main; sys.exit(main())"
SRI = START + "from sri_cli.cli.main import main; main()"


@dataclass(frozen=True)
class Slots:
    """How many runs at once, on what: GPUs (0: none), or threads of the CPU for each."""

    jobs: int
    gpus: int
    threads: int

    @property
    def words(self) -> str:
        """For people."""
        if self.gpus:
            return f"{self.jobs} at a time on {self.gpus} GPU{'s' * (self.gpus > 1)}"
        return f"{self.jobs} at a time, {self.threads} thread{'s' * (self.threads > 1)} each"

    def environment(self, slot: int) -> dict[str, str]:
        """What a process in this slot finds."""
        if self.gpus:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = seen.split(",") if seen else [str(gpu) for gpu in range(self.gpus)]
            return {"CUDA_VISIBLE_DEVICES": names[slot % len(names)]}
        return {"OMP_NUM_THREADS": str(self.threads)}


def choose_slots(jobs: int | None) -> Slots:
    """As many as GPUs; on a CPU one, or as many as asked for, which share the cores."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if jobs is not None and jobs < 1:
        raise SriError(f"--jobs {jobs}: at least one run at a time", "--jobs 1")
    number = jobs or gpus or 1
    return Slots(number, gpus, threads_each(number))


def threads_each(jobs: int) -> int:
    """Threads of one job: OMP_NUM_THREADS where it is set, else its share of the cores."""
    import torch

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return max(1, torch.get_num_threads() // jobs)


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code, and what it said last when not well."""

    cell: Cell
    code: int
    said: str


@dataclass
class Child:
    """A run in progress."""

    cell: Cell
    slot: int
    process: subprocess.Popen[bytes]
    log: Path
    began_at: int  # bytes of the log that were there before
    told_to_stop: bool = field(default=False)

    def stop(self) -> None:
        """Let it save; once."""
        if not self.told_to_stop:
            self.told_to_stop = True
            self.process.send_signal(signal.SIGTERM)

    def ended(self) -> Ended | None:
        """None while it goes on."""
        code = self.process.poll()
        if code is None:
            return None
        if self.process.stdin:
            self.process.stdin.close()
        if self.told_to_stop and code in (-signal.SIGTERM, -signal.SIGINT):
            code = Interrupted.exit_code  # before it could say so itself
        if code < 0:
            return Ended(self.cell, code, f"killed by {signal.Signals(-code).name}")
        return Ended(self.cell, code, "" if code == 0 else self._last_words())

    def _last_words(self) -> str:
        """Its `Error:` line, else its last one."""
        text = self.log.read_bytes()[self.began_at :].decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return (told or lines or ["it said nothing"])[-1]


def run_all(
    tasks: Sequence[tuple[Cell, Task]],
    slots: Slots,
    logs: Path,
    stop: StopFlag,
    on_start: Callable[[Cell], None],
    on_look: Callable[[Sequence[Cell]], None],
    on_end: Callable[[Ended], None],
) -> list[Ended]:
    """Every run in order, `slots.jobs` at a time; after a signal those in progress save and end."""
    waiting, running, ended = list(tasks), list[Child](), list[Ended]()
    try:
        while (waiting and not stop.name) or running:
            while waiting and len(running) < slots.jobs and not stop.name:
                cell, task = waiting.pop(0)
                free = set(range(slots.jobs)) - {child.slot for child in running}
                running.append(_start(cell, task, min(free), slots, logs))
                on_start(cell)
            for child in list(running):
                if stop.name:
                    child.stop()
                end = child.ended()
                if end is not None:
                    running.remove(child)
                    ended.append(end)
                    on_end(end)
            on_look([child.cell for child in running])
            time.sleep(LOOK_EVERY_SEC)
    finally:
        for child in running:  # only after a second signal or an error of our own
            child.process.kill()
            child.process.wait()
    return ended


def _start(cell: Cell, task: Task, slot: int, slots: Slots, logs: Path) -> Child:
    """Its words go to a file: several runs at once would talk across each other."""
    path = ensure_folder(logs) / f"{cell.name}.txt"
    try:
        log = open(path, "ab")  # noqa: SIM115 (the process keeps it)
    except OSError as error:
        raise cannot_write(path, error) from error
    with log:
        process = _python(RUN, [], log, slots.environment(slot), subprocess.PIPE)
        assert process.stdin is not None
        try:
            process.stdin.write(task.line())
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once; its end tells
        return Child(cell, slot, process, path, log.tell())


def run_sri(words: Sequence[str], stop: StopFlag) -> int:
    """`sri WORDS`, all its words on stderr; the exit code. A signal is passed on."""
    process = _python(SRI, words, STDERR, {}, subprocess.DEVNULL)
    told = False
    try:
        while process.poll() is None:
            if stop.name and not told:
                told = True
                process.send_signal(signal.SIGTERM)
            time.sleep(LOOK_EVERY_SEC)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode


def _python(
    code: str, words: Sequence[str], out: int | IO[bytes], more: dict[str, str], stdin: int
) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches the study alone, which lets its runs save."""
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(sys.path), *words],
        stdin=stdin,
        stdout=out,
        stderr=out,
        env=os.environ | more,
        start_new_session=True,
    )


def failed(ended: Sequence[Ended]) -> list[Ended]:
    """Those that came to another end than a good one or divergence."""
    return [one for one in ended if one.code not in (0, Diverged.exit_code)]
