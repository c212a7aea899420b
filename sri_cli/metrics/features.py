"""Networks that turn images into features, in batches and in true float32.

Axis legend: N images, B of a batch, S side in pixels, F features. Images are uint8 [N,S,S,3].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.data.dataset import Advance, Images
from sri_cli.generation.sample import in_chunks, to_tensor

Features = NDArray[np.float32]


class FeatureExtractor(Protocol):
    """Images [N,S,S,3] -> features [N,size]; `digest` identifies the weights."""

    name: str
    digest: str
    size: int

    def __call__(self, images: Images, advance: Advance = ...) -> Features: ...


def in_batches(
    network: Callable[[Tensor], Tensor],
    images: Images,
    batch: int,
    device: torch.device,
    advance: Advance,
) -> Features:
    """network(images [B,3,S,S] in [0,1]) without gradients, in true float32 [N,...].

    Batches are smaller where memory is short.

    Raises:
        SriFailure: if even a single image does not fit into memory.
    """

    def compute(start: int, count: int) -> Features:
        return network(to_tensor(images[start : start + count], device)).cpu().numpy()

    parts = []
    with full_float32():
        for part in in_chunks(compute, len(images), batch, device, "fp32"):
            parts.append(part)
            advance(len(part))
    return np.concatenate(parts)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions, PyTorch's default: features keep 24 bits of mantissa, not 11."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
