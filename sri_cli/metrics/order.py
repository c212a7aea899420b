"""Order consistency: how well the slot index predicts what is drawn (our own measure).

Axis legend: N scenes, K slots, H W pixels, P = H*W, R bootstrap rounds. Masks are [N,K,H,W] and sum
to 1 over K. Both measures have a 95 % bootstrap interval over scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.rng import stream

Array = NDArray[np.floating]

ROUNDS = 1000
LEVEL = 0.95
MIN_SCENES = 2


def report(masks: Array, seed: int = 0) -> dict[str, Any]:
    """Both measures of these masks, and of the same with shuffled slots, ready for JSON."""
    return {
        "scenes": len(masks),
        "slots": masks.shape[1],
        "interval": LEVEL,
        "model": order_consistency(masks, seed),
        "shuffled": order_consistency(shuffled(masks, seed), seed),
    }


def order_consistency(
    masks: Array, seed: int = 0, rounds: int = ROUNDS
) -> dict[str, dict[str, float]]:
    """Two measures of N >= 2 scenes, each with value, low and high; `seed` is of the bootstrap.

    `iou_over_chance` in [-1,1]: mean soft IoU of equal slots over pairs of scenes, minus that of
    randomly permuted slots; 0 means no order. `mutual_information` in [0,1]: that of slot and
    position, divided by the mean of their entropies.
    """
    if masks.ndim != 4 or len(masks) < MIN_SCENES:
        raise ValueError(f"masks must be [N,K,H,W] with N >= {MIN_SCENES}, got {masks.shape}")
    flat = masks.reshape(*masks.shape[:2], -1).astype(np.float32)
    random = stream(seed, 2)
    n = len(masks)
    weights = random.multinomial(n, np.full(n, 1 / n), size=rounds).astype(np.float64)
    return {
        "iou_over_chance": _estimate(iou_over_chance(flat), _mean_pair, weights),
        "mutual_information": _estimate(flat, _normalised_information, weights),
    }


def shuffled(masks: Array, seed: int = 0) -> Array:
    """The same scenes with the slots of each in a random order: no order."""
    random = stream(seed, 1)
    order = random.permuted(np.tile(np.arange(masks.shape[1]), (len(masks), 1)), axis=1)
    return np.take_along_axis(masks, order[:, :, None, None], axis=1)


def iou_over_chance(flat: Array) -> Array:
    """Per pair of scenes [N,N]: mean soft IoU of equal slots, less that of randomly permuted ones.

    flat is [N,K,P]; soft IoU is sum(ab) / sum(a + b - ab). A random permutation pairs every slot
    with every other equally often, so its mean over all permutations is exactly the mean over all
    pairs of slots.
    """
    n, k, _ = flat.shape
    rows = flat.reshape(n * k, -1)
    both = rows @ rows.T
    area = rows.sum(axis=1, dtype=np.float64)
    union = np.maximum(area[:, None] + area[None] - both, 1e-9)
    iou = (both / union).reshape(n, k, n, k)
    return np.einsum("ikjk->ij", iou) / k - iou.mean(axis=(1, 3))


def _mean_pair(pairs: Array, weights: Array) -> Array:
    """Mean over pairs of different scenes; pairs [N,N], weights [R,N] -> [R]."""
    own = np.diagonal(pairs)
    total = np.einsum("rn,nm,rm->r", weights, pairs, weights, optimize=True) - weights**2 @ own
    count = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    return total / np.maximum(count, 1)


def _normalised_information(flat: Array, weights: Array) -> Array:
    """I(slot; position) / mean of the entropies; flat [N,K,P], weights [R,N] -> [R]."""
    n, k, p = flat.shape
    results = []
    for chunk in np.array_split(weights, max(1, len(weights) * k * p // 8_000_000)):
        mean = chunk.astype(np.float32) @ flat.reshape(n, k * p)
        joint = (mean / mean.sum(axis=1, keepdims=True)).reshape(len(chunk), k, p)
        h_slot, h_position = _entropy(joint.sum(axis=2)), _entropy(joint.sum(axis=1))
        information = h_slot + h_position - _entropy(joint.reshape(len(chunk), -1))
        results.append(2 * information / np.maximum(h_slot + h_position, 1e-9))
    return np.clip(np.concatenate(results), 0.0, 1.0)


def _entropy(probability: Array) -> Array:
    """Of distributions along the last axis, in nats; [R,M] -> [R]."""
    return -(probability * np.log(np.maximum(probability, 1e-30))).sum(axis=-1, dtype=np.float64)


def _estimate(
    data: Array, statistic: Callable[[Array, Array], Array], weights: Array
) -> dict[str, float]:
    """The statistic and its interval: the quantiles of the rounds around their own mean.

    Both statistics shift when a scene is drawn twice, so the rounds tell the width alone. `weights`
    [R,N] is how often each scene is drawn in each round.
    """
    value = float(statistic(data, np.ones((1, weights.shape[1])))[0])
    rounds = statistic(data, weights)
    low, high = np.quantile(rounds, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - rounds.mean()
    return {"value": value, "low": value + float(low), "high": value + float(high)}
