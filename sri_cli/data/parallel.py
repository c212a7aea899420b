"""Worker processes that end with their parent and leave its signals to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Fresh processes: forked ones could inherit a lock that a thread holds."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=follow_parent)


def submit(
    pool: ProcessPoolExecutor, make: Callable[[Any], T], items: Sequence[Any]
) -> Future[list[T]]:
    """Have `make` called for every item. A worker started here never sees Ctrl-C itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
    try:
        return pool.submit(make_all, make, list(items))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_all(make: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
    """In the worker."""
    return [make(item) for item in items]


def follow_parent() -> None:
    """In the worker: end when the parent is gone, killed even, instead of waiting for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
