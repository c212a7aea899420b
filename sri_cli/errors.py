"""Errors that users see: one line, a suggested fix, and an exit code.

`cli/main.py` is the only place that prints them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from importlib.util import find_spec


class SriError(Exception):
    """A user error in usage, recipe, data or weights (exit code 2).

    `message` says what is wrong in one line; `hint` is the command or value that fixes it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint is not None:
            self.add_note(hint)  # tracebacks show it too


class SriFailure(SriError):
    """The machine refused: full disk, folder not writable, out of memory (exit code 1)."""

    exit_code = 1


class Diverged(SriError):
    """Training diverged, also after its roll-backs (exit code 4)."""

    exit_code = 4


class Stopped(SriError):
    """The user or a signal stopped the work; the same command begins anew (exit code 130).

    A wanted stop is no error: `message` and `hint` are sentences, printed without "Error:".
    """

    exit_code = 130


class Interrupted(Stopped):
    """The work was stopped and is saved; the same command resumes it (exit code 75)."""

    exit_code = 75


def pip_install(*arguments: str) -> str:
    """The command that installs into this Python, which need not be the one of `pip`."""
    words = [sys.executable, "-m", "pip", "install"]
    if find_spec("pip") is None:  # as in environments of uv
        words = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*words, *arguments])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known word, else "": the end of an error message."""
    from difflib import get_close_matches  # takes 10 ms to import

    near = get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean {near[0]}?)" if near else ""
