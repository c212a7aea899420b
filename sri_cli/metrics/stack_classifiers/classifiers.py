"""What the two networks are for: features of stack-FD, and the estimate of S-Acc.

The S-Acc estimate is the share of images in which a network finds all blocks touching, corrected
for its errors. It estimates what people would answer, and is never called S-Acc itself. The error
rates were counted on simulated images that were not in training, drawn over as slot decoders draw.

Axis legend: N images, S side in pixels, F features. Images are uint8 [N,S,S,3].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.features import Advance, Features, Images, in_batches
from sri_cli.metrics.stack_classifiers.network import (
    NUM_FEATURES,
    PACKAGE,
    SHIPPED,
    SIDE,
    StackNet,
    open_shipped,
)

BATCH = 256
LEVEL = 0.95
DRAWS = 20_000
COARSE = 32  # pixels; images of this size or smaller have error rates of their own


class StackFeatures:
    """A `FeatureExtractor`: images uint8 [N,S,S,3] -> float32 [N,128]."""

    name = "stack"
    size = NUM_FEATURES

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.network = open_shipped("factors", self.device)
        self.digest = SHIPPED["factors"]

    def __call__(self, images: Images, advance: Advance = lambda done: None) -> Features:
        def compute(some: Images) -> Features:
            features: Features = self.network.features(to_tensor(some, self.device)).cpu().numpy()
            return features

        return in_batches(compute, images, BATCH, self.device, advance, (self.size,))


class Rates(NamedTuple):
    """Counts of the answer "plausible": `right` of `plausible` images, `wrong` of `flawed` ones."""

    right: int
    plausible: int
    wrong: int
    flawed: int


@dataclass(frozen=True)
class Judge:
    """The network that finds flaws in stacks, its error rates, and its weights' SHA-256."""

    network: StackNet
    rates: dict[str, Rates]  # by `kind_of` the images
    digest: str

    def plausible(
        self, images: Images, advance: Advance = lambda done: None
    ) -> NDArray[np.float32]:
        """Probability [N] that all blocks of the stack touch."""
        device = next(self.network.parameters()).device

        def compute(some: Images) -> NDArray[np.float32]:
            logits = self.network(to_tensor(some, device))["plausible"]
            probability: NDArray[np.float32] = logits.float().softmax(1)[:, 1].cpu().numpy()
            return probability

        return in_batches(compute, images, BATCH, device, advance, ())

    def estimate(self, probability: NDArray[np.float32], side: int, demo: bool) -> dict[str, Any]:
        """Estimated S-Acc in [0,1] with its 95 % interval.

        Args:
            probability: [N] from `plausible`.
            side: Image side in pixels.
            demo: Whether the images should look like the demo's towers, near and on a plain floor.
        """
        accepted = int((probability > 0.5).sum())
        rates = self.rates[kind_of(demo, side)]
        value, low, high = corrected_share(accepted, len(probability), rates)
        return {"value": value, "low": low, "high": high, "accepted": accepted}


def kind_of(demo: bool, side: int) -> str:
    """Key of the error rates for images of a look and a size."""
    return f"{'demo' if demo else 'original'}-{COARSE if side <= COARSE else SIDE}"


def open_judge(device: torch.device | str = "cpu") -> Judge:
    """The shipped judge."""
    facts = json.loads(resources.files(PACKAGE).joinpath("touching.json").read_text("utf-8"))
    rates = {name: Rates(**counts) for name, counts in facts["rates"].items()}
    return Judge(open_shipped("touching", device), rates, SHIPPED["touching"])


def corrected_share(accepted: int, count: int, rates: Rates) -> tuple[float, float, float]:
    """The true share behind `accepted` of `count` verdicts, and its 95 % interval.

    Rogan and Gladen (1978): accepted/count = p * sensitivity + (1 - p) * false alarms. The interval
    is that of p with all three rates drawn from their Jeffreys posteriors, so it widens with few
    images and with few images that the rates were counted on.

    Raises:
        ValueError: for counts that cannot be.
    """
    if not 0 <= accepted <= count or count == 0:
        raise ValueError(f"{accepted} accepted of {count}")
    random = np.random.default_rng(0)  # the interval is a function of the counts
    counts = ((accepted, count), (rates.right, rates.plausible), (rates.wrong, rates.flawed))

    def share(accepted: Any, sensitivity: Any, alarms: Any) -> NDArray[np.float64]:
        return np.clip((accepted - alarms) / np.maximum(sensitivity - alarms, 1e-3), 0.0, 1.0)

    value = float(share(*(hits / of for hits, of in counts)))
    drawn = share(*(random.beta(hits + 0.5, of - hits + 0.5, DRAWS) for hits, of in counts))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, float(min(low, value)), float(max(high, value))
