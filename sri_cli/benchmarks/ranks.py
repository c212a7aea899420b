"""`sri bench train --gpus 1,2,4,8`: a row for each number of GPUs, measured or modelled."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sri_cli.benchmarks import scaling
from sri_cli.benchmarks.scaling import Curve, Terms, link_between, scaling_table, share_of
from sri_cli.benchmarks.timing import machine_line, repeat
from sri_cli.benchmarks.train import block_of, counts_of, way_named
from sri_cli.config.schema import Recipe
from sri_cli.data.loader import Batches
from sri_cli.device import Precision, choose_device, choose_precision, to_device
from sri_cli.errors import SriError, SriFailure
from sri_cli.models.build import build_model
from sri_cli.rng import draw_noise
from sri_cli.training.distributed import joined
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.step_timing import StepBench, machine, wait_for

INPUT_STEPS, REDUCTIONS = 10, 10
IMAGES = 1024  # that batches are picked from


@dataclass(frozen=True)
class Asked:
    """What the table is to be of.

    `way`: how steps are run, one of `train.WAYS`; `backend` gloo: as many processes on the CPU,
    all measured; `given`: seconds a step by images a GPU that were measured elsewhere; bandwidth
    and latency stand in for those of the links.
    """

    gpus: Sequence[int]
    steps: int = 5
    way: str | None = None
    backend: str | None = None
    bandwidth_gb: float | None = None
    latency_us: float | None = None
    given: dict[int, float] | None = None


def bench_scaling(recipe: Recipe, asked: Asked) -> dict[str, Any]:
    """A row for each number, ready for JSON; SriError for more GPUs than a batch has images."""
    device = torch.device("cpu") if asked.backend == "gloo" else choose_device()
    batch = recipe.train.batch
    if max(asked.gpus) > batch:
        raise SriError(
            f"a batch of {batch} for {max(asked.gpus)} GPUs leaves some without an image",
            f"--batch {max(asked.gpus)}",
        )
    parameters = count_parameters(recipe)
    shares = sorted({share_of(batch, gpus) for gpus in (1, *asked.gpus)})
    terms = Terms(
        batch,
        Curve(asked.given or compute_seconds(recipe, shares, asked, device)),
        Curve({share: input_seconds(recipe, share, device) for share in shares}),
        parameters * scaling.BYTES_PER_PARAMETER,
    )
    rows = [row_for(gpus, recipe, terms, asked, device) for gpus in asked.gpus]
    precision = choose_precision(recipe.train.precision, device)
    alone = terms.compute.seconds(batch)
    return {
        "recipe": recipe.name,
        **machine(device),
        "dtype": precision,
        "batch": batch,
        "parameters": parameters,
        "seconds_per_step": alone,
        "images_per_second": batch / alone,
        "gflop_per_step": gflop_of(recipe, device, precision),
        "rows": rows,
        "backend": asked.backend,
        "all_reduce_bytes": terms.num_bytes,
        "compute_points": {str(share): seconds for share, seconds in terms.compute.points.items()},
        "compute_given": asked.given is not None,
        "links": [
            vars(link_between(gpus, asked.bandwidth_gb, asked.latency_us))
            for gpus in asked.gpus
            if gpus > 1
        ],
    }


def row_for(
    gpus: int, recipe: Recipe, terms: Terms, asked: Asked, device: torch.device
) -> dict[str, Any]:
    """Measured where the machine has as many GPUs, or where processes stand for them."""
    share = share_of(terms.batch, gpus)
    inputs = terms.inputs.seconds(share)
    if asked.given is None and gpus == 1:
        return terms.row(1, terms.compute.seconds(share), 0.0, inputs) | {"how": "measured"}
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if asked.given is None and (asked.backend == "gloo" or gpus <= there):
        step, reduce = measured_on(gpus, recipe, asked, device.type)
        row = terms.row(gpus, max(0.0, step - reduce), reduce, inputs, step)
        return row | {"how": "measured", "link": asked.backend}
    if gpus == 1:
        return terms.row(1, terms.compute.seconds(share), 0.0, inputs) | {"how": "modelled"}
    return terms.modelled(gpus, link_between(gpus, asked.bandwidth_gb, asked.latency_us))


def compute_seconds(
    recipe: Recipe, shares: Sequence[int], asked: Asked, device: torch.device
) -> dict[int, float]:
    """The median of a step with so many images, on one device."""
    found = {}
    for share in shares:
        bench = StepBench(with_batch(recipe, share), device, mode=way_of(recipe, asked.way, device))
        block = block_of(device, asked.steps)
        found[share] = statistics.median(bench.seconds(asked.steps // block, block))
        bench.close()
    return found


def input_seconds(recipe: Recipe, share: int, device: torch.device) -> float:
    """What the host takes to draw the noise of so many images of the batch and to pick them."""
    rows, batch, size = slice(0, share), recipe.train.batch, recipe.model.image_size
    specs = build_model(**recipe.model.model_dump()).training_noise()  # type: ignore[operator]
    pictures = np.zeros((max(IMAGES, batch), size, size, 3), np.uint8)
    batches = Batches(pictures, batch, 0, device, rows)

    def make(step: int) -> None:
        for noise in draw_noise(specs, batch, 0, abs(step), rows).values():
            to_device(noise, device)
        batches.at(abs(step))

    return statistics.median(repeat(make, INPUT_STEPS, device))


def measured_on(count: int, recipe: Recipe, asked: Asked, device: str) -> tuple[float, float]:
    """Seconds of a step and of its all-reduce with `count` processes that step together."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from sri_cli.training.launch import first_reason, start_together

    try:
        results = start_together(count, 0, in_process, recipe, asked, device)
    except ChildFailedError as lost:
        raise SriFailure(
            f"one of {count} processes was lost: {first_reason(lost)}",
            "`sri --debug bench train ...` says more",
        ) from lost
    # All wait for the slowest at every all-reduce.
    return max(step for step, _ in results.values()), max(r for _, r in results.values())


