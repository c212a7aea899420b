"""Batches and noise of a training step: functions of (seed, step), so that a run resumes exactly.

Axis legend: N images, B batch, H W rows and columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.cores import free_memory
from sri_cli.device import to_device
from sri_cli.rng import NoiseSpec, draw_noise, stream

ORDER_STREAM = 1  # keeps these random numbers apart from others of the same seed
COPY_BYTES = 2**26  # of images at once, onto a device
SHARE_OF_MEMORY = 0.5  # of the free memory; the rest is for the model

Storage = Literal["device", "memory", "file"]


def batch_indices(seed: int, step: int, batch: int, n: int) -> NDArray[np.intp]:
    """The images [B] of a step: each epoch a new permutation, its remainder dropped."""
    epoch, position = divmod(step, n // batch)
    return epoch_order(seed, epoch, n)[position * batch : (position + 1) * batch]


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.intp]:
    """The permutation of an epoch, [N]; shared, so not to be written to."""
    order = stream(seed, epoch, ORDER_STREAM).permutation(n)
    order.flags.writeable = False
    return order


class Batches:
    """The batch of each step, or this rank's rows of it. `Prefetcher` prepares the next one.

    The images are stored on the `device`, in the host's `memory`, or stay in their `file` and are
    read as needed; the batches are the same.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        rows: slice | None = None,
        storage: Storage | None = None,
        sharers: int = 1,
    ) -> None:
        """Args:
        images: uint8 [N,H,W,3], usually mapped from a file.
        batch: Size of the global batch, of which `rows` are this rank's (None: all).
        storage: None for the fastest that is large enough.
        sharers: How many processes of this machine store the same images in its memory.
        """
        self.device = torch.device(device)
        self.storage = storage or choose_storage(images.nbytes, self.device, sharers)
        self.images = np.array(images) if self.storage == "memory" else images
        self.resident: Tensor | None = None  # [N,H,W,3], on the device
        if self.storage == "device":
            # Block by block: a copy of all images for each rank may not fit into the host's memory.
            self.resident = torch.empty(images.shape, dtype=torch.uint8, device=self.device)
            count = max(1, COPY_BYTES // images[0].nbytes)
            for start in range(0, len(images), count):
                block = torch.from_numpy(np.array(images[start : start + count]))
                self.resident[start : start + count] = block
        self.batch, self.seed = batch, seed
        self.rows = slice(0, batch) if rows is None else rows

    def at(self, step: int) -> Tensor:
        """uint8 [B,3,H,W], channels_last, on the device."""
        indices = batch_indices(self.seed, step, self.batch, len(self.images))[self.rows]
        if self.resident is not None:
            chosen = to_device(torch.from_numpy(np.array(indices)), self.device)
            return self.resident[chosen].permute(0, 3, 1, 2)
        # In the order of the file: neighbours share pages, and a disk need not seek back.
        order = np.argsort(indices, kind="stable")
        images = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
        images[order] = self.images[indices[order]]
        return to_device(torch.from_numpy(images), self.device).permute(0, 3, 1, 2)


def choose_storage(num_bytes: int, device: torch.device, sharers: int = 1) -> Storage:
    """The fastest storage for so many bytes of images; half of its free memory stays free."""
    fits_host = num_bytes * sharers <= SHARE_OF_MEMORY * free_memory()
    if device.type == "cuda":
        if num_bytes <= SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
            return "device"
        return "memory" if fits_host else "file"
    return "device" if fits_host else "file"  # the memory of a CPU is the host's


class Prefetcher:
    """Images and noise of each step, prepared in a thread one step ahead.

    `images_at` is `Batches.at`, or makes them up; `batch` is the size of the global batch, `rows`
    the part of it that this rank trains on.
    """

    def __init__(
        self,
        images_at: Callable[[int], Tensor],
        specs: Mapping[str, NoiseSpec],
        batch: int,
        seed: int,
        device: torch.device,
        rows: slice | None = None,
    ) -> None:
        self.images_at, self.specs, self.batch, self.rows = images_at, specs, batch, rows
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
        return self.images_at(step), moved
