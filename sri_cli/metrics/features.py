"""Features of real and of generated images, cached so that an interrupted evaluation continues.

Axis legend: N images, B of a block, S side in pixels, F features. Images are uint8 [N,S,S,3].
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.atomic import write_atomic
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import in_chunks

FORMAT = 3  # of the cache; increase it when the computation of features changes
BLOCK = 500  # images of a cache file: the most that an interruption costs

Images = NDArray[np.uint8]
Features = NDArray[np.float32]
Advance = Callable[[int], None]  # called with the number of images done


class FeatureExtractor(Protocol):
    """Images [N,S,S,3] -> features [N,size]; `digest` identifies the weights."""

    name: str
    digest: str
    size: int

    def __call__(self, images: Images, advance: Advance = ...) -> Features: ...


def in_batches(
    network: Callable[[Images], Features],
    images: Images,
    batch: int,
    device: torch.device,
    advance: Advance,
) -> Features:
    """network(images) without gradients, in true float32 [N,...].

    Batches are smaller where memory is short.

    Raises:
        SriFailure: if even a single image does not fit into memory.
    """

    def compute(start: int, count: int) -> Features:
        return network(images[start : start + count])

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


def check_real(data: DataFile, split: str, count: int) -> None:
    """SriError for fewer real images than have a distance."""
    if count < 2:
        raise SriError(
            f"{data.name}: {count} {split} image, but a distance needs 2 or more",
            "name another --split, or other data with --data",
        )


def real_features(
    data: DataFile,
    split: str,
    count: int,
    extractor: FeatureExtractor,
    cache_dir: Path,
    advance: Advance = lambda done: None,
) -> Features:
    """Features [N,F] of `count` random images of a split (at most all), cached by the file's hash.

    Raises:
        SriError: for fewer than 2 images.
    """
    images = data.split(split).images
    chosen = data.split(split).pick(count)
    check_real(data, split, len(chosen))
    digest = str(data.attrs["sha256"])
    key = {"images": digest, "split": split, "count": len(chosen), "size": data.size}

    def compute(start: int, stop: int) -> Features:
        return extractor(images[chosen[start:stop]], advance)

    folder = cache_dir / f"real_{digest[:16]}_{split}_{len(chosen)}_{extractor.digest[:16]}"
    return cached_features(folder, key, extractor, len(chosen), compute, advance)


def cached_features(
    folder: Path,
    key: dict[str, Any],
    extractor: FeatureExtractor,
    count: int,
    compute: Callable[[int, int], Features],
    advance: Advance,
) -> Features:
    """Features of images 0..count-1, where `folder` lacks them from compute(start, stop).

    Args:
        folder: Where blocks are cached, one .npz each.
        key: Everything besides the extractor that determines the images, as JSON takes it.
        extractor: Its weights are part of the key.
        count: Number of images; a larger one begins with the blocks of a smaller one.
        compute: Features of images start to stop-1; calls `advance` itself.
        advance: Called for images whose features were cached.
    """
    full = {"format": FORMAT, "features": extractor.digest, **key}
    blocks = [np.empty((0, extractor.size), np.float32)]
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        path, own = folder / f"{start:06d}.npz", json.dumps({**full, "start": start})
        block = _load(path, own)
        if block is None or len(block) < stop - start:  # none, or the end of a smaller evaluation
            block = compute(start, stop)
            file = io.BytesIO()
            np.savez(file, features=block, key=np.array(own))
            write_atomic(path, file.getvalue())
        else:
            advance(stop - start)
        blocks.append(block[: stop - start])
    return np.concatenate(blocks)


def _load(path: Path, key: str) -> Features | None:
    """The features stored under this very key; None if there are none or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:  # the zip's CRC-32 of each array is checked
            features: Features = file["features"]
            return features if str(file["key"]) == key else None
    except Exception:  # a damaged archive fails in a dozen ways; all mean: compute it again
        return None