def in_process(recipe: Recipe, asked: Asked, device: str) -> tuple[float, float]:
    """What each process does: the median of its steps, and of all-reduces of as many bytes."""
    with joined(device) as (ranks, place):
        way = way_of(recipe, asked.way, place)
        bench = StepBench(recipe, place, mode=way, ranks=ranks)
        block = block_of(place, asked.steps)
        step = statistics.median(bench.seconds(asked.steps // block, block))
        bench.close()
        flat = torch.zeros(bench.parameters, device=place)
        times = []
        for _ in range(REDUCTIONS + 1):
            wait_for(place)
            began = time.perf_counter()
            dist.all_reduce(flat)
            wait_for(place)
            times.append(time.perf_counter() - began)
    return step, statistics.median(times[1:])


def way_of(recipe: Recipe, name: str | None, device: torch.device) -> ExecutionMode | None:
    """The way of this name in the recipe's precision; None: the recipe's own."""
    precision = choose_precision(recipe.train.precision, device)
    return None if name is None else way_named(name, precision, device)


def with_batch(recipe: Recipe, batch: int) -> Recipe:
    """The same with another batch."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch": batch})})


def gflop_of(recipe: Recipe, device: torch.device, precision: Precision) -> float:
    """Of a step on the whole batch, counted on one image: layers cost as many times as much."""
    counted = counts_of(with_batch(recipe, 1), device, precision)
    return recipe.train.batch * counted["gflop_per_step"]


def count_parameters(recipe: Recipe) -> int:
    """The trained numbers of its model."""
    model: Any = build_model(**recipe.model.model_dump())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def scaling_text(result: dict[str, Any]) -> str:
    """The table for people, and the terms of the model."""
    what = "processes" if result["backend"] == "gloo" else "GPUs"
    lines = [
        machine_line(result),
        f"{result['recipe']}: {result['parameters']:,} parameters, batch {result['batch']} over"
        f" all {what}, {result['dtype']}",
        scaling_table(result["rows"], what),
    ]
    if any(row["how"] == "modelled" for row in result["rows"]):
        lines += model_words(result)
    return "\n".join(lines)


def model_words(result: dict[str, Any]) -> list[str]:
    """What was put into the modelled rows."""
    megabytes = result["all_reduce_bytes"] / 1e6
    points = ", ".join(f"{share} images" for share in result["compute_points"])
    whose = "given" if result["compute_given"] else f"measured here ({result['device']})"
    links = {link["name"]: link for link in result["links"]}
    return [
        "modelled: step = max(compute + all-reduce, input)",
        f"  compute: {whose} at {points}; straight lines between",
        f"  all-reduce: {megabytes:.1f} MB of gradients in a ring of N: 2(N-1)/N x bytes/bandwidth"
        " + 2(N-1) x latency",
        *(
            f"    {link['name']}: {link['bandwidth'] / 1e9:g} GB/s, {link['latency'] * 1e6:g} us"
            f" ({link['source']})"
            for link in links.values()
        ),
        "  input: noise and images of a GPU's share, measured here; made beside the step before",
    ]
