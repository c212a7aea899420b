"""What a step consumes, made ready one step ahead in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from sri_cli.device import to_device
from sri_cli.rng import NoiseSpec, draw_noise

Ready = tuple[Tensor, dict[str, Tensor]]


class BatchSource(Protocol):
    """Batches by step; data/batches.py has the real one."""

    def at(self, step: int) -> Tensor:
        """uint8 [B,3,H,W], this process' rows."""
        ...


class Feed:
    """Images and noise by step, a function of (seed, step) and the rows of the global batch."""

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
        self.ahead: dict[int, Future[Ready]] = {}
        # One core for itself: a second team of OpenMP threads would spin beside the step's own and
        # cost it 40 % on 2 cores.
        self.pool = ThreadPoolExecutor(1, "feed", initializer=self._enter)

    def at(self, step: int) -> Ready:
        """uint8 images [B,3,H,W] and the noise of this step; starts on the next step's."""
        future = self.ahead.pop(step, None)
        ready = future.result() if future else self._make(step)
        self.ahead = {step + 1: self.pool.submit(self._make, step + 1)}
        return ready

    def close(self) -> None:
        """Stop the thread."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _enter(self) -> None:
        torch.set_num_threads(1)
        if self.device.index is not None:
            torch.cuda.set_device(self.device)

    def _make(self, step: int) -> Ready:
        noise = draw_noise(self.specs, self.batch, self.seed, step, self.rows)
        moved = {name: to_device(value, self.device) for name, value in noise.items()}
        return self.batches.at(step), moved
