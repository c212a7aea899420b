"""What turns pictures into the features that a Frechet distance is taken in.

Axis legend: N images, F features. Pictures are uint8 [N,H,W,3].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.generation.sample import in_chunks

PAPERS, RANDOM = "inception", "random-inception"  # names of features

Pictures = NDArray[np.uint8]
Features = NDArray[np.float32]
Advance = Callable[[int], None]  # told how many more images are done


def in_batches(
    network: Callable[[Pictures], Features],
    images: Pictures,
    batch: int,
    device: torch.device,
    advance: Advance,
    row: tuple[int, ...],
) -> Features:
    """What `network` says of each image, float32 [N, *row]: so many images at once, in float32 and
    without gradients; batches shrink to fit memory.

    Raises SriFailure when even a single image does not fit.
    """
    found = [np.empty((0, *row), np.float32)]  # of no images, too
    chunks = in_chunks(
        lambda start, count: network(images[start : start + count]),
        len(images),
        batch,
        device,
        "fp32",
    )
    for part in chunks:
        found.append(part)
        advance(len(part))
    return np.concatenate(found)


class FeatureExtractor(Protocol):
    """Pictures [N,H,W,3] -> features [N,size]; `digest` is the identity of the numbers."""

    name: str
    digest: str
    size: int

    def __call__(self, images: Pictures, advance: Advance = ...) -> Features: ...
