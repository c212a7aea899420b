"""Counting images as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sri_cli.progress import Progress


@contextmanager
def counting(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields advance(more); everything goes to stderr."""
    with Progress(total, 0, label, "image") as progress:

        def advance(more: int) -> None:
            progress.advance(progress.done + more)
            progress.tell()

        yield advance
