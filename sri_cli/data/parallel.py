"""Work done by several processes, results in order; workers end with their parent process."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from sri_cli.errors import SriFailure

Key = TypeVar("Key")
Result = TypeVar("Result")
TASKS_AHEAD = 4  # queued for each worker


def parallel_map(
    make: Callable[[Any], Result],
    items: Iterable[tuple[Key, Any]],
    workers: int,
    items_per_task: int = 1,
) -> Generator[tuple[Key, Result]]:
    """(key, make(item)) of each (key, item), in order, made by `workers` processes.

    Only a few tasks are taken from `items` ahead of time. `make` must be picklable when there are
    several workers. Closing the generator ends the workers.

    Raises:
        BrokenProcessPool: a worker was killed; see `worker_killed`.
    """
    source = iter(items)
    if workers == 1:
        for key, item in source:
            yield key, make(item)
        return
    # Spawned, not forked: a forked process could inherit a lock that a thread holds.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent)
    waiting: deque[tuple[list[Key], Future[list[Result]]]] = deque()
    try:
        while True:
            while len(waiting) < TASKS_AHEAD * workers:
                task = list(islice(source, items_per_task))
                if not task:
                    break
                work = _submit(pool, make, [item for _, item in task])
                waiting.append(([key for key, _ in task], work))
            if not waiting:
                return
            keys, made = waiting.popleft()
            yield from zip(keys, made.result(), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_killed(command: str) -> SriFailure:
    """The failure to raise for a BrokenProcessPool; `command` is what the user typed."""
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word == "--workers":
            del words[:1]
        elif not word.startswith("--workers="):
            kept.append(word)
    return SriFailure(
        "a worker process was killed, perhaps because memory ran out",
        f"resume with fewer workers: {shlex.join([*kept, '--workers', '1'])}",
    )


def _submit(
    pool: ProcessPoolExecutor, make: Callable[[Any], Result], items: Sequence[Any]
) -> Future[list[Result]]:
    """Workers started here ignore Ctrl-C (they inherit the signal mask): the parent handles it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_make_all, make, items)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_all(make: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
    return [make(item) for item in items]


def _end_with_parent() -> None:
    """In the worker: exit when the parent is gone, even if it was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
