"""How a running training shows itself: a bar on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

PLAIN_EVERY_SEC = 15.0


class Progress:
    """Tells of steps, records and notes. Use as a context manager around the loop."""

    def __init__(self, total: int, done: int, label: str) -> None:
        self.total, self.done, self.label = total, done, label
        self.bar: Any = None
        self.started, self.first = time.monotonic(), done
        self.told = -PLAIN_EVERY_SEC

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self.bar = make_bar()
            self.task = self.bar.add_task(
                self.label, total=self.total, completed=self.done, note=""
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, done: int) -> None:
        """The run stands at step `done`; a step back is a roll-back."""
        self.done = done
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a log record: the note beside the bar, or a plain line now and then."""
        note = short(record)
        if self.bar is not None:
            self.bar.update(self.task, note=note)
        elif time.monotonic() - self.told >= PLAIN_EVERY_SEC or self.done >= self.total:
            self.told = time.monotonic()
            self.note(f"{self.label}: step {self.done}/{self.total}  {note}  {self._eta()}")

    def note(self, message: str) -> None:
        """A line of its own."""
        if self.bar is not None:
            self.bar.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def _eta(self) -> str:
        run = self.done - self.first
        if run <= 0 or self.done >= self.total:
            return ""
        left = (time.monotonic() - self.started) / run * (self.total - self.done)
        return f"{duration(left)} left"


def make_bar() -> Any:
    """The rich progress bar with rate and ETA."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def short(record: Mapping[str, Any]) -> str:
    """The few numbers worth a glance: error per element, KL, rate."""
    error = record.get("nll_per_element")
    parts = [] if error is None else [f"error {error:.4f}"]
    kls = [v for k, v in record.items() if k.startswith("kl/") and v is not None]
    parts += [f"KL {sum(kls):.1f}"] if kls else []
    return "  ".join([*parts, f"{record['images_per_second']:.1f} images/s"])


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
