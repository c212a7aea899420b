"""Features of stacks for a Frechet distance: stack-FD, which needs no download."""

from __future__ import annotations

import torch

from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.extractor import Advance, Features, Pictures, in_batches
from sri_cli.metrics.stack_classifiers.network import NUM_FEATURES, SHIPPED, StackNet, open_shipped

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

    def __call__(self, images: Pictures, advance: Advance = lambda done: None) -> Features:
        def compute(some: Pictures) -> Features:
            found = self.network.features(to_tensor(some, self.device))
            features: Features = found.float().cpu().numpy()
            return features

        return in_batches(compute, images, BATCH, self.device, advance, (self.size,))
