"""How well predicted segments match the true instances of an image (METRICS: ARI-FG, mSC-FG).

Axis legend: N images, T true labels, P predicted labels, H W pixels. Segmentations are integer
maps [N,H,W]; true labels below `background_labels` are background. An image without foreground
has no score: its entry is NaN, and callers leave it out and count it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Scores = NDArray[np.float64]


class Covering(NamedTuple):
    """Mean segmentation covering per image [N]: instances alike, and weighed by their area."""

    mean: Scores
    scaled: Scores


def labels_of(masks: NDArray[np.floating]) -> Labels:
    """Soft masks [N,K,H,W] to the index of the strongest slot [N,H,W]."""
    return masks.argmax(axis=1)


def ari_fg(true: Labels, predicted: Labels, background_labels: int = 1) -> Scores:
    """Adjusted Rand index over the true foreground pixels of each image, [N].

    Hubert and Arabie (1985). Two equal partitions score 1, also where chance agreement is
    certain (one instance, one segment), as in the published evaluations.
    """
    table = contingency(true, predicted)[:, background_labels:]
    together = _pairs(table).sum(axis=(1, 2))
    in_true = _pairs(table.sum(axis=2)).sum(axis=1)
    in_predicted = _pairs(table.sum(axis=1)).sum(axis=1)
    pixels = table.sum(axis=(1, 2))
    expected = in_true * in_predicted / np.maximum(_pairs(pixels), 1)
    most = (in_true + in_predicted) / 2
    certain = most == expected
    score = np.where(certain, 1.0, (together - expected) / np.where(certain, 1.0, most - expected))
    return np.where(pixels > 0, score, np.nan)


def msc_fg(true: Labels, predicted: Labels, background_labels: int = 1) -> Covering:
    """Mean segmentation covering of the true foreground instances, [N] each.

    Of every instance the best intersection over union with any segment; segments count with all
    their pixels, those on the background too.
    """
    table = contingency(true, predicted)
    area_true = table.sum(axis=2)[:, background_labels:]  # [N,T]
    area_predicted = table.sum(axis=1)  # [N,P]
    overlap = table[:, background_labels:]
    union = area_true[:, :, None] + area_predicted[:, None] - overlap
    best = (overlap / np.maximum(union, 1)).max(axis=2, initial=0.0)  # [N,T]
    there = area_true > 0
    instances, area = there.sum(axis=1), area_true.sum(axis=1)
    mean = (best * there).sum(axis=1) / np.maximum(instances, 1)
    scaled = (best * area_true).sum(axis=1) / np.maximum(area, 1)
    some = instances > 0
    return Covering(np.where(some, mean, np.nan), np.where(some, scaled, np.nan))


def contingency(true: Labels, predicted: Labels) -> NDArray[np.float64]:
    """How many pixels of each image carry both labels, [N,T,P]; exact up to 2^53."""
    if true.shape != predicted.shape or true.ndim != 3:
        raise ValueError(f"segmentations [N,H,W] alike, got {true.shape} and {predicted.shape}")
    n = len(true)
    num_true, num_predicted = int(true.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1
    image = np.arange(n)[:, None, None]
    cell = (image * num_true + true) * num_predicted + predicted
    counts = np.bincount(cell.ravel(), minlength=n * num_true * num_predicted)
    return counts.reshape(n, num_true, num_predicted).astype(np.float64)


def _pairs(count: NDArray[np.float64]) -> NDArray[np.float64]:
    return count * (count - 1) / 2
