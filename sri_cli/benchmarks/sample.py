"""`sri bench sample`: how fast scenes are drawn from an untrained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sri_cli.benchmarks.memory import MemoryWatch
from sri_cli.benchmarks.peak import measured_peak
from sri_cli.benchmarks.profile import check_trace, profile_text, profiled
from sri_cli.benchmarks.timing import Attention, Timed, digits, machine_line, repeat, timing_table
from sri_cli.config.schema import Recipe
from sri_cli.device import choose_device, choose_precision
from sri_cli.generation.sample import chunk_size, sample_scenes
from sri_cli.models.build import build_model
from sri_cli.training.step_timing import machine

PAPERS_COUNT = 10_000  # scenes of an FID


def bench_sampling(
    recipe: Recipe,
    num: int = 64,
    repeats: int = 3,
    device: str = "auto",
    *,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Times drawing `num` scenes and fetching their images; ready for JSON.

    Every repeat draws other scenes. `trace`: where a profile of one chunk goes.
    """
    if trace is not None:
        check_trace(trace)
    place = choose_device(device)
    dtype = choose_precision(recipe.train.precision, place)
    watch = MemoryWatch(place)
    model: Any = build_model(**recipe.model.model_dump()).to(place).eval()
    slots = recipe.model.slots
    chunk = chunk_size(slots, recipe.model.image_size, place)

    def draw(seed: int, count: int = num) -> None:
        for scene in sample_scenes(model, count, slots, 1.0, abs(seed), precision=dtype):
            scene.image.cpu()

    draw(0, min(num, chunk))  # a warm-up need not be all of it
    attention = Attention()
    times = repeat(draw, repeats, place, warm_ups=0)
    heard = attention.report()
    memory = watch.report()
    profile = {} if trace is None else profiled(lambda: draw(0, min(num, chunk)), place, trace)
    flop = num * flop_per_scene(model, slots)
    timed = Timed(
        "sampling", "images", num, times, flop, measured_peak(place, dtype).flop_per_second
    )
    median, low, first, third, high = timed.spread
    return {
        "recipe": recipe.name,
        **machine(place),
        "dtype": dtype,
        "num": num,
        "slots": slots,
        "chunk": chunk,
        "repeats": repeats,
        "images_per_second": num / median,
        "images_per_second_min": num / high,
        "images_per_second_q1": num / third,
        "images_per_second_q3": num / first,
        "images_per_second_max": num / low,
        "timed": [timed.record()],
        "seconds_for_10000": PAPERS_COUNT * median / num,
        "gflop_per_image": flop / num / 1e9,
        "share_of_peak": timed.share_of_peak,
        "peak_flop_per_second": timed.peak,
        **memory,
        **heard,
        **profile,
    }


def flop_per_scene(model: Any, slots: int) -> float:
    """Floating-point operations of one scene, of two that are counted."""
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), flops:
        for scene in sample_scenes(model, 2, slots, precision="fp32"):
            scene.image.cpu()
    return flops.get_total_flops() / 2


def sampling_text(result: dict[str, Any]) -> str:
    """The figures for people."""
    exact = result["num"] == PAPERS_COUNT
    lines = [
        machine_line(result),
        f"{result['recipe']}: {result['slots']} slots, {result['chunk']} scenes at once,"
        f" {result['dtype']}, an untrained model",
        timing_table(result["timed"]),
        f"{result['images_per_second']:.1f} images/s; 10,000 scenes:"
        f" {digits(result['seconds_for_10000'])} s"
        + ("" if exact else f" (from {result['num']:,})"),
        f"memory: {result['memory_mb']:,.0f} MB at most ({result['memory_of']})",
        *(f"Note: {note}" for note in result["notes"]),
    ]
    return "\n".join([*lines, *([profile_text(result)] if "trace" in result else [])])
