"""A program in a terminal of its own, typed into as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent.parent
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a Python program (`words` follow the interpreter's name); a context manager."""

    def __init__(
        self,
        words: Sequence[str],
        cwd: Path,
        columns: int = 80,
        rows: int = 40,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.shown = ""
        self.end, other = pty.openpty()
        self.resize(columns, rows)
        settings = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=cwd,
            env={**kept, "PYTHONPATH": str(ROOT), **settings, **(environment or {})},
            stdin=other,
            stdout=other,
            stderr=other,
            preexec_fn=lambda: _own_terminal(other),
        )
        os.close(other)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)

    def resize(self, columns: int, rows: int) -> None:
        """Another size of the window."""
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys, and forget what was shown before."""
        self.shown = ""
        os.write(self.end, keys.encode())

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """What was shown since the last key, escapes taken out, as soon as `text` is in it."""
        end = time.monotonic() + seconds
        while text not in self.text and time.monotonic() < end:
            if not self._read(0.1) and self.process.poll() is not None and not self._read(0.1):
                break
        assert text in self.text, f"{text!r} was not shown, but:\n{self.text[-3000:]}"
        while self._read(0.1):  # keys typed before the whole screen is drawn are dropped
            pass
        return self.text

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.shown)

    def ends(self, seconds: float = 60) -> int:
        """The exit code, when it has ended."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self._read(0.1)
        while self._read(0.05):
            pass
        return self.process.wait(1)

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.end], [], [], seconds)[0]:
            return False
        try:
            part = os.read(self.end, 1 << 16)
        except OSError:  # nobody is at the other end any more
            return False
        self.shown += part.decode(errors="replace")
        return bool(part)


def _own_terminal(descriptor: int) -> None:
    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
