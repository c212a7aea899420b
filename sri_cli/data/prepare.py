"""From scenarios to a data file: made by worker processes, written in order, resumable.

The rows of a file depend on (parameters, scenario index) alone, so any number of workers, and any
interruption, gives the same file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.store import SPLITS, DataFile
from sri_cli.data.workers import available_cores, submit, worker_pool
from sri_cli.data.writer import Header, StoreWriter
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.progress import Progress
from sri_cli.signals import StopFlag, stop_on_signal

ROWS_PER_FLUSH = 1000
TASK_ROWS = 16  # a task of this many rows costs far more than handing it over
TASKS_AHEAD = 4  # for each worker
# Each split counts its scenarios from here: none is shared, whatever the sizes of the splits.
FIRST_SCENARIO = {"train": 0, "val": 1_000_000, "test": 2_000_000}
MAX_SCENARIOS = 1_000_000


class Scenario(Protocol):
    """The views of one scene; V views, factors with V as their first axis."""

    @property
    def name(self) -> str: ...
    @property
    def images(self) -> NDArray[np.uint8]: ...  # [V,H,W,3]
    @property
    def masks(self) -> NDArray[np.uint8]: ...  # [V,H,W]
    @property
    def factors(self) -> Mapping[str, NDArray[Any]]: ...  # [V,...]
    @property
    def discarded(self) -> int: ...  # attempts that physics contradicted


@dataclass(frozen=True)
class Job:
    """What to make: `make(index)` gives the scenario; `scenarios` counts them by split."""

    header: Header
    scenarios: Mapping[str, int]
    views: int
    make: Callable[[int], Scenario]  # picklable: workers are fresh processes


@dataclass(frozen=True)
class Prepared:
    """What a preparation came to; `made` counts the images of this call (0: all were there)."""

    data: DataFile
    made: int
    resumed_from: int
    seconds: float

    @property
    def views_per_second(self) -> float:
        """How fast this call made images."""
        return self.made / self.seconds if self.seconds > 0 else 0.0


def prepare(
    job: Job,
    path: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare",
) -> Prepared:
    """Make the data file of `job`, or go on with it; what is there already is kept.

    Raises SriError when another file lies there and not `force`, Interrupted (75) after a signal
    with the rows so far saved, SriFailure when the disk will not take it.
    """
    total = sum(job.header.counts.values())
    with Progress(total, 0, f"prepare {job.header.name}", "view") as progress:
        if not force and path.exists():
            data = same_file(job.header, path)
            progress.note(f"{path} is there and up to date")
            return Prepared(data, 0, total, 0.0)
        began = time.monotonic()
        with StoreWriter(path, job.header) as writer, stop_on_signal() as stop:
            done = sum(writer.rows.values())
            progress.start_at(done)
            progress.note(opening(job, writer, workers or available_cores()))
            with closing(Maker(job, workers or available_cores())) as maker:
                write_all(job, writer, maker, stop, progress, command)
            writer.finish()
    return Prepared(DataFile(path), total - done, done, time.monotonic() - began)


def write_all(
    job: Job,
    writer: StoreWriter,
    maker: Maker,
    stop: StopFlag,
    progress: Progress,
    command: str,
) -> None:
    """Make and append what is missing, split by split."""
    for split in SPLITS:
        first = writer.rows[split] // job.views
        indices = range(first, job.scenarios[split])
        block: list[Scenario] = []
        try:
            for scenario in maker.scenarios([FIRST_SCENARIO[split] + i for i in indices]):
                block.append(scenario)
                progress.advance(sum(writer.rows.values()) + len(block) * job.views)
                progress.tell()
                if len(block) * job.views >= ROWS_PER_FLUSH:
                    write_block(writer, split, block)
                    block = []
                if stop.name:
                    break
        except BrokenProcessPool as error:
            if not stop.name:
                raise SriFailure(
                    "a worker process was killed, perhaps for want of memory",
                    f"go on with fewer: {command} --workers 1",
                ) from error
        if block:
            write_block(writer, split, block)
        if stop.name:
            done = sum(writer.rows.values())
            raise Interrupted(
                f"stopped by {stop.name} after {done} of {progress.total} views, kept in"
                f" {writer.partial}",
                f"go on: {command}",
            )


def write_block(writer: StoreWriter, split: str, block: list[Scenario]) -> None:
    """Append scenarios, one after the other."""
    names = np.repeat([scenario.name for scenario in block], len(block[0].images))
    factors = {
        key: np.concatenate([scenario.factors[key] for scenario in block])
        for key in sorted(block[0].factors)
    }
    writer.append(
        split,
        np.concatenate([scenario.images for scenario in block]),
        np.concatenate([scenario.masks for scenario in block]),
        factors | {"scenario": names.astype("S64")},
        sum(scenario.discarded for scenario in block),
    )


class Maker:
    """Makes scenarios in order, in this process or in `workers` others."""

    def __init__(self, job: Job, workers: int) -> None:
        self.job, self.workers = job, workers
        self.per_task = max(1, TASK_ROWS // job.views)
        self.pool: ProcessPoolExecutor | None = worker_pool(workers) if workers > 1 else None

    def scenarios(self, indices: list[int]) -> Iterator[Scenario]:
        """The scenarios of these indices, in this order."""
        if self.pool is None:
            yield from map(self.job.make, indices)
            return
        starts = iter(range(0, len(indices), self.per_task))
        waiting: deque[Future[list[Scenario]]] = deque()
        while True:
            while len(waiting) < TASKS_AHEAD * self.workers:
                start = next(starts, None)
                if start is None:
                    break
                task = indices[start : start + self.per_task]
                waiting.append(submit(self.pool, self.job.make, task))
            if not waiting:
                return
            yield from waiting.popleft().result()

    def close(self) -> None:
        """End the workers; what they are at is thrown away."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)


def same_file(header: Header, path: Path) -> DataFile:
    """The file that is there, if it holds what `header` asks for; SriError with the differences."""
    data = DataFile(path)
    changed = differences(data, header)
    if changed:
        raise SriError(
            f"{path} was made otherwise: {'; '.join(changed)}",
            "keep it and choose another file with --out FILE, or replace it: --force",
        )
    return data


def differences(data: DataFile, header: Header) -> list[str]:
    """What of a file is not as `header` says, as `seed 0 -> 1`."""
    was = data.attrs["parameters"] | {"name": data.name, "source": data.source, "size": data.size}
    now = dict(header.parameters) | {
        "name": header.name,
        "source": header.source,
        "size": header.size,
    }
    return [
        f"{key} {was.get(key)} -> {now.get(key)}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]


def opening(job: Job, writer: StoreWriter, workers: int) -> str:
    """The note a preparation begins with."""
    done, total = sum(writer.rows.values()), sum(job.header.counts.values())
    what = (
        f"{job.header.name}, {job.header.source}: {sum(job.scenarios.values()):,} scenarios x"
        f" {job.views} views at {job.header.size} px -> {writer.path}"
        f" ({workers} worker{'s' if workers > 1 else ''})"
    )
    if writer.started_anew:
        return f"{what}\nNote: what lay in {writer.partial} was something else; starting anew"
    return f"{what}\nresuming after {done} of {total} views" if done else what
