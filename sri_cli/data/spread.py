"""Work spread over processes, its results in order; little of it is waiting at any time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from itertools import islice
from typing import Any, TypeVar

from sri_cli.data.parallel import submit, worker_pool
from sri_cli.errors import SriFailure

Key = TypeVar("Key")
Result = TypeVar("Result")
TASKS_AHEAD = 4  # for each worker


def spread(
    make: Callable[[Any], Result],
    items: Iterable[tuple[Key, Any]],
    workers: int,
    per_task: int = 1,
) -> Generator[tuple[Key, Result]]:
    """(key, make(item)) of each (key, item), made by `workers` processes, `per_task` at a time.

    `make` must be picklable when there are several. Closing the iterator ends the workers; what
    they are at is thrown away. BrokenProcessPool when one was killed.
    """
    source = iter(items)
    if workers == 1:
        for key, item in source:
            yield key, make(item)
        return
    pool = worker_pool(workers)
    waiting: deque[tuple[list[Key], Future[list[Result]]]] = deque()
    try:
        while True:
            while len(waiting) < TASKS_AHEAD * workers:
                task = list(islice(source, per_task))
                if not task:
                    break
                work = submit(pool, make, [item for _, item in task])
                waiting.append(([key for key, _ in task], work))
            if not waiting:
                return
            keys, made = waiting.popleft()
            yield from zip(keys, made.result(), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_killed(command: str) -> SriFailure:
    """What to raise for a BrokenProcessPool; `command` is what was called."""
    return SriFailure(
        "a worker process was killed, perhaps for want of memory",
        f"go on with fewer: {command} --workers 1",
    )
