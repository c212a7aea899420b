"""Images of a split as a model reconstructs them.

Axis legend: N images, K slots, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import DataFile
from sri_cli.generation.encode import encode_chunks
from sri_cli.generation.sample import quantise
from sri_cli.generation.trained_run import TrainedRun


class Reconstructions(NamedTuple):
    """Images of a split, and their masks, reconstructions and slots by a model."""

    indices: NDArray[np.intp]  # [N] in the split
    inputs: NDArray[np.uint8]  # [N,H,W,3]
    attention: NDArray[np.float32]  # segregation masks [N,K,H,W]
    images: NDArray[np.uint8]  # reconstructions [N,H,W,3]
    masks: NDArray[np.float32]  # decoded masks [N,K,H,W]
    rgb: NDArray[np.uint8]  # colours of each slot [N,K,H,W,3]
    rollout: NDArray[np.uint8] | None  # of the prior from the scene latents [N,H,W,3]


def reconstruct(
    trained: TrainedRun, data: DataFile, split: str = "test", num: int = 10, seed: int = 0
) -> Reconstructions:
    """Reconstruct `num` images from all over the split, with the noise of an evaluation.

    Raises:
        SriError: for images of another size than the model's, or an unknown split.
        SriFailure: for reconstructions that are not finite.
    """
    data.check_size(trained.model.image_size)
    indices = data.split(split).pick(num)
    inputs = np.array(data.split(split).images[indices])
    return reconstruct_images(trained, inputs, indices.tolist(), seed)


def reconstruct_images(
    trained: TrainedRun, inputs: NDArray[np.uint8], indices: Sequence[int], seed: int = 0
) -> Reconstructions:
    """Reconstruct images [N,H,W,3] of the model's size; image i has the noise of `indices[i]`.

    Raises:
        SriFailure: for reconstructions that are not finite.
    """
    chunks = [
        (
            one.attention.numpy(),
            quantise(one.image),
            one.masks.numpy(),
            quantise(one.rgb),
            None if one.rollout is None else quantise(one.rollout),
        )
        for one in encode_chunks(trained.model, inputs, indices, seed)
    ]
    arrays: list[Any] = [
        None if parts[0] is None else np.concatenate(parts) for parts in zip(*chunks, strict=True)
    ]
    return Reconstructions(np.asarray(indices, dtype=np.intp), inputs, *arrays)
