"""How long a training step or a sample takes here, and what it is made of; needs no data."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sri_cli.model.build import build_model
from sri_cli.precision import choose_device, choose_precision, cpu_model
from sri_cli.recipe.schema import Recipe
from sri_cli.training.noise import draw_noise
from sri_cli.training.step import TrainStep

HOST_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}


class CallCounter(TorchDispatchMode):
    """Counts ATen calls, and those among them that make a GPU's host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.host_reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        self.host_reads += func.name().partition(".")[0] in HOST_READS
        return func(*args, **(kwargs or {}))


class StepBench:
    """A recipe's training step on random images and noise."""

    def __init__(self, recipe: Recipe, device: str = "auto", precision: str = "auto") -> None:
        self.recipe = recipe
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        model = build_model(**recipe.model.model_dump())
        self.step = TrainStep(model, recipe.train, self.device, self.precision)
        self.images = random_images(recipe.train.batch, recipe.model.image_size)
        self.images = self.images.to(self.device)

    @property
    def parameters(self) -> int:
        """The number of trained numbers."""
        return sum(p.numel() for p in self.step.params)

    def run(self, number: int) -> None:
        """Step `number`, its noise included."""
        specs = self.step.model.training_noise()
        noise = draw_noise(specs, len(self.images), 0, number, self.device)
        self.step(self.images, noise, number)

    def seconds(self, steps: int) -> list[float]:
        """The duration of each of `steps` steps, after one that warms up."""
        self.run(0)
        return [self._timed(number) for number in range(1, steps + 1)]

    def counts(self) -> dict[str, float]:
        """What one step consists of; call after a first step has made the optimiser's state."""
        flops, calls = FlopCounterMode(display=False), CallCounter()
        with flops, calls:
            self.run(0)
        return {
            "gflop_per_step": flops.get_total_flops() / 1e9,
            "aten_calls": calls.calls,
            "host_reads": calls.host_reads,
        }

    def _timed(self, number: int) -> float:
        wait_for(self.device)
        began = time.perf_counter()
        self.run(number)
        wait_for(self.device)
        return time.perf_counter() - began


def bench_training(
    recipe: Recipe, steps: int = 5, device: str = "auto", precision: str = "auto"
) -> dict[str, Any]:
    """Median, min and max seconds per training step, with machine, dtype, batch and counters."""
    bench = StepBench(recipe, device, precision)
    times = bench.seconds(steps)
    batch, median = recipe.train.batch, statistics.median(times)
    return {
        "recipe": recipe.name,
        **machine(bench.device),
        "dtype": bench.precision,
        "batch": batch,
        "parameters": bench.parameters,
        "steps": steps,
        "seconds_per_step": median,
        "seconds_min": min(times),
        "seconds_max": max(times),
        "images_per_second": batch / median,
        **bench.counts(),
    }


def bench_sampling(
    recipe: Recipe,
    num: int = 64,
    repeats: int = 3,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Median, min and max images per second of drawing `num` scenes from an untrained model."""
    from sri_cli.sampling import sample_scenes

    place = choose_device(device)
    dtype = choose_precision(precision, place)
    model: Any = build_model(**recipe.model.model_dump()).to(place).eval()
    slots = recipe.model.slots

    def draw(seed: int) -> float:
        wait_for(place)
        began = time.perf_counter()
        for scene in sample_scenes(model, num, slots, 1.0, seed, precision=dtype):
            scene.image.cpu()
        return num / (time.perf_counter() - began)

    draw(0)
    rates = [draw(seed) for seed in range(1, repeats + 1)]
    return {
        "recipe": recipe.name,
        **machine(place),
        "dtype": dtype,
        "num": num,
        "slots": slots,
        "repeats": repeats,
        "images_per_second": statistics.median(rates),
        "images_per_second_min": min(rates),
        "images_per_second_max": max(rates),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    return {
        "device": device.type,
        "machine": name,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def random_images(batch: int, size: int) -> torch.Tensor:
    """uint8 [B,3,H,W], channels_last as the batches are."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def wait_for(device: torch.device) -> None:
    """Let the GPU finish; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
