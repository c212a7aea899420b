"""Progress and tables: a bar on a terminal, plain lines elsewhere. Progress goes to stderr.

Inside `quiet()`, as in the Python API, progress prints nothing and warnings are Python's.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import starmap, zip_longest
from typing import Any, Self

PLAIN_EVERY_SEC = 15.0
FIRST_SHOWN_SEC = 3.0

is_quiet = ContextVar("quiet", default=False)


@contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Print no progress inside the block, unless `on` is False."""
    before = is_quiet.set(on)
    try:
        yield
    finally:
        is_quiet.reset(before)


def warn(message: str) -> None:
    """Print a line on stderr; inside `quiet()` it is a UserWarning."""
    if is_quiet.get():
        warnings.warn(message, stacklevel=2)
    else:
        print_line(message)


def print_line(message: str = "") -> None:
    """Print a line on stderr; nowhere from then on if what reads it has ended.

    A `tee` ends by the same Ctrl-C that lets a training save, which must not end the training.
    """
    try:
        print(message, file=sys.stderr, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


class Progress:
    """Progress of long work with rate and ETA; a context manager.

    Args:
        total: Number of units; 0 while it is unknown (see `set_total`).
        done: Units that were done before; they do not count for the rate.
        unit: Singular noun; the rate of a "step" is not shown, training notes images per second.
        quiet: Print nothing, as on all ranks but the first.
    """

    def __init__(
        self, total: int, done: int, label: str, unit: str = "step", quiet: bool = False
    ) -> None:
        self.total, self.label, self.unit, self.quiet = total, label, unit, quiet or is_quiet.get()
        self.bar: Any = None
        self.start_at(done)
        # Show the first record immediately, and without one what there is after some seconds.
        self.shown_at -= PLAIN_EVERY_SEC
        self.due_at = self.started + FIRST_SHOWN_SEC

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self.quiet:
            self.bar = make_bar()
            self.task = self.bar.add_task(
                self.label, total=self.total or None, completed=self.done, rate="", note=""
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            if not self.total and not self.done:  # there was nothing to count
                self.bar.update(self.task, visible=False)
            self.bar.stop()

    def start_at(self, done: int) -> None:
        """Continue from `done` units, which do not count for the rate."""
        self.started = self.shown_at = time.monotonic()
        self.first, self.end_shown = done, False
        self.advance(done)

    def set_total(self, total: int) -> None:
        """Set the total."""
        self.total = total
        if self.bar is not None:
            self.bar.update(self.task, total=total or None)

    def advance(self, done: int) -> None:
        """Set the number of finished units; it may decrease after a roll-back."""
        self.done = done
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=self._rate())

    def update(self, done: int) -> None:
        """`advance`, then `show`."""
        self.advance(done)
        self.show()

    def is_due(self) -> bool:
        """Whether nothing was shown for so long that `show` should be called."""
        return not self.quiet and time.monotonic() >= self.due_at

    def show(self, note: str = "") -> None:
        """Show `note` beside the bar, or print a plain line if the last one is long enough ago."""
        self.due_at = time.monotonic() + PLAIN_EVERY_SEC
        if self.bar is not None:
            self.bar.update(self.task, note=note)
        elif time.monotonic() - self.shown_at >= PLAIN_EVERY_SEC or self._end_is_new():
            self.shown_at, self.end_shown = time.monotonic(), self._end_is_new()
            of = f"/{self.total}" if self.total else ""
            position = f"{self.label}: {self.unit} {self.done}{of}"
            parts = [position, note, self._rate(), self._eta()]
            self.note("  ".join(part for part in parts if part))

    def note(self, message: str) -> None:
        """Print a line."""
        if self.bar is not None:
            self.bar.console.print(message, markup=False, highlight=False)
        elif not self.quiet:
            print_line(message)

    def _end_is_new(self) -> bool:
        """Whether all is done and no line has shown it."""
        return 0 < self.total <= self.done and not self.end_shown

    def _rate(self) -> str:
        run, seconds = self.done - self.first, time.monotonic() - self.started
        if self.unit == "step" or run <= 0 or seconds <= 0:
            return ""
        rate = run / seconds
        return f"{rate:.{0 if rate >= 10 else 1}f} {self.unit}/s"

    def _eta(self) -> str:
        run = self.done - self.first
        if run <= 0 or self.done >= self.total:
            return ""
        left = (time.monotonic() - self.started) / run * (self.total - self.done)
        return f"{duration(left)} left"


def make_bar() -> Any:
    """A rich progress bar with rate and ETA."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A plain table, the same on a terminal and in a pipe: two spaces between columns.

    The first `left` columns are aligned left, the others right. An empty `header` prints none.
    """
    from rich.cells import cell_len

    lines = [*([header] if header else []), *rows]
    columns = zip_longest(*lines, fillvalue="")
    widths = [max(map(cell_len, column)) for column in columns]

    def padded(column: int, cell: str) -> str:
        room = " " * (widths[column] - cell_len(cell))
        return cell + room if column < left else room + cell

    return "\n".join("  ".join(starmap(padded, enumerate(line))).rstrip() for line in lines)


def counted(number: int, noun: str) -> str:
    """1 scene, 1,200 scenes."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A readable duration: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


CACHED_SEC = 1e-4  # per image; faster ones come from a cache


@contextmanager
def counting(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress over `total` images: yields advance(number of further images)."""
    with Progress(total, 0, label, "image") as progress:
        last = time.monotonic()

        def advance(more: int) -> None:
            nonlocal last
            before, last = last, time.monotonic()
            done = progress.done + more
            # Images from a cache would spoil rate and ETA. (Single images come in bursts from
            # worker processes.)
            if more > 1 and last - before < more * CACHED_SEC:
                progress.start_at(done)
            else:
                progress.advance(done)
            progress.show()

        yield advance
