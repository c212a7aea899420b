"""Order consistency: how well the slot index predicts what is drawn (our own measure).

Axis legend: N scenes, K slots, H W pixels, P = H*W, R rows of weights. Masks are [N,K,H,W] and sum
to 1 over K. Both measures have a 95 % jackknife interval over scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sri_cli.rng import stream

Array = NDArray[np.floating]

LEVEL = 0.95
MIN_SCENES = 2
Interval = dict[str, float | None]


def report(masks: Array, seed: int = 0) -> dict[str, Any]:
    """Both measures of these masks, and of the same with shuffled slots, ready for JSON."""
    return {
        "scenes": len(masks),
        "slots": masks.shape[1],
        "interval": LEVEL,
        "model": order_consistency(masks),
        "shuffled": order_consistency(shuffled(masks, seed)),
    }


def order_consistency(masks: Array) -> dict[str, Interval]:
    """Two measures of the masks [N,K,H,W] of N >= 2 scenes.

    Each has value, low and high (None for two scenes).

    `iou_over_chance` in [-1,1]: mean soft IoU of equal slots over pairs of scenes, minus that of
    randomly permuted slots; 0 means no order. `mutual_information` in [0,1]: that of slot and
    position, divided by the mean of their entropies.
    """
    flat = masks.reshape(*masks.shape[:2], -1).astype(np.float32)
    return {
        "iou_over_chance": _estimate(iou_over_chance(flat), _mean_pair, -1.0),
        "mutual_information": _estimate(flat, _normalised_information, 0.0),
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


def _estimate(data: Array, statistic: Callable[[Array, Array], Array], least: float) -> Interval:
    """The statistic in [least, 1] and its jackknife interval.

    The variance is (N - 1) / N times the sum of squared deviations of the N values without one
    scene (Tukey 1958; Efron and Stein 1981), and the interval is the value plus and minus the
    quantile of Student's t with N - 1 degrees of freedom times its root. No scene is repeated, as
    a bootstrap does: a repeated scene agrees with itself, which shifts both measures.
    """
    n = len(data)
    value = float(statistic(data, np.ones((1, n)))[0])
    if n == 2:  # without one of them no pair is left
        return {"value": value, "low": None, "high": None}
    without_one = statistic(data, 1 - np.eye(n))
    error = np.sqrt((n - 1) * without_one.var())
    reach = float(stdtrit(n - 1, (1 + LEVEL) / 2) * error)
    return {"value": value, "low": max(least, value - reach), "high": min(1.0, value + reach)}
