"""How well predicted segments match the true instances: ARI-FG, mSC-FG, mIoU, counts of slots.

Axis legend: N images, B images of a chunk, T true labels, P predicted labels, H W pixels.
Segmentations are integer tensors [N,H,W], N > 0, labels from 0; true labels below
`background_labels` are background, and pixels of the label `void` count nowhere. Everything runs on
the device of `predicted`; scores are float64 [N]. An image without foreground has the score NaN;
callers leave it out and count it. Counts of slots and objects are int64 [N].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MIN_SHARE = 0.001  # of an image's pixels: in how many a used slot is the strongest
AT_ONCE = 2**20  # pixels, or cells of tables, processed together: 8 MiB for each int64 of them


class Covering(NamedTuple):
    """Mean segmentation covering per image [N]: plain, and weighted by the instances' area."""

    mean: Tensor
    scaled: Tensor


def labels_of(masks: Tensor) -> Tensor:
    """Soft masks [N,K,H,W] to the strongest slot's index, int64 [N,H,W]; the first of equals."""
    return masks.max(dim=1).indices  # argmax takes five times as long on the CPU


def ari_fg(
    true: Tensor, predicted: Tensor, background_labels: int = 1, void: int | None = None
) -> Tensor:
    """Adjusted Rand index over the true foreground pixels of each image, [N].

    Hubert and Arabie (1985), with n_tp pixels of true label t and predicted label p, and dots for
    sums: (sum C(n_tp,2) - E) / ((sum C(n_t.,2) + sum C(n_.p,2)) / 2 - E), where
    E = sum C(n_t.,2) sum C(n_.p,2) / C(n,2). Two equal partitions score 1, also where chance
    agreement is certain (one instance, one segment), as in the published evaluations.
    """
    chunks = _tables(true, predicted, void)
    return torch.cat([_adjusted_rand(table[:, background_labels:]) for table in chunks])


def msc_fg(
    true: Tensor, predicted: Tensor, background_labels: int = 1, void: int | None = None
) -> Covering:
    """Mean segmentation covering of the true foreground instances, [N] each.

    For every instance the best intersection over union with any segment; segments count with all
    their pixels, including those on the background. The plain mean is also called mBO, the mean
    best overlap of instances (Pont-Tuset et al. 2017).
    """
    chunks = [_covering(table, background_labels) for table in _tables(true, predicted, void)]
    return Covering(*(torch.cat(scores) for scores in zip(*chunks, strict=True)))


def mean_iou(
    true: Tensor, predicted: Tensor, background_labels: int = 1, void: int | None = None
) -> Tensor:
    """Mean intersection over union of the true foreground instances with a segment each, [N].

    The sum of IoU over the matching of instances and segments that makes it greatest (Kuhn 1955),
    divided by the number of instances; one without a segment adds 0. Every segment may be matched,
    and counts with all its pixels.
    """
    tables = _tables(true, predicted, void)
    return torch.cat([_matched(table, background_labels) for table in tables])


def count_slots(predicted: Tensor, true: Tensor, void: int | None = None) -> Tensor:
    """How many slots each image uses, [N]; `predicted` is the index of the strongest slot.

    A slot is used where it is the strongest in at least MIN_SHARE of the pixels, and in one at
    least; pixels with the `true` label `void` count nowhere.
    """
    areas = torch.cat([table.sum(dim=1) for table in _tables(true, predicted, void)])  # [N,P]
    return ((areas > 0) & (areas >= MIN_SHARE * areas.sum(dim=1, keepdim=True))).sum(dim=1)


def count_objects(true: Tensor, background_labels: int = 1, void: int | None = None) -> Tensor:
    """How many true foreground instances each image has, [N]."""
    nothing = torch.zeros_like(true)
    tables = [table[:, background_labels:, 0] for table in _tables(true, nothing, void)]
    return torch.cat([(areas > 0).sum(dim=1) for areas in tables])


def _adjusted_rand(table: Tensor) -> Tensor:
    """Of the foreground's table [B,T,P], to [B]. Counts of pairs are whole numbers."""
    together = _pairs(table).sum(dim=(1, 2))
    in_true = _pairs(table.sum(dim=2)).sum(dim=1)
    in_predicted = _pairs(table.sum(dim=1)).sum(dim=1)
    pixels = table.sum(dim=(1, 2))
    expected = in_true.double() * in_predicted / _pairs(pixels).clamp(min=1)
    most = (in_true + in_predicted).double() / 2
    certain = most == expected
    apart = torch.where(certain, 1.0, most - expected)
    score = torch.where(certain, 1.0, (together - expected) / apart)
    return torch.where(pixels > 0, score, torch.nan)


def _overlaps(table: Tensor, background_labels: int) -> tuple[Tensor, Tensor]:
    """[B,T,P], background included, to areas [B,T] and IoU [B,T,P] of the foreground's labels."""
    area_true = table.sum(dim=2)[:, background_labels:]
    area_predicted = table.sum(dim=1)  # [B,P]
    overlap = table[:, background_labels:]
    union = area_true[:, :, None] + area_predicted[:, None] - overlap
    return area_true, overlap.double() / union.clamp(min=1)


def _covering(table: Tensor, background_labels: int) -> Covering:
    """[B,T,P], background included, to [B] each."""
    area_true, overlaps = _overlaps(table, background_labels)
    best = overlaps.amax(dim=2)  # [B,T]
    instances = (area_true > 0).sum(dim=1)
    mean = best.sum(dim=1) / instances.clamp(min=1)
    scaled = (best * area_true).sum(dim=1) / area_true.sum(dim=1).clamp(min=1)
    some = instances > 0
    return Covering(torch.where(some, mean, torch.nan), torch.where(some, scaled, torch.nan))


def _matched(table: Tensor, background_labels: int) -> Tensor:
    """[B,T,P], background included, to [B]. Labels without pixels have IoU 0 and add nothing."""
    area_true, overlaps = _overlaps(table, background_labels)
    sums = [iou[linear_sum_assignment(iou, maximize=True)].sum() for iou in overlaps.cpu().numpy()]
    instances = (area_true > 0).sum(dim=1)
    mean = torch.tensor(sums, dtype=torch.float64, device=table.device) / instances.clamp(min=1)
    return torch.where(instances > 0, mean, torch.nan)


def _tables(true: Tensor, predicted: Tensor, void: int | None) -> Iterator[Tensor]:
    """How many pixels have both labels, int64 [B,T,P], in chunks of images (at least one)."""
    num_true, num_predicted = int(true.max()) + 1, int(predicted.max()) + 1
    cells = num_true * num_predicted
    images = max(1, AT_ONCE // max(1, true.shape[1] * true.shape[2], cells))
    one = torch.ones((), dtype=torch.int64, device=predicted.device)
    for some, other in zip(true.split(images), predicted.split(images), strict=True):
        row = some.to(other.device).flatten(1).long()
        cell = torch.add(other.flatten(1).long(), row, alpha=num_predicted)
        table = torch.zeros(len(cell), cells, dtype=torch.int64, device=cell.device)
        table.scatter_add_(1, cell, one.expand_as(cell))
        table = table.view(-1, num_true, num_predicted)
        if void is not None and void < num_true:
            table[:, void] = 0
        yield table


def _pairs(count: Tensor) -> Tensor:
    return count * (count - 1) // 2
