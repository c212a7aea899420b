"""A recipe's training step to be timed and counted; needs no data."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.data.loader import BatchSource, Prefetcher
from sri_cli.device import Precision, choose_device, cpu_model
from sri_cli.errors import SriError
from sri_cli.models.build import build_model
from sri_cli.run import Workspace, is_path
from sri_cli.training.distributed import Ranks
from sri_cli.training.execution import WARM_UP_STEPS, ExecutionMode, choose_mode
from sri_cli.training.step import TrainStep
from sri_cli.training.trainer import check_data

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


class SameBatch:
    """The same images at every step."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def at(self, step: int) -> Tensor:
        """uint8 [B,3,H,W]."""
        return self.images


class StepBench:
    """A recipe's training step as a run makes it, its input prepared one step ahead.

    `precision` and `mode` stand in for the recipe's own; `batches` for images of noise. With
    several `ranks` every process steps with its rows of the recipe's batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: str | torch.device = "auto",
        precision: str | None = None,
        *,
        mode: ExecutionMode | None = None,
        ranks: Ranks | None = None,
        batches: BatchSource | None = None,
    ) -> None:
        self.recipe, self.ranks = recipe, ranks or Ranks()
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        asked = {} if precision is None else {"precision": precision}
        self.mode = mode or choose_mode(recipe.train.model_copy(update=asked), self.device)
        model = build_model(**recipe.model.model_dump())
        self.step = TrainStep(model, recipe.train, self.device, self.mode, self.ranks)
        self.rows = self.ranks.rows(recipe.train.batch)
        if batches is None:
            images = random_images(self.ranks.count(recipe.train.batch), recipe.model.image_size)
            batches = SameBatch(images.to(self.device))
        self.batches = batches
        self.feed = self._new_feed()
        self.done = 0

    @property
    def precision(self) -> Precision:
        """fp32 or bf16."""
        return self.mode.precision

    @property
    def parameters(self) -> int:
        """The number of trained numbers."""
        return sum(p.numel() for p in self.step.params)

    def run(self, number: int) -> None:
        """Step `number`, its noise included."""
        images, noise = self.feed.at(number)
        self.step(images, noise, number)

    def warm_up(self) -> None:
        """As many steps as go before the first that is like all others."""
        steps = WARM_UP_STEPS + 2 if self.mode.graphed else 1 + self.mode.compiled
        for _ in range(steps):
            self._next()
        wait_for(self.device)

    def seconds(self, steps: int, block: int = 1) -> list[float]:
        """Seconds a step of `steps` blocks of steps, after those that warm up.

        A block ends with a wait for the device; inside it the host runs ahead, as in training.
        """
        self.warm_up()
        return [self.timed(block) for _ in range(steps)]

    def timed(self, block: int = 1) -> float:
        """Seconds a step of the next `block` steps."""
        began = time.perf_counter()
        for _ in range(block):
            self._next()
        wait_for(self.device)
        return (time.perf_counter() - began) / block

    def counts(self) -> dict[str, float]:
        """What one step consists of; call after a first step has made the optimiser's state.

        Compiled code and recorded graphs hide their calls: count on a step that is neither.
        """
        flops, calls = FlopCounterMode(display=False), CallCounter()
        with flops, calls:
            self.run(0)
        return {
            "gflop_per_step": flops.get_total_flops() / 1e9,
            "aten_calls": calls.calls,
            "host_reads": calls.host_reads,
        }

    def close(self) -> None:
        """Stop the thread that prepares the input, and let go of what was recorded."""
        self.feed.close()
        self.step.close()

    def _next(self) -> None:
        self.run(self.done)
        self.done += 1

    def _new_feed(self) -> Prefetcher:
        settings = self.recipe.train
        specs = self.step.model.training_noise()
        return Prefetcher(
            self.batches, specs, settings.batch, settings.seed, self.device, self.rows
        )


def dry_run(
    workspace: Workspace, recipe: Recipe, data: str, run_dir: Path, device: str, steps: int = 3
) -> dict[str, Any]:
    """The run that would be trained, the time of a step measured here, and the expected total.

    `missing` is a note about a data file that is not prepared yet. SriError for one that does not
    fit the recipe.
    """
    missing = None
    try:
        path = workspace.find_data(data, recipe.model.image_size)
    except SriError as error:
        if is_path(data):
            raise
        missing = f"{error.message}; {error.hint}"
    else:
        check_data(recipe, DataFile(path))
    bench = StepBench(recipe, device, recipe.train.precision)
    try:
        seconds = statistics.median(bench.seconds(steps))
    finally:
        bench.close()
    return {
        "recipe": recipe.model_dump(),
        "run": str(run_dir),
        "missing": missing,
        "device": bench.device.type,
        "precision": bench.precision,
        "parameters": bench.parameters,
        "seconds_per_step": seconds,
        "expected_seconds": seconds * recipe.train.steps,
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
