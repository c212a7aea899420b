"""Which images make a step's batch: a pure function of (seed, step), so that a run resumes exactly.

Axis legend: N images, B batch, H W rows and columns.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ORDER_STREAM = 1  # keeps these random numbers apart from others of the same seed


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


class ResidentImages:
    """All images as uint8 in the memory of one device."""

    def __init__(self, images: NDArray[np.uint8], device: torch.device | str = "cpu") -> None:
        self.images = torch.from_numpy(np.array(images)).to(device)  # [N,H,W,3]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.integer]) -> Tensor:
        """uint8 [B,3,H,W], channels_last, on the device."""
        index = torch.from_numpy(np.array(indices)).to(self.images.device)
        return self.images[index].permute(0, 3, 1, 2)


class Batches:
    """Batches by step. training/feed.py prepares the next one ahead."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images = ResidentImages(images, device)
        self.batch, self.seed = batch, seed

    def at(self, step: int) -> Tensor:
        """uint8 [B,3,H,W], channels_last."""
        return self.images.take(batch_indices(self.seed, step, self.batch, len(self.images)))
