"""Stopping on SIGINT, SIGTERM and SIGUSR1, between two steps of the work; what resumes it."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopSignal(KeyboardInterrupt):
    """A signal stops the work at once.

    Not KeyboardInterrupt itself: if that passes through an `exec` of source text, as imports have
    it, `python -m` ends by SIGINT whatever the exit code is to be.
    """


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT and SIGTERM outside of `stop_on_signal`: raise StopSignal.

    While torch is imported it waits: an exception in torch's C++ code aborts the process.
    """
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
        self.patient = patient
        self.at_once = False  # set while nothing needs finishing: raise immediately

    def handle(self, number: int, _: FrameType | None) -> None:
        """Note the first signal, so that the step is finished and saved; raise at a second one."""
        again = self.received and not self.patient
        self.received = True
        if again or self.at_once:
            raise StopSignal


def is_ignored(number: int) -> bool:
    """Whether who started this process has it ignore a signal, as `nohup` does with SIGHUP."""
    return signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def handled(
    names: Iterable[str], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Call `handler` for these signals inside the block; outside the main thread for none.

    Signals that are ignored stay ignored.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    numbers = [number for number in numbers if not is_ignored(number)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, handler) for number in numbers}
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
