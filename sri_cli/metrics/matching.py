"""How far the greedy order of slots is from the best one, which the paper leaves open (its 3.3).

Axis legend: N images, K places and slots, D slot size. Costs are [N,K,K], place (row) to slot.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def order_cost(costs: Tensor, order: Tensor) -> Tensor:
    """The total cost [N] of putting slot order[n, k] at place k; order [N,K] of int64."""
    return costs.gather(2, order[:, :, None])[:, :, 0].double().sum(dim=1)


def compare_orders(costs: Tensor, order: Tensor, best: Tensor) -> dict[str, Any]:
    """What an order [N,K] costs beside the best one.

    Shares of the images and of the places at which they differ, in [0,1]; the mean over images of
    the excess of the total cost in percent of the least.
    """
    differs = order != best
    cost, least = order_cost(costs, order), order_cost(costs, best)
    # Orders may differ without cost where costs are equal; 0 against 0 is no excess.
    excess = torch.where(cost > least, 100 * (cost / least - 1), 0.0)
    return {
        "images": len(order),
        "images_differ": float(differs.any(dim=1).double().mean()),
        "places_differ": float(differs.double().mean()),
        "excess_percent": float(excess.mean()),
    }


def synthetic_means(
    images: int, slots: int, size: int, noise: float | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Means of places and of slots, both [N,K,D], a function of the arguments alone.

    Places are N(0, I); slots are a random permutation of them plus `noise` times N(0, I); None:
    independent draws.
    """
    stream = 0 if noise is None else 1 + round(1000 * noise)
    random = np.random.default_rng((seed, slots, stream))
    shape = (images, slots, size)
    places, other = random.standard_normal(shape), random.standard_normal(shape)
    if noise is not None:
        order = random.permuted(np.tile(np.arange(slots), (images, 1)), axis=1)
        other = np.take_along_axis(places, order[:, :, None], axis=1) + noise * other
    return torch.from_numpy(places).float(), torch.from_numpy(other).float()
