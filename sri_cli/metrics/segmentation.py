"""How well predicted segments match the true instances of an image (METRICS: ARI-FG, mSC-FG).

Axis legend: N images, T true labels, P predicted labels, H W pixels. Segmentations are integer
maps [N,H,W], tensors or arrays, computed with on the device where they lie; true labels below
`background_labels` are background. Scores are float64 [N]. An image without foreground has no
score: its entry is NaN, and callers leave it out and count it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Labels = NDArray[np.integer] | Tensor
MAX_CELLS = 2**26  # pixels looked at together


class Covering(NamedTuple):
    """Mean segmentation covering per image [N]: instances alike, and weighed by their area."""

    mean: Tensor
    scaled: Tensor


def labels_of(masks: NDArray[np.floating] | Tensor) -> Tensor:
    """Soft masks [N,K,H,W] to the index of the strongest slot [N,H,W], the first of equals."""
    return torch.as_tensor(masks).argmax(dim=1)


def ari_fg(true: Labels, predicted: Labels, background_labels: int = 1) -> Tensor:
    """Adjusted Rand index over the true foreground pixels of each image, [N].

    Hubert and Arabie (1985). Two equal partitions score 1, also where chance agreement is
    certain (one instance, one segment), as in the published evaluations.
    """
    table = contingency(true, predicted)[:, background_labels:]
    together = _pairs(table).sum(dim=(1, 2))
    in_true = _pairs(table.sum(dim=2)).sum(dim=1)
    in_predicted = _pairs(table.sum(dim=1)).sum(dim=1)
    pixels = table.sum(dim=(1, 2))
    expected = in_true * in_predicted / _pairs(pixels).clamp(min=1)
    most = (in_true + in_predicted) / 2
    certain = most == expected
    apart = torch.where(certain, 1.0, most - expected)
    score = torch.where(certain, 1.0, (together - expected) / apart)
    return torch.where(pixels > 0, score, torch.nan)


def msc_fg(true: Labels, predicted: Labels, background_labels: int = 1) -> Covering:
    """Mean segmentation covering of the true foreground instances, [N] each.

    Of every instance the best intersection over union with any segment; segments count with all
    their pixels, those on the background too.
    """
    table = contingency(true, predicted)
    area_true = table.sum(dim=2)[:, background_labels:]  # [N,T]
    area_predicted = table.sum(dim=1)  # [N,P]
    overlap = table[:, background_labels:]
    union = area_true[:, :, None] + area_predicted[:, None] - overlap
    best = (overlap / union.clamp(min=1)).amax(dim=2)  # [N,T]
    there = area_true > 0
    instances, area = there.sum(dim=1), area_true.sum(dim=1)
    mean = (best * there).sum(dim=1) / instances.clamp(min=1)
    scaled = (best * area_true).sum(dim=1) / area.clamp(min=1)
    some = instances > 0
    return Covering(torch.where(some, mean, torch.nan), torch.where(some, scaled, torch.nan))


def contingency(true: Labels, predicted: Labels) -> Tensor:
    """How many pixels of each image carry both labels, float64 [N,T,P]; exact up to 2^53.

    ValueError for maps that are not alike.
    """
    true, predicted = torch.as_tensor(true), torch.as_tensor(predicted)
    if true.shape != predicted.shape or true.ndim != 3:
        shapes = f"{tuple(true.shape)} and {tuple(predicted.shape)}"
        raise ValueError(f"segmentations [N,H,W] alike, got {shapes}")
    n, pixels = len(true), true[0].numel() if len(true) else 1
    if n == 0:
        return torch.zeros(0, 1, 1, dtype=torch.float64, device=predicted.device)
    num_true, num_predicted = int(true.max()) + 1, int(predicted.max()) + 1
    found = []
    at_once = max(1, MAX_CELLS // pixels)  # cells are int64: eight bytes for one of the labels
    for some, other in zip(true.split(at_once), predicted.split(at_once), strict=True):
        image = torch.arange(len(some), device=other.device)[:, None]
        labels = some.to(other.device).flatten(1).long(), other.flatten(1).long()
        cell = (image * num_true + labels[0]) * num_predicted + labels[1]
        counts = torch.bincount(cell.ravel(), minlength=len(some) * num_true * num_predicted)
        found.append(counts.view(len(some), num_true, num_predicted))
    return torch.cat(found).double()


def _pairs(count: Tensor) -> Tensor:
    return count * (count - 1) / 2
