"""`sri bench data`: batches per second from a data file, and how many a training step needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.benchmarks.measure import measure, report_text, timings
from sri_cli.config.schema import Recipe
from sri_cli.console import format_table
from sri_cli.data.loader import Batches, Storage
from sri_cli.device import choose_device
from sri_cli.rng import draw_noise
from sri_cli.training.step_timing import StepBench, machine

STORAGES: dict[str, Storage] = {"resident": "device", "host": "memory", "streamed": "file"}
NOISE_IMAGES = 4096  # 50 MB at 64 px


def bench_data(
    recipe: Recipe, images: NDArray[np.uint8], source: str, device_name: str, seconds: float
) -> dict[str, Any]:
    """Time batches that are resident on the device, held by the host and streamed from the file.

    `images` [N,H,W,3] are mapped from that file, which `source` names. Beside the batches the noise
    of a step, drawn by the host, and the step itself; each for `seconds`. Batch and noise of the
    next step are prepared in a thread while a step runs, so together they must not take longer than
    it: `input_share_of_step` below 1.
    """
    device = choose_device(device_name)
    batch, seed = recipe.train.batch, recipe.train.seed
    work: dict[str, Callable[[int], object]] = {
        name: Batches(images, batch, seed, device, storage=storage).at
        for name, storage in STORAGES.items()
    }
    with closing(StepBench(recipe, device)) as bench:
        specs = bench.step.model.training_noise()
        work["noise"] = lambda step: draw_noise(specs, batch, seed, step)
        bench.warm_up()
        work["training step"] = lambda step: bench.timed()
        rows = {name: _timed(make, seconds) for name, make in work.items()}
    step, noise = (rows[name]["seconds_median"] for name in ("training step", "noise"))
    return {
        "recipe": recipe.name,
        **machine(device),
        "dtype": bench.mode.precision,
        "batch": batch,
        "images": source,
        "image_count": len(images),
        "megabytes": images.nbytes / 1e6,
        "rows": [{"what": name} | row for name, row in rows.items()],
        "batches_per_second_needed": 1 / step,
        "input_share_of_step": {
            name: (rows[name]["seconds_median"] + noise) / step for name in STORAGES
        },
    }


def _timed(make: Callable[[int], object], seconds: float) -> dict[str, float]:
    steps = count()
    row = timings(measure(lambda: make(next(steps)), seconds))
    return row | {"per_second": 1 / row["seconds_median"]}


def noise_images(size: int, batch: int) -> NDArray[np.uint8]:
    """Random images [N,H,W,3], at least a batch, mapped from a temporary file without a name."""
    shape = (max(NOISE_IMAGES, batch), size, size, 3)
    with tempfile.TemporaryFile() as file:
        file.write(np.random.default_rng(0).integers(0, 256, shape, np.uint8).data)
        file.flush()  # through a mapping a full disk would kill the process
        return np.memmap(file, np.uint8, "r", shape=shape)


def data_text(result: dict[str, Any]) -> str:
    """The result of `bench_data` for people."""
    header = ["", "ms", "per second"]
    rows = [
        [row["what"], f"{1e3 * row['seconds_median']:.3f}", f"{row['per_second']:,.1f}"]
        for row in result["rows"]
    ]
    shares = ", ".join(
        f"{name} {share:.1%}" for name, share in result["input_share_of_step"].items()
    )
    lines = [
        f"{result['images']}: {result['image_count']:,} images, {result['megabytes']:.0f} MB;"
        f" batches of {result['batch']}; {result['recipe']}, {result['dtype']}",
        format_table(header, rows),
        f"batch and noise, prepared beside the step, take of its time: {shares}",
    ]
    return report_text(result, lines)
