"""Does a picture show a recognisable coloured object standing on the floor? (the demo's own check)

Axis legend: N images, H W rows and columns. Pictures are uint8 [N,H,W,3]. Colours are compared
in 8-bit units (0..255). Recognisable means one connected coloured region that reaches the ground
and covers 3 to 40 % of the picture; coloured is measured against the data set's mean background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pictures = NDArray[np.uint8]

# Of the demo's true test images 99.9 % pass, of its scenes without their objects none, and of
# blends of eight scenes (what an average-minded model draws) 1 %.
MIN_SHARE, MAX_SHARE = 0.03, 0.40
MIN_DISTANCE = 70.0  # Euclidean distance in RGB from the mean background
MIN_CHROMA = 80.0  # how far max(rgb) - min(rgb) must exceed the background's


@dataclass(frozen=True)
class Background:
    """What a data set looks like without its objects, and where these stand.

    mean: float [H,W,3], the mean of the pixels labelled background, 0..255;
    ground: first and last row (inclusive) in which the lowest pixel of a tower may lie.
    """

    mean: NDArray[np.float64]
    ground: tuple[int, int]


def measure_background(
    images: Pictures, masks: NDArray[np.uint8], background_labels: int = 1
) -> Background:
    """From images [N,H,W,3] and masks [N,H,W]; ValueError when no image shows an object."""
    empty = masks < background_labels
    return Background(_mean_where(images, empty), _ground_rows(~empty))


def recognisable(images: Pictures, background: Background) -> NDArray[np.bool_]:
    """[N,H,W,3] -> bool [N]: is there such a region in each picture?"""
    if images.shape[1:] != background.mean.shape:
        raise ValueError(f"images {images.shape} against background {background.mean.shape}")
    coloured = _coloured(images, background.mean)
    return np.array([_has_object(picture, background.ground) for picture in coloured], dtype=bool)


def _coloured(images: Pictures, mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool [N,H,W]: clearly another colour than the background, and clearly more saturated."""
    pixels = images.astype(np.float32)
    distance = np.sqrt(((pixels - mean) ** 2).sum(axis=-1))
    chroma = np.ptp(pixels, axis=-1) - np.ptp(mean, axis=-1)
    return (distance > MIN_DISTANCE) & (chroma > MIN_CHROMA)


def _has_object(coloured: NDArray[np.bool_], ground: tuple[int, int]) -> bool:
    labels, _ = ndimage.label(coloured)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        lowest = place[0].stop - 1
        share = np.count_nonzero(labels[place] == number) / coloured.size
        if ground[0] <= lowest <= ground[1] and MIN_SHARE <= share <= MAX_SHARE:
            return True
    return False


def _mean_where(images: Pictures, empty: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of each pixel where it is background; one that never is takes its row's mean."""
    count = empty.sum(axis=0)[..., None]
    total = np.zeros(images.shape[1:], dtype=np.float64)
    for start in range(0, len(images), 1024):  # in slices: a data set may not fit as floats
        chunk = slice(start, start + 1024)
        total += (images[chunk] * empty[chunk, ..., None]).sum(axis=0, dtype=np.float64)
    row_mean = total.sum(axis=1, keepdims=True) / np.maximum(count.sum(axis=1, keepdims=True), 1)
    return np.where(count > 0, total / np.maximum(count, 1), row_mean)


def _ground_rows(objects: NDArray[np.bool_]) -> tuple[int, int]:
    """The rows in which the true objects' lowest pixels lie, 1st to 99th percentile, widened."""
    rows = np.any(objects, axis=2)  # [N,H]
    rows = rows[np.flatnonzero(np.any(rows, axis=1))]
    if len(rows) == 0:
        raise ValueError("no image has a foreground object")
    height = rows.shape[1]
    lowest = height - 1 - rows[:, ::-1].argmax(axis=1)
    first, last = np.percentile(lowest, [1, 99])
    slack = max(1, height // 32)
    return max(0, int(first) - slack), min(height - 1, int(np.ceil(last)) + slack)
