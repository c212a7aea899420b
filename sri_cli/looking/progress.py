"""Counting images as they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sri_cli.progress import Progress

KEPT_SEC = 1e-4  # per image


@contextmanager
def counting(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields advance(more); everything goes to stderr."""
    with Progress(total, 0, label, "image") as progress:
        last = time.monotonic()

        def advance(more: int) -> None:
            nonlocal last
            before, last = last, time.monotonic()
            done = progress.done + more
            # A block so fast is no network's work: it was kept from before, and would spoil rate
            # and ETA. Single images come in bursts from worker processes.
            if more > 1 and last - before < more * KEPT_SEC:
                progress.start_at(done)
            else:
                progress.advance(done)
            progress.tell()

        yield advance
