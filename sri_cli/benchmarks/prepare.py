"""`sri bench prepare`: scenes a second of every simulator, at one worker and at many."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from sri_cli.benchmarks.timing import Timed, machine_line, timing_table
from sri_cli.data.parallel import available_cores, parallel_map
from sri_cli.data.source import TASK_ROWS, Options, Source
from sri_cli.data.sources.multi_object import simulated_job
from sri_cli.data.sources.records import SETS
from sri_cli.data.sources.shapestacks import AskedTowers, choose_towers, towers_job
from sri_cli.errors import SriError, did_you_mean
from sri_cli.training.step_timing import machine

Jobs = dict[str, Callable[[], Source]]
SIMULATORS: Jobs = {
    "shapestacks": lambda: towers_job(choose_towers(AskedTowers())),
    "demo-towers": lambda: towers_job(choose_towers(AskedTowers(preset="demo"))),
    "objects-room": lambda: simulated_job(SETS["objects-room"], Options()),
    "clevr6": lambda: simulated_job(SETS["clevr6"], Options()),
}


def parse_simulators(text: str | None) -> list[str]:
    """'clevr6,objects-room' -> names; None: all. SriError for unknown ones."""
    names = list(SIMULATORS) if text is None else list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in SIMULATORS:
            near = did_you_mean(name, SIMULATORS)
            raise SriError(f"no simulator {name!r}{near}", f"--sets {','.join(SIMULATORS)}")
    return names


def worker_numbers() -> list[int]:
    """One, and one for each core."""
    return sorted({1, available_cores()})


def bench_prepare(
    names: Sequence[str] = tuple(SIMULATORS),
    scenes: int = 8,
    repeats: int = 3,
    workers: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Times blocks of `scenes` scenes (for each worker) that come from running workers."""
    rows = []
    for name in names:
        job = SIMULATORS[name]()
        for number in workers or worker_numbers():
            rows.append(_row(name, job, scenes * number, repeats, number))
    return {**machine(torch.device("cpu")), "rows": rows}


def _row(name: str, job: Source, scenes: int, repeats: int, workers: int) -> dict[str, Any]:
    """The first block is the warm-up: workers start, textures are made."""
    # What comes of a worker's task comes at once: blocks shorter than a task would time nothing.
    task = min(job.items_per_task or max(1, TASK_ROWS // job.views), max(1, scenes // workers))
    items = ((index, index) for index in range((repeats + 1) * scenes))
    times = []
    with closing(parallel_map(job.make, items, workers, task)) as made:
        for _ in range(repeats + 1):
            began = time.perf_counter()
            for _ in range(scenes):
                next(made)
            times.append(time.perf_counter() - began)
    crew = f"{workers} worker" + "s" * (workers > 1)
    timed = Timed(f"{name}, {job.header.size} px, {crew}", "scenes", scenes, times[1:])
    views = {"views": job.views, "workers": workers, "simulator": name, "size_px": job.header.size}
    return timed.record() | views | {"images_per_second": timed.per_second * job.views}


def prepare_text(result: dict[str, Any]) -> str:
    """The figures for people."""
    notes = [
        f"{row['what']}: {row['images_per_second']:.1f} images/s ({row['views']} views a scene)"
        for row in result["rows"]
    ]
    return "\n".join([machine_line(result), timing_table(result["rows"]), *notes])
