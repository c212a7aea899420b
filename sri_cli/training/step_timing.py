"""Time, FLOP and calls of a recipe's training step; needs no data."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sri_cli.config.schema import Recipe
from sri_cli.cores import OtherProcesses, Threads, available_cores
from sri_cli.data.dataset import DataFile
from sri_cli.data.loader import Prefetcher
from sri_cli.device import choose_device, cpu_model
from sri_cli.errors import SriError
from sri_cli.models.build import build_model
from sri_cli.models.pretrained_encoder import weights_to_download
from sri_cli.run import Workspace
from sri_cli.training.distributed import Ranks
from sri_cli.training.execution import WARM_UP_STEPS, ExecutionMode, choose_mode
from sri_cli.training.step import TrainStep
from sri_cli.training.trainer import check_data

SHORTEST_SEC = 0.5  # of a dry run: the system counts the time of cores in steps of 0.01 s
HOST_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}


class CallCounter(TorchDispatchMode):
    """Counts ATen calls, those of them that make the host wait for a GPU, and FLOP.

    FlopCounterMode has the same numbers, but its hooks on parameters do not allow
    `torch.autograd.grad` with respect to them (EMORL's decoder).
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.host_reads = self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        self.host_reads += func.name().partition(".")[0] in HOST_READS
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flop += count(*args, **(kwargs or {}), out_val=result)
        return result


class StepBench:
    """The training step of a recipe on random images, with its noise prepared one step ahead.

    `mode` replaces that of the recipe. With several `ranks` every process steps with its rows of
    the recipe's batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: str | torch.device = "auto",
        *,
        mode: ExecutionMode | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        settings, ranks = recipe.train, ranks or Ranks()
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        mode = mode or choose_mode(settings, self.device)
        model = build_model(**recipe.model.model_dump(), pretrained=False)
        self.step = TrainStep(model, settings, self.device, mode, ranks)
        self.mode = self.step.mode
        rows = ranks.rows(settings.batch)
        images = random_images(rows.stop - rows.start, recipe.model.image_size).to(self.device)
        self.feed = Prefetcher(
            lambda _: images,  # the same at every step
            model.training_noise(),
            settings.batch,
            settings.seed,
            self.device,
            rows,
        )
        self.done = 0

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(p.numel() for p in self.step.params)

    def run(self, number: int) -> None:
        """Make step `number`."""
        images, noise = self.feed.at(number)
        self.step(images, noise, number)

    def warm_up(self) -> None:
        """Make the steps that compile, capture and allocate."""
        self.timed(WARM_UP_STEPS + 2 if self.mode.graphed else 1 + self.mode.compiled)

    def timed(self, block: int = 1) -> float:
        """Mean seconds of the next `block` steps, with a single wait for the device at the end."""
        began = time.perf_counter()
        for _ in range(block):
            self.run(self.done)
            self.done += 1
        wait_for(self.device)
        return (time.perf_counter() - began) / block

    def counts(self) -> dict[str, float]:
        """FLOP, ATen calls and host reads of a step, for a mode without compiler and graph.

        Call it after a first step, which creates the optimiser's state.
        """
        with CallCounter() as counter:
            self.run(0)
        return {
            "gflop_per_step": counter.flop / 1e9,
            "aten_calls": counter.calls,
            "host_reads": counter.host_reads,
        }

    def close(self) -> None:
        """Stop the prefetching thread, and free compiled code and captured graphs."""
        self.feed.close()
        self.step.close()


def dry_run(
    workspace: Workspace,
    recipe: Recipe,
    data: str,
    run_dir: Path,
    device: str,
    threads: Threads | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """The run that would be trained, the measured time of a step, and the expected total.

    `missing` is a note about a data file that is not prepared yet, `download` one about the weights
    of a pretrained encoder (nothing is downloaded here), `busy_cores` the cores that other
    processes used meanwhile (None where that is unknown). At least 3 steps are timed.
    SriError for a data file that does not fit the recipe.
    """
    missing = None
    try:
        path = workspace.find_data(data, recipe.model.image_size)
    except SriError as error:
        missing = f"{error.message}; {error.hint}"
    else:
        check_data(recipe, DataFile(path))
    encoder = recipe.model.encoder
    if threads is not None:
        threads.start()
    # The share of one of the processes; what they exchange takes little.
    share = {"batch": -(-recipe.train.batch // processes)}
    timed = recipe.model_copy(update={"train": recipe.train.model_copy(update=share)})
    times: list[float] = []
    with closing(StepBench(timed, device)) as bench:
        bench.warm_up()
        others = OtherProcesses()  # without the compilers of the warm-up
        while len(times) < 3 or sum(times) < SHORTEST_SEC:
            times.append(bench.timed())
        busy = others.in_use()
    seconds = statistics.median(times)
    return {
        "recipe": recipe.model_dump(),
        "run": str(run_dir),
        "missing": missing,
        "download": encoder and weights_to_download(encoder),
        "device": bench.device.type,
        "threads": torch.get_num_threads(),
        "busy_cores": busy,
        "precision": bench.mode.precision,
        "parameters": bench.parameters,
        "seconds_per_step": seconds,
        "expected_seconds": seconds * recipe.train.steps,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """The device, threads and PyTorch version of a measurement."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    return {
        "device": device.type,
        "machine": name,
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def random_images(batch: int, size: int) -> torch.Tensor:
    """uint8 [B,3,H,W], channels_last like batches."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
