"""Paths in latent space: closed walks on the sphere of the noise, and ways between two latents.

High-dimensional Gaussian noise lies near a sphere, so a path along it, in steps of equal angle,
passes through latents that are as likely as any drawn one.
Axis legend: F frames, D latent width; `...` any leading axes, each with a path of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32]

ASIDE = 3  # directions that a walk needs besides its start
TURNS = (1, 2)  # of the two great circles that make a walk


def aside_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the normal draws that a walk from latents of `shape` [..., D] takes."""
    return (*shape[:-1], ASIDE, max(shape[-1], ASIDE + 1))


def closed_walk(start: Latents, aside: NDArray[np.floating], frames: int) -> Latents:
    """A smooth closed path from `start` [..., D]: [F, ..., D], and the step after the last frame
    leads to the first.

    `aside`, normal draws of `aside_shape`, gives the directions. The path is the sum of two great
    circles in planes at right angles, one turned through once and one twice: all its points have
    the norm of `start`, all steps the same angle, and it wanders through four dimensions. With
    D < 4 it is the shadow of such a path, and its norm changes.
    """
    width = start.shape[-1]
    wide = np.zeros((*start.shape[:-1], aside.shape[-1]))
    wide[..., :width] = start
    norm = np.linalg.norm(wide, axis=-1, keepdims=True)
    ahead, apart, *across = _orthonormal([wide, *np.moveaxis(aside, -2, 0)])
    # Both circles begin at 45 degrees from `ahead`, on either side: their mean is the start.
    begins = (ahead + apart) / np.sqrt(2), (ahead - apart) / np.sqrt(2)
    angle = 2 * np.pi * np.arange(frames).reshape(frames, *(1 for _ in start.shape)) / frames
    path = sum(
        np.cos(turns * angle) * begin + np.sin(turns * angle) * side
        for turns, begin, side in zip(TURNS, begins, across, strict=True)
    )
    return np.asarray(norm * path / np.sqrt(2), np.float32)[..., :width]


def there_and_back(first: Latents, last: Latents, frames: int) -> Latents:
    """From `first` [..., D] to `last`, reached half-way, and back: [F, ..., D], closed."""
    half = frames // 2
    shares = [min(frame, frames - frame) / half for frame in range(frames)]
    return np.stack([great_circle(first, last, share) for share in shares])


def great_circle(first: Latents, last: Latents, share: float) -> Latents:
    """The latent at `share` (0: first, 1: last) of the arc between two, [..., D].

    The angle is divided evenly, and the norm too where the two differ in it.
    """
    norms = [np.linalg.norm(end.astype(float), axis=-1, keepdims=True) for end in (first, last)]
    ends = [end / norm for end, norm in zip((first, last), norms, strict=True)]
    angle = np.arccos(np.clip((ends[0] * ends[1]).sum(axis=-1, keepdims=True), -1, 1))
    along = (
        np.sinc((1 - share) * angle / np.pi) * (1 - share),
        np.sinc(share * angle / np.pi) * share,
    )
    direction = (along[0] * ends[0] + along[1] * ends[1]) / np.sinc(angle / np.pi)
    norm = (1 - share) * norms[0] + share * norms[1]
    return np.asarray(norm * direction, np.float32)


def _orthonormal(vectors: list[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
    """Gram-Schmidt over vectors [..., D], the first one's direction kept."""
    basis: list[NDArray[np.float64]] = []
    for vector in vectors:
        rest = np.asarray(vector, float)
        for other in basis:
            rest = rest - (rest * other).sum(axis=-1, keepdims=True) * other
        basis.append(rest / np.linalg.norm(rest, axis=-1, keepdims=True))
    return basis
