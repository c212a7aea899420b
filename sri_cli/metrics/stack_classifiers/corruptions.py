"""Pictures made worse by known amounts: does a distance feel them, and in the right order?

Axis legend: N pictures, S side in pixels, P places of a stack. Pictures are uint8 [N,S,S,3], masks
uint8 [N,S,S].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.stack_classifiers.model_like import blur

Pictures = NDArray[np.uint8]
FILL_SIGMA = 5.0  # pixels; how far the background is drawn over a block that goes

NOISE = (4, 8, 16, 32)  # standard deviation, of 255
BLUR = (0.4, 0.8, 1.6)  # sigma in pixels of a picture of 64
SHARES = (0.05, 0.15, 0.5)  # of the pictures that are replaced by flawed ones


class Ordering(NamedTuple):
    """How a distance answers to growing damage: its values from none to most.

    concordant: the share of pairs of levels, undamaged included, that it puts in the right order.
    """

    distances: tuple[float, ...]
    concordant: float


def ordering(distances: Sequence[float]) -> Ordering:
    """Of distances that ought to rise."""
    values = np.asarray(distances, float)
    pairs = [(i, j) for i in range(len(values)) for j in range(i + 1, len(values))]
    right = sum(values[i] < values[j] for i, j in pairs)
    return Ordering(tuple(values.tolist()), right / len(pairs))


def noisy(pictures: Pictures, sigma: float, seed: int = 0) -> Pictures:
    """White noise of `sigma` (of 255)."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal(pictures.shape, dtype=np.float32) * sigma
    return (pictures + noise).round().clip(0, 255).astype(np.uint8)


def blurred(pictures: Pictures, sigma: float) -> Pictures:
    """Gaussian blur; `sigma` in pixels of a picture of 64, and as much of others' width."""
    soft = blur(to_tensor(pictures), sigma * pictures.shape[1] / 64)
    return (soft * 255).round().byte().permute(0, 2, 3, 1).numpy()


def replaced(pictures: Pictures, others: Pictures, share: float) -> Pictures:
    """The first `share` of the pictures replaced by others."""
    count = round(share * len(pictures))
    if count > len(others):
        raise ValueError(f"{count} pictures to replace, {len(others)} to replace them with")
    return np.concatenate([others[:count], pictures[count:]])


def exchanged(pictures: Pictures, masks: NDArray[np.uint8], seed: int = 0) -> Pictures:
    """Each block taken from a stack of its own, as if slots were drawn apart from each other.

    A picture keeps its background, drawn on under where its blocks were; the block of each place
    comes from another picture that has one there, from the bottom to the top.
    """
    random = np.random.default_rng(seed)
    canvas = _without_blocks(pictures, masks)
    for place in range(1, int(masks.max(initial=0)) + 1):
        shown = (masks == place).any(axis=(1, 2))
        here = np.flatnonzero(shown)
        if len(here):
            givers = random.choice(here, len(here))
            block = masks[givers] == place
            canvas[here] = np.where(block[..., None], pictures[givers], canvas[here])
    return canvas


def _without_blocks(pictures: Pictures, masks: NDArray[np.uint8]) -> Pictures:
    """Every block's pixels filled from the background around it."""
    ground = torch.from_numpy((masks == 0)[:, None].astype(np.float32))
    near = blur(torch.cat([to_tensor(pictures) * ground, ground], dim=1), FILL_SIGMA)
    fill = (near[:, :3] / near[:, 3:].clamp(min=1e-4) * 255).round().clamp(0, 255).byte()
    filled: Pictures = np.where(
        (masks == 0)[..., None], pictures, fill.permute(0, 2, 3, 1).numpy()
    ).astype(np.uint8)
    return filled
