"""Signals that ask a run to stop: noted at once, obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WANTED = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopFlag:
    """Holds the name of the signal that came, if any.

    A `patient` one lets further signals pass: a launcher and a terminal may both send one.
    """

    def __init__(self, patient: bool = False) -> None:
        self.name: str | None = None
        self.patient = patient
        self.at_once = False  # set where nothing needs finishing: raise in the midst of waiting

    @property
    def number(self) -> int:
        """The signal's number; 0: none came."""
        return signal.Signals[self.name].value if self.name else 0

    def handle(self, number: int, _: FrameType | None) -> None:
        """First signal: finish the step and save. A second one ends at once."""
        again = self.name is not None and not self.patient
        self.name = self.name or signal.Signals(number).name
        if again or self.at_once:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signal(patient: bool = False) -> Iterator[StopFlag]:
    """Catch the stopping signals inside the block; only possible in the main thread."""
    flag = StopFlag(patient)
    numbers = [getattr(signal, name) for name in WANTED if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, flag.handle) for number in numbers}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
