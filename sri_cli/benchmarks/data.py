"""`sri bench data`: how fast batches come from a data file, and what a training step needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.benchmarks.timing import Timed, digits, machine_line, repeat, timing_table
from sri_cli.benchmarks.train import step_bench, step_times
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.loader import Batches, Place
from sri_cli.data.writer import Header, StoreWriter
from sri_cli.device import choose_device, to_device
from sri_cli.rng import draw_noise
from sri_cli.training.step_timing import machine

PLACES: dict[str, Place] = {"resident": "device", "host": "memory", "streamed": "file"}
BATCHES_A_REPEAT = 20
MADE_IMAGES = 4096  # of a file that stands in: 50 MB at 64 px


def bench_data(
    recipe: Recipe,
    data: DataFile,
    repeats: int = 5,
    device: str = "auto",
    *,
    steps: int = 3,
    way: str | None = None,
    caption: str | None = None,
) -> dict[str, Any]:
    """Times batches that are resident on the device, held by the host, streamed from the file.

    Beside them the noise of a step, drawn by the host, and the step itself (`steps` of them): both
    inputs are made in a thread while a step runs, so together they must not take longer than it.
    `way`: how the step is run, one of `train.WAYS`.
    """
    place = choose_device(device)
    data.check_size(recipe.model.image_size)
    images = data.split("train").images
    batch = min(recipe.train.batch, len(images))
    rows = []
    for name, where in PLACES.items():
        batches = Batches(images, batch, recipe.train.seed, place, place=where)
        rows.append(_timed(name, batches.at, repeats, place))
    with step_bench(recipe, place, way) as (bench, _):
        specs = bench.step.model.training_noise()
        noise = _timed(
            "noise",
            lambda step: [
                to_device(noise, place)
                for noise in draw_noise(specs, recipe.train.batch, 0, step).values()
            ],
            repeats,
            place,
        )
        bench.warm_up()
        step = Timed("training step", "steps", 1, step_times(bench, steps, float("inf")))
        dtype = bench.precision
    input_seconds = {row.what: (row.median + noise.median) / BATCHES_A_REPEAT for row in rows}
    return {
        "recipe": recipe.name,
        **machine(place),
        "dtype": dtype,
        "batch": batch,
        "images": caption or str(data.path),
        "image_count": len(images),
        "megabytes": images.nbytes / 1e6,
        "rows": [row.record() for row in (*rows, noise, step)],
        "batches_per_second_needed": step.per_second,
        "input_seconds": input_seconds,
        "input_share_of_step": {name: s / step.median for name, s in input_seconds.items()},
    }


def _timed(name: str, make: Any, repeats: int, device: Any) -> Timed:
    """`BATCHES_A_REPEAT` of them a repeat, every one another."""

    def work(number: int) -> None:
        first = (number + 1) * BATCHES_A_REPEAT
        for step in range(first, first + BATCHES_A_REPEAT):
            make(step)

    return Timed(name, "batches", BATCHES_A_REPEAT, repeat(work, repeats, device))


@contextmanager
def made_file(size: int, images: int = MADE_IMAGES) -> Iterator[DataFile]:
    """A data file of noise in a temporary folder, gone afterwards."""
    counts = {split: images if split == "train" else 1 for split in SPLITS}
    header = Header("noise", size, "simulated", 1, {"seed": 0}, "none", counts)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="sri-bench-") as folder:
        path = Path(folder) / f"noise-{size}.h5"
        with StoreWriter(path, header) as writer:
            for split, count in counts.items():
                pictures = random.integers(0, 256, (count, size, size, 3), np.uint8)
                writer.append(split, pictures, np.zeros((count, size, size), np.uint8), {})
            writer.finish()
        yield DataFile(path)


def data_text(result: dict[str, Any]) -> str:
    """The figures for people."""
    shares = ", ".join(
        f"{name} {share:.0%}" for name, share in result["input_share_of_step"].items()
    )
    return "\n".join(
        [
            machine_line(result),
            f"{result['images']}: {result['image_count']:,} images,"
            f" {digits(result['megabytes'])} MB; batches of {result['batch']};"
            f" {result['recipe']}, {result['dtype']}",
            timing_table(result["rows"]),
            f"the step needs {digits(result['batches_per_second_needed'])} batches a second;"
            f" images and noise take of its time: {shares} (beside it, in a thread)",
            "streamed: from a file that the system holds in memory by now, as in training",
        ]
    )
