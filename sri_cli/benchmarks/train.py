"""`sri bench train`: seconds a step, what it computes, how near that is to the machine's best."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sri_cli.benchmarks.memory import MemoryWatch
from sri_cli.benchmarks.peak import measured_peak
from sri_cli.benchmarks.profile import check_trace, profile_text, profiled
from sri_cli.benchmarks.timing import Attention, Timed, digits, machine_line, timing_table
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.data.loader import Batches
from sri_cli.device import Precision, choose_device, choose_precision
from sri_cli.errors import SriError
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.step_timing import StepBench, machine

WAYS = ("eager", "graph", "compiled", "compiled+graph")
GPU_BLOCK = 10  # steps between two waits for a GPU: in training the host runs ahead
IMAGES_OF_NOISE = "random noise"


def way_named(name: str, precision: Precision, device: torch.device) -> ExecutionMode:
    """One of WAYS in this precision; SriError for a graph without a GPU."""
    parts = name.split("+")
    if "graph" in parts and device.type != "cuda":
        raise SriError(f"--way {name}: only a GPU has CUDA graphs", "--way eager, or compiled")
    compiled = "compiled" in parts
    return ExecutionMode(precision, compiled, "graph" in parts, must_compile=compiled)


def bench_training(
    recipe: Recipe,
    steps: int = 5,
    device: str = "auto",
    *,
    way: str | None = None,
    data: DataFile | None = None,
    trace: Path | None = None,
    most_seconds: float = math.inf,
    counted: bool = True,
) -> dict[str, Any]:
    """Times at most `steps` steps, as many as fit `most_seconds`; ready for JSON.

    `way`: one of WAYS instead of what the recipe's train.compile comes to here; `data`: a file
    whose images are trained on instead of noise; `trace`: where a profile of one step goes;
    not `counted`: without FLOP, calls and the machine's peak, which take seconds.
    """
    if trace is not None:
        check_trace(trace)
    place = choose_device(device)
    with step_bench(recipe, place, way, data) as (bench, watch):
        began = time.perf_counter()
        bench.warm_up()
        ready = time.perf_counter() - began
        attention = Attention()
        times = step_times(bench, steps, most_seconds)
        heard = attention.report()
        found = {"warm_up_seconds": ready, **watch.report(), **outcome(bench)}
        profile = {} if trace is None else profiled(lambda: bench.timed(), place, trace)
        name, parameters = bench.precision, bench.parameters
        notes = [*bench.step.notes, *heard["notes"]]
        used = bench.mode
    work = computed(recipe, place, name) if counted else {}
    timed = Timed(
        "step",
        "images",
        recipe.train.batch,
        times,
        1e9 * work["gflop_per_step"] if counted else None,
        work.get("peak_flop_per_second"),
    )
    median, low, first, third, high = timed.spread
    return {
        "recipe": recipe.name,
        "size": recipe.size,
        "image_size": recipe.model.image_size,
        "slots": recipe.model.slots,
        **machine(place),
        "dtype": name,
        "way": way_name(used),
        "batch": recipe.train.batch,
        "images": IMAGES_OF_NOISE if data is None else str(data.path),
        "parameters": parameters,
        "steps": len(times) * block_of(place, steps),
        "repeats": len(times),
        "seconds_per_step": median,
        "seconds_min": low,
        "seconds_q1": first,
        "seconds_q3": third,
        "seconds_max": high,
        "images_per_second": timed.per_second,
        "flop_per_second": timed.flop_per_second,
        "share_of_peak": timed.share_of_peak,
        **work,
        "timed": [timed.record()],
        **found,
        **heard,
        "notes": notes,
        **profile,
    }


@contextmanager
def step_bench(
    recipe: Recipe, device: torch.device, way: str | None = None, data: DataFile | None = None
) -> Iterator[tuple[StepBench, MemoryWatch]]:
    """The step to be timed, and a look at memory from before it was made.

    What `data` holds in memory (a copy, on the device where it fits) is made before.
    """
    precision = choose_precision(recipe.train.precision, device)
    batches = None
    if data is not None:
        data.check_size(recipe.model.image_size)
        images = data.split("train").images
        if len(images) < recipe.train.batch:
            raise SriError(
                f"{data.path} holds {len(images)} training images, fewer than a batch",
                f"--batch {len(images)}",
            )
        batches = Batches(images, recipe.train.batch, recipe.train.seed, device)
    watch = MemoryWatch(device)
    chosen = None if way is None else way_named(way, precision, device)
    bench = StepBench(recipe, device, mode=chosen, batches=batches)
    try:
        yield bench, watch
    finally:
        bench.close()


def block_of(device: torch.device, steps: int) -> int:
    """Steps timed as one."""
    return GPU_BLOCK if device.type == "cuda" and steps >= 2 * GPU_BLOCK else 1


def step_times(bench: StepBench, steps: int, most_seconds: float) -> list[float]:
    """Seconds a step, of blocks of steps; at least one."""
    block = block_of(bench.device, steps)
    times = [bench.timed(block)]
    spent = times[0] * block
    while len(times) < steps // block and spent < most_seconds:
        times.append(bench.timed(block))
        spent += times[-1] * block
    return times


def outcome(bench: StepBench) -> dict[str, Any]:
    """What came of the steps: the mean loss (None if no step was finite), how many were skipped."""
    metrics = bench.step.read_metrics()
    loss = metrics["loss"]
    return {"loss": loss if math.isfinite(loss) else None, "skipped": metrics["skipped"]}


def counts_of(recipe: Recipe, device: torch.device, precision: Precision) -> dict[str, float]:
    """GFLOP, ATen calls and host reads of an eager step."""
    bench = StepBench(recipe, device, mode=ExecutionMode(precision))
    try:
        bench.run(0)
        return bench.counts()
    finally:
        bench.close()


def computed(recipe: Recipe, device: torch.device, precision: Precision) -> dict[str, Any]:
    """`counts_of`, and what the machine could do."""
    peak = measured_peak(device, precision)
    return counts_of(recipe, device, precision) | {
        "peak_flop_per_second": peak.flop_per_second,
        "peak_matmul": peak.matmul,
        "peak_convolution": peak.convolution,
        "peak_is": peak.how,
    }


def way_name(way: ExecutionMode) -> str:
    """The name in WAYS."""
    parts = ["compiled"] * way.compiled + ["graph"] * way.graphed
    return "+".join(parts) or "eager"


def training_text(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        machine_line(result),
        f"{result['recipe']}: {result['parameters']:,} parameters, {result['image_size']} px,"
        f" {result['slots']} slots, batch {result['batch']}, {result['dtype']}, {result['way']},"
        f" images: {result['images']}",
        timing_table(result["timed"]),
        f"{result['images_per_second']:.1f} images/s, {digits(1 / result['seconds_per_step'])}"
        f" steps/s; ready after {digits(result['warm_up_seconds'])} s",
        *(computed_lines(result) if "gflop_per_step" in result else []),
        f"memory: {result['memory_mb']:,.0f} MB at most ({result['memory_of']}),"
        f" {result['memory_added_mb']:,.0f} MB of it since before the model was built",
        f"loss {'not finite' if result['loss'] is None else digits(result['loss'])},"
        f" {result['skipped']} steps skipped as not finite",
        *(f"Note: {note}" for note in result["notes"]),
    ]
    return "\n".join([*lines, *([profile_text(result)] if "trace" in result else [])])


def computed_lines(result: dict[str, Any]) -> list[str]:
    """What a step consists of, and the machine's best."""
    return [
        f"{result['gflop_per_step']:.1f} GFLOP, {result['aten_calls']:,} ATen calls,"
        f" {result['host_reads']} host reads a step",
        f"peak: {result['peak_flop_per_second'] / 1e9:,.0f} GFLOP/s ({result['peak_is']})",
    ]
