"""`sri bench train`: seconds per training step, on one device or on several GPUs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from sri_cli.benchmarks.measure import (
    measure,
    peak_flop_per_second,
    profile_once,
    report_text,
    timings,
)
from sri_cli.config.schema import Recipe
from sri_cli.console import format_table
from sri_cli.cores import OtherProcesses
from sri_cli.device import choose_device
from sri_cli.errors import SriFailure
from sri_cli.training.distributed import Ranks, joined
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.launch import check_gpus, first_reason, start_together
from sri_cli.training.step_timing import StepBench, machine, wait_for
from sri_cli.training.trainer import peak_memory_mb

ALL_REDUCES = 10


def bench_training(
    recipe: Recipe, device_name: str, seconds: float, profile: bool = False
) -> dict[str, Any]:
    """Time training steps on random images for at least `seconds`.

    Args:
        profile: also profile one more step.

    Returns:
        A JSON object; `seconds_per_step` is the median, `images_per_second` follows from it.

    Raises:
        SriError: for a GPU that does not exist.
    """
    device = choose_device(device_name)
    with closing(StepBench(recipe, device)) as bench:
        bench.warm_up()
        others = OtherProcesses()  # without the compilers of the warm-up
        timing = measure(bench.timed, seconds)
        busy, memory = others.in_use(), peak_memory_mb(device)
        metrics = bench.step.read_metrics()
        profiled = profile_once(bench.timed, device) if profile else {}
    # Compiled code hides its calls, so that an eager step is counted.
    with closing(StepBench(recipe, device, mode=ExecutionMode(bench.mode.precision))) as eager:
        eager.run(0)  # creates the optimiser's state
        counts = eager.counts()
    flop_per_second = 1e9 * counts["gflop_per_step"] / timing.median
    peak = peak_flop_per_second(device, bench.mode.precision)
    return {
        "recipe": recipe.name,
        "image_size": recipe.model.image_size,
        "slots": recipe.model.slots,
        "batch": recipe.train.batch,
        "parameters": bench.parameters,
        **machine(device),
        "dtype": bench.mode.precision,
        "execution": str(bench.mode),
        "seconds_per_step": timing.median,
        **timings(timing),
        "images_per_second": recipe.train.batch / timing.median,
        **counts,
        "flop_per_second": flop_per_second,
        "peak_flop_per_second": peak,
        "share_of_peak": flop_per_second / peak,
        "loss": metrics["loss"] if math.isfinite(metrics["loss"]) else None,
        "skipped": metrics["skipped"],
        "memory_mb": memory,
        "busy_cores": busy,
        **profiled,
    }


def bench_gpus(
    recipe: Recipe, gpus: Sequence[int], seconds: float, cpu: bool = False
) -> dict[str, Any]:
    """Time the recipe's global batch on each number of GPUs (`cpu`: of CPU processes).

    Returns:
        A JSON object whose `rows` hold seconds per step, seconds of the all-reduce, images per
        second, and the efficiency per process against the first row.

    Raises:
        SriError: for more GPUs than there are, or than the batch has images.
        SriFailure: a process fails.
    """
    if not cpu:
        check_gpus(max(gpus))
    Ranks(world=max(gpus)).check_batch(recipe.train.batch)
    device = "cpu" if cpu else "cuda"
    rows = []
    for count in gpus:
        try:
            results = start_together(count, _bench_rank, recipe, seconds, device)
        except SignalException as stop:
            raise KeyboardInterrupt from stop
        except ChildFailedError as lost:
            raise SriFailure(
                first_reason(lost), "use fewer processes, or a smaller batch"
            ) from lost
        step, reduce = (max(values) for values in zip(*results.values(), strict=True))
        rows.append(
            {
                "processes": count,
                "seconds_per_step": step,
                "all_reduce_seconds": reduce,
                "images_per_second": recipe.train.batch / step,
            }
        )
    first = rows[0]["seconds_per_step"] * gpus[0]
    for row in rows:
        row["efficiency"] = first / (row["seconds_per_step"] * row["processes"])
    info = machine(torch.device(device))
    return {"recipe": recipe.name, **info, "batch": recipe.train.batch, "rows": rows}


def _bench_rank(recipe: Recipe, seconds: float, device: str) -> tuple[float, float]:
    """Median seconds of a step, and of an all-reduce of its gradients, in one of the processes."""
    with joined(device) as (ranks, chosen):
        with closing(StepBench(recipe, chosen, ranks=ranks)) as bench:
            bench.warm_up()
            # Every step waits for all ranks, so they must agree on the number of steps.
            steps = ranks.highest(max(3, round(seconds / bench.timed())))
            step = statistics.median(bench.timed() for _ in range(steps))
        gradients = torch.zeros(bench.parameters, device=chosen)
        times = [_timed_all_reduce(gradients) for _ in range(ALL_REDUCES)]
    return step, statistics.median(times[1:])


def _timed_all_reduce(gradients: Tensor) -> float:
    began = time.perf_counter()
    dist.all_reduce(gradients)
    wait_for(gradients.device)
    return time.perf_counter() - began


def training_text(result: dict[str, Any]) -> str:
    """The result of `bench_training` for people."""
    loss = "not finite" if result["loss"] is None else f"{result['loss']:.1f}"
    lines = [
        f"{result['recipe']}: {result['parameters']:,} parameters, {result['image_size']} px,"
        f" {result['slots']} slots, batch {result['batch']}, {result['execution']}",
        f"{result['seconds_per_step']:.3f} s per step (median of {result['repeats']}, interquartile"
        f" range {result['seconds_iqr']:.3f}, minimum {result['seconds_min']:.3f}),"
        f" {result['images_per_second']:.1f} images/s",
        f"{result['gflop_per_step']:.1f} GFLOP, {result['aten_calls']:,} ATen calls,"
        f" {result['host_reads']} host reads per step",
        f"{result['flop_per_second'] / 1e9:,.0f} GFLOP/s, {result['share_of_peak']:.0%} of the"
        f" {result['peak_flop_per_second'] / 1e9:,.0f} GFLOP/s that this machine reaches",
        f"memory: {result['memory_mb']:,.0f} MB at the peak",
        f"loss {loss}, {result['skipped']} steps skipped",
    ]
    return report_text(result, lines)


def gpus_text(result: dict[str, Any]) -> str:
    """The result of `bench_gpus` for people."""
    header = ["processes", "s per step", "all-reduce s", "images/s", "efficiency"]
    rows = [
        [
            str(row["processes"]),
            f"{row['seconds_per_step']:.4f}",
            f"{row['all_reduce_seconds']:.4f}",
            f"{row['images_per_second']:.1f}",
            f"{row['efficiency']:.0%}",
        ]
        for row in result["rows"]
    ]
    title = f"{result['recipe']}, global batch {result['batch']}"
    return report_text(result, [title, format_table(header, rows)])
