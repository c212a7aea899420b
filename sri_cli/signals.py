"""Stopping on the stop signals, between two steps of the work; what resumes it."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
ECHO_SEC = 1.0  # in which a wrapper passes on a signal that all its processes have received


class StopSignal(KeyboardInterrupt):
    """A signal stops the work at once.

    Not KeyboardInterrupt itself: if that passes through an `exec` of source text, as imports have
    it, `python -m` ends by SIGINT whatever the exit code is to be.
    """


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT, SIGTERM and SIGHUP outside of `stop_on_signal`: raise StopSignal.

    While torch is imported it waits: an exception in torch's C++ code aborts the process.
    """
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)  # the shell may send another during the clean-up
        let_go_of_closed_terminal()
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        signal.signal(signal.SIGALRM, stop_at_once)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        return
    raise StopSignal


def this_command() -> str:
    """The command line as it was typed."""
    return shlex.join(["sri", *sys.argv[1:]])


class StopFlag:
    """Whether a signal was received.

    A `patient` flag ignores further signals: a launcher and a terminal may both send one.
    """

    def __init__(self, patient: bool = False) -> None:
        self.received = False
        self.since = 0.0  # when the last one came that was no echo
        self.patient = patient
        self.at_once = False  # set while nothing needs finishing: raise immediately

    def handle(self, number: int, _: FrameType | None) -> None:
        """Note the first signal, so that the step is finished and saved; raise at a second one."""
        if number == signal.SIGHUP:
            let_go_of_closed_terminal()
        now = time.monotonic()
        if self.received and (self.patient or now - self.since <= ECHO_SEC):
            return
        again, self.received, self.since = self.received, True, now
        if again or self.at_once:
            raise StopSignal


def let_go_of_closed_terminal() -> None:
    """Write nowhere from now on where the terminal is closed: it would refuse, and end the work."""
    for number in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)


def is_ignored(number: int) -> bool:
    """Whether who started this process has it ignore a signal, as `nohup` does with SIGHUP."""
    return signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def handled(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Call `handler` for these signals inside the block; outside the main thread for none.

    Signals that are ignored stay ignored.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, handler) for n in numbers if in_main and not is_ignored(n)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def stop_on_signal(patient: bool = False) -> Iterator[StopFlag]:
    """Note the stop signals inside the block."""
    flag = StopFlag(patient)
    with handled(STOP_SIGNALS, flag.handle):
        yield flag
