"""What turns pictures into the features that a Frechet distance is taken in.

Axis legend: N images, F features. Pictures are uint8 [N,H,W,3].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PAPERS, RANDOM = "inception", "random-inception"  # names of features

Pictures = NDArray[np.uint8]
Features = NDArray[np.float32]
Advance = Callable[[int], None]  # told how many more images are done


class FeatureExtractor(Protocol):
    """Pictures [N,H,W,3] -> features [N,size]; `digest` is the identity of the numbers."""

    name: str
    digest: str
    size: int

    def __call__(self, images: Pictures, advance: Advance = ...) -> Features: ...
