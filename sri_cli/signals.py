"""Signals that ask a run to stop: noted at once, obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WANTED = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopFlag:
    """Holds the name of the signal that came, if any."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.at_once = False  # set where nothing needs finishing: raise in the midst of waiting

    def handle(self, number: int, _: FrameType | None) -> None:
        """First signal: finish the step and save. A second one ends at once."""
        again = self.name is not None
        self.name = self.name or signal.Signals(number).name
        if again or self.at_once:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Catch the stopping signals inside the block; only possible in the main thread."""
    flag = StopFlag()
    numbers = [getattr(signal, name) for name in WANTED if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, flag.handle) for number in numbers}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
