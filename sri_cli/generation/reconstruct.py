"""Images of a split as a model reconstructs them.

Axis legend: N images, K slots, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.data.dataset import DataFile
from sri_cli.generation.sample import (
    check_finite,
    evaluation_noise,
    in_chunks,
    is_finite,
    quantise,
    to_tensor,
)
from sri_cli.generation.trained_run import TrainedRun

CHUNK = 8  # images


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
    model, device = trained.model, trained.device
    numbers = np.asarray(indices, dtype=np.intp)

    def compute(start: int, count: int) -> tuple[torch.Tensor, tuple[np.ndarray | None, ...]]:
        rows = slice(start, start + count)
        noise = evaluation_noise(model, seed, numbers[rows], device)
        made = model.reconstruct(to_tensor(inputs[rows], device), noise)
        return is_finite(made.scene.image), (
            made.attention[:, :, 0].float().cpu().numpy(),
            quantise(made.scene.image),
            made.scene.masks[:, :, 0].float().cpu().numpy(),
            quantise(made.scene.rgb),
            None if made.imagined is None else quantise(made.imagined.image),
        )

    finite, chunks = zip(*in_chunks(compute, len(numbers), CHUNK, device), strict=True)
    check_finite(torch.cat(finite), "reconstructions")
    arrays: list[Any] = [
        None if parts[0] is None else np.concatenate(parts) for parts in zip(*chunks, strict=True)
    ]
    return Reconstructions(numbers, inputs, *arrays)
