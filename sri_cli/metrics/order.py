"""Order consistency: how well the slot index predicts what is drawn (METRICS; our own measure).

Axis legend: N scenes, K slots, H W pixels, P = H*W, R bootstrap rounds. Masks are [N,K,H,W],
summing to 1 over K. Both measures come with a 95 % bootstrap interval over scenes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

ROUNDS = 1000
LEVEL = 0.95
MIN_SCENES = 2


class Estimate(NamedTuple):
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


class Consistency(NamedTuple):
    """`iou` in [-1,1], 0 = no order; `information` in [0,1]."""

    iou: Estimate
    information: Estimate


def order_consistency(masks: Array, seed: int = 0, rounds: int = ROUNDS) -> Consistency:
    """Both measures for the masks [N,K,H,W] of N >= 2 scenes; the bootstrap draws from `seed`."""
    if masks.ndim != 4 or len(masks) < MIN_SCENES:
        raise ValueError(f"order consistency wants masks [N,K,H,W], N >= 2, got {masks.shape}")
    flat = masks.reshape(*masks.shape[:2], -1).astype(np.float32)
    weights = _bootstrap_weights(len(masks), rounds, seed)
    return Consistency(
        iou=_estimate(iou_over_chance(flat), _mean_pair, weights),
        information=_estimate(flat, _normalised_information, weights),
    )


def shuffled(masks: Array, seed: int = 0) -> Array:
    """The same scenes with the slots of each in a random order: what no order looks like."""
    random = np.random.default_rng((seed, 1))
    order = random.permuted(np.tile(np.arange(masks.shape[1]), (len(masks), 1)), axis=1)
    return np.take_along_axis(masks, order[:, :, None, None], axis=1)


def report(masks: Array, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Any]:
    """Both measures of these masks and of the same with shuffled slots, ready for JSON."""
    return {
        "scenes": len(masks),
        "slots": masks.shape[1],
        "interval": LEVEL,
        "model": as_dict(order_consistency(masks, seed, rounds)),
        "shuffled": as_dict(order_consistency(shuffled(masks, seed), seed, rounds)),
    }


def as_dict(result: Consistency) -> dict[str, dict[str, float]]:
    """Plain numbers under readable names."""
    return {
        "iou_over_chance": result.iou._asdict(),
        "mutual_information": result.information._asdict(),
    }


def iou_over_chance(flat: Array) -> Array:
    """Per pair of scenes [N,N]: mean soft IoU of equal slots, less that of randomly permuted ones.

    flat [N,K,P]. Soft IoU is sum(ab) / sum(a + b - ab). A random permutation pairs every slot
    with every other equally often, so its mean over all permutations is the mean over all pairs
    of slots, exactly.
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


def _bootstrap_weights(n: int, rounds: int, seed: int) -> Array:
    """How often each scene is drawn in each round, [R,N]."""
    random = np.random.default_rng((seed, 2))
    return random.multinomial(n, np.full(n, 1 / n), size=rounds).astype(np.float64)


def _estimate(data: Array, statistic: Any, weights: Array) -> Estimate:
    """The statistic, with the spread of its bootstrap rounds around their own mean.

    Both statistics shift when a scene is drawn twice; the spread is what the rounds tell.
    """
    value = float(statistic(data, np.ones((1, weights.shape[1])))[0])
    rounds = statistic(data, weights)
    spread = np.quantile(rounds, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - rounds.mean()
    return Estimate(value, value + float(spread[0]), value + float(spread[1]))
