"""Features of stacks for a Frechet distance: stack-FD, which needs no download."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.metrics.stacks.network import NUM_FEATURES, SHIPPED, StackNet, open_shipped
from sri_cli.sampling import in_chunks, to_tensor

BATCH = 256


class StackFeatures:
    """A `FeatureExtractor`: pictures uint8 [N,S,S,3] -> float32 [N,128]."""

    name = "stack"
    size = NUM_FEATURES

    def __init__(
        self,
        device: torch.device | None = None,
        network: StackNet | None = None,
        digest: str = SHIPPED["factors"],
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network = network or open_shipped("factors", self.device)
        self.digest = digest

    def __call__(
        self, images: NDArray[np.uint8], advance: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        def compute(start: int, count: int) -> NDArray[np.float32]:
            pixels = to_tensor(images[start : start + count], self.device)
            features: NDArray[np.float32] = self.network.features(pixels).float().cpu().numpy()
            return features

        found = [np.empty((0, self.size), np.float32)]
        for part in in_chunks(compute, len(images), BATCH, self.device, "fp32"):
            found.append(part)
            advance(len(part))
        return np.concatenate(found)
