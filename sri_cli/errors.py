"""What a user is told when something cannot be done: one line, and the way out.

`cli.py` turns these, and nothing else, into the two printed lines and the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable


class SriError(Exception):
    """Input to correct: usage, recipe, data or weights (exit code 2).

    `message` says what is wrong in one line; `hint` is the command or value that mends it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SriFailure(SriError):
    """The machine would not do it: disk full, folder not writable, memory (exit code 1)."""

    exit_code = 1


class Diverged(SriError):
    """Training left the range of finite numbers once too often (exit code 4)."""

    exit_code = 4


class Interrupted(SriError):
    """Stopped by a signal after saving; the same command resumes (exit code 75)."""

    exit_code = 75


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known word, or nothing; a tail for an error message."""
    from difflib import get_close_matches  # 10 ms that only a mistake pays

    near = get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean {near[0]}?)" if near else ""
