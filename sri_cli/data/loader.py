"""Batches and noise of a training step: functions of (seed, step), so that a run resumes exactly.

Axis legend: N images, B batch, H W rows and columns.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.device import to_device
from sri_cli.rng import NoiseSpec, draw_noise

ORDER_STREAM = 1  # keeps these random numbers apart from others of the same seed
SHARE_OF_MEMORY = 0.5  # of what is free: the rest is the model's

Place = Literal["auto", "device", "memory", "file"]


def batch_indices(seed: int, step: int, batch: int, n: int) -> NDArray[np.intp]:
    """The images [B] of a step: each epoch a new permutation, its remainder dropped."""
    if not 0 < batch <= n:
        raise ValueError(f"a batch of {batch} from {n} images")
    epoch, position = divmod(step, n // batch)
    return epoch_order(seed, epoch, n)[position * batch : (position + 1) * batch]


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.intp]:
    """The permutation of an epoch, [N]; shared, so not to be written to."""
    order = np.random.default_rng((seed, epoch, ORDER_STREAM)).permutation(n)
    order.flags.writeable = False
    return order


class Images(Protocol):
    """All images of a split, wherever they lie."""

    def take(self, indices: NDArray[np.integer]) -> Tensor:
        """uint8 [B,3,H,W], channels_last, on the device."""
        ...


class ResidentImages:
    """All images as uint8 in the memory of one device: a batch is picked where it is used."""

    def __init__(self, images: NDArray[np.uint8], device: torch.device | str = "cpu") -> None:
        self.images = torch.from_numpy(np.array(images)).to(device)  # [N,H,W,3]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.integer]) -> Tensor:
        """uint8 [B,3,H,W], channels_last, on the device."""
        index = to_device(torch.from_numpy(np.array(indices)), self.images.device)
        return self.images[index].permute(0, 3, 1, 2)


class HostImages:
    """Images in the host's memory or mapped from their file; batches travel to the device.

    A batch goes through pinned memory, so that the host need not wait for the step before.
    """

    def __init__(self, images: NDArray[np.uint8], device: torch.device | str = "cpu") -> None:
        self.images, self.device = images, torch.device(device)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.integer]) -> Tensor:
        """uint8 [B,3,H,W], channels_last, on the device."""
        # In the order of the file: neighbours share pages, and a disk need not seek back.
        order = np.argsort(indices, kind="stable")
        batch = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
        batch[order] = self.images[indices[order]]
        return to_device(torch.from_numpy(batch), self.device).permute(0, 3, 1, 2)


class Batches:
    """A process' rows of each step's batch. `Prefetcher` prepares the next one ahead.

    `place` says where the images lie: on the `device`, in the host's `memory`, in their `file`
    (streamed); auto takes the first of them that half of the free memory suffices for. What it
    came to stands in `self.place`; the batches are the same everywhere.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        rows: slice | None = None,
        place: Place = "auto",
        sharers: int = 1,
    ) -> None:
        """`sharers`: how many processes of this machine hold the same images in its memory."""
        device = torch.device(device)
        self.place = find_place(images.nbytes, device, sharers) if place == "auto" else place
        self.images: ResidentImages | HostImages
        if self.place == "device":
            self.images = ResidentImages(images, device)
        else:
            held = np.array(images) if self.place == "memory" else images
            self.images = HostImages(held, device)
        self.batch, self.seed = batch, seed
        self.rows = slice(0, batch) if rows is None else rows

    def at(self, step: int) -> Tensor:
        """uint8 [B,3,H,W], channels_last."""
        indices = batch_indices(self.seed, step, self.batch, len(self.images))
        return self.images.take(indices[self.rows])


def find_place(num_bytes: int, device: torch.device, sharers: int = 1) -> Place:
    """The fastest place that images of so many bytes fit into."""
    fits_host = num_bytes * sharers <= SHARE_OF_MEMORY * free_memory()
    if device.type == "cuda":
        if num_bytes <= SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
            return "device"
        return "memory" if fits_host else "file"
    return "device" if fits_host else "file"  # a CPU's own memory is the host's


def free_memory() -> int:
    """Bytes of memory that the host can give, as far as it says."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class BatchSource(Protocol):
    """`Batches`, or images made up for a benchmark."""

    def at(self, step: int) -> Tensor:
        """uint8 [B,3,H,W], the rows of this rank."""
        ...


class Prefetcher:
    """Images and noise of each step, prepared in a thread one step ahead.

    `batch` is the size of the global batch, `rows` the part of it that this rank trains on.
    """

    def __init__(
        self,
        batches: BatchSource,
        specs: Mapping[str, NoiseSpec],
        batch: int,
        seed: int,
        device: torch.device,
        rows: slice | None = None,
    ) -> None:
        self.batches, self.specs, self.batch, self.rows = batches, specs, batch, rows
        self.seed, self.device = seed, device
        self.ahead: dict[int, Future[tuple[Tensor, dict[str, Tensor]]]] = {}
        self.pool = ThreadPoolExecutor(1, "prefetch", initializer=self._start_thread)

    def at(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """uint8 images [B,3,H,W] and the noise of this step; starts to prepare the next one."""
        future = self.ahead.pop(step, None)
        ready = future.result() if future else self._make(step)
        self.ahead = {step + 1: self.pool.submit(self._make, step + 1)}
        return ready

    def close(self) -> None:
        """Stop the thread."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _start_thread(self) -> None:
        # A second team of OpenMP threads would spin beside the step's own: 40 % slower on 2 cores.
        torch.set_num_threads(1)
        if self.device.index is not None:
            torch.cuda.set_device(self.device)

    def _make(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        noise = draw_noise(self.specs, self.batch, self.seed, step, self.rows)
        moved = {name: to_device(value, self.device) for name, value in noise.items()}
        return self.batches.at(step), moved
