"""Work done by several processes, results in order; workers end with their parent process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from sri_cli.errors import SriFailure

Result = TypeVar("Result")
TASKS_AHEAD = 4  # queued for each worker


def parallel_map(
    make: Callable[[Any], Result],
    items: Iterable[Any],
    workers: int,
    items_per_task: int = 1,
) -> Generator[Result]:
    """make(item) of each item, in order, made by `workers` processes.

    Only a few tasks are taken from `items` ahead of time. `make` must be picklable when there are
    several workers. Closing the generator ends the workers.

    Raises:
        BrokenProcessPool: a worker was killed; see `worker_killed`.
    """
    if workers == 1:
        yield from map(make, items)
        return
    source = iter(items)
    # Spawned, not forked: a forked process could inherit a lock that a thread holds.
    context = multiprocessing.get_context("spawn")
    with _signals_blocked():  # it starts a process that keeps track of semaphores
        pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make,))
    waiting: deque[Future[list[Result]]] = deque()
    try:
        while True:
            while len(waiting) < TASKS_AHEAD * workers:
                task = list(islice(source, items_per_task))
                if not task:
                    break
                with _signals_blocked():
                    waiting.append(pool.submit(_make_all, task))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_killed(command: str) -> SriFailure:
    """The failure to raise for a BrokenProcessPool; `command` is what the user typed."""
    return SriFailure(
        "a worker process was killed, perhaps because memory ran out",
        f"free memory, or let `sri prepare` use --workers 1; resume with: {command}",
    )


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes started here inherit the mask: they ignore Ctrl-C and a closed terminal, which the
    parent handles."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_make: Callable[[Any], Any]  # of this worker


def _make_all(items: Sequence[Any]) -> list[Any]:
    return [_make(item) for item in items]


def _start(make: Callable[[Any], Any]) -> None:
    """In the worker: keep `make`; exit when the parent is gone, even if it was killed."""
    global _make
    _make = make
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
