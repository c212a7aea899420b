"""`sri bench sample`: images per second that an untrained model samples."""

from __future__ import annotations

from itertools import count
from typing import Any

import torch

from sri_cli.benchmarks.measure import (
    measure,
    peak_flop_per_second,
    profile_once,
    report_text,
    timings,
)
from sri_cli.config.schema import Recipe
from sri_cli.cores import OtherProcesses
from sri_cli.device import choose_device, choose_precision
from sri_cli.generation.sample import chunk_size, sample_scenes
from sri_cli.models.base import SlotVAE
from sri_cli.models.build import build_model
from sri_cli.training.step_timing import CallCounter, machine
from sri_cli.training.trainer import peak_memory_mb

FID_COUNT = 10_000  # scenes of the papers' FID


def bench_sampling(
    recipe: Recipe, num: int, device_name: str, seconds: float, profile: bool = False
) -> dict[str, Any]:
    """Time sampling `num` scenes and fetching their images, again and again for `seconds`.

    Args:
        profile: also profile one chunk of scenes.

    Returns:
        A JSON object; `images_per_second` follows from the median run.

    Raises:
        SriError: for a GPU that does not exist.
    """
    device = choose_device(device_name)
    dtype = choose_precision(recipe.train.precision, device)
    model = build_model(**recipe.model.model_dump(), pretrained=False).to(device).eval()
    slots, seeds = recipe.model.slots, count()
    chunk = chunk_size(slots, recipe.model.image_size, device)

    def draw(images: int = num) -> None:
        for scene in sample_scenes(model, images, slots, seed=next(seeds), precision=dtype):
            scene.image.cpu()

    draw(min(num, chunk))  # a warm-up need not be all of it
    others = OtherProcesses()
    timing = measure(draw, seconds)
    busy, memory = others.in_use(), peak_memory_mb(device)
    profiled = profile_once(lambda: draw(min(num, chunk)), device) if profile else {}
    flop = flop_per_scene(model, slots)
    peak = peak_flop_per_second(device, dtype)
    rate = num / timing.median
    return {
        "recipe": recipe.name,
        **machine(device),
        "dtype": dtype,
        "num": num,
        "slots": slots,
        "chunk": chunk,
        **timings(timing),
        "images_per_second": rate,
        "seconds_for_10000": FID_COUNT / rate,
        "gflop_per_image": flop / 1e9,
        "peak_flop_per_second": peak,
        "share_of_peak": flop * rate / peak,
        "memory_mb": memory,
        "busy_cores": busy,
        **profiled,
    }


def flop_per_scene(model: SlotVAE, slots: int) -> float:
    """Floating-point operations of one scene."""
    with torch.no_grad(), CallCounter() as counter:
        for scene in sample_scenes(model, 2, slots, precision="fp32"):
            scene.image.cpu()
    return counter.flop / 2


def sampling_text(result: dict[str, Any]) -> str:
    """The result of `bench_sampling` for people."""
    lines = [
        f"{result['recipe']}: {result['slots']} slots, {result['chunk']} scenes at once,"
        f" {result['dtype']}, an untrained model",
        f"{result['images_per_second']:.1f} images/s ({result['num']} in"
        f" {result['seconds_median']:.3f} s, median of {result['repeats']}, interquartile range"
        f" {result['seconds_iqr']:.3f}); 10,000 take {result['seconds_for_10000']:.0f} s",
        f"{result['gflop_per_image']:.2f} GFLOP per image, {result['share_of_peak']:.0%} of the"
        f" {result['peak_flop_per_second'] / 1e9:,.0f} GFLOP/s that this machine reaches",
        f"memory: {result['memory_mb']:,.0f} MB at the peak",
    ]
    return report_text(result, lines)
