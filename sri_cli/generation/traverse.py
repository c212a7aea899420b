"""Walks through latent space: closed paths of the noise, and the scenes along them.

High-dimensional Gaussian noise lies near a sphere, so a path along it in steps of equal angle
passes through latents that are as likely as any drawn one.

Axis legend: F frames, N walks, K slots, D width of the noise, H W pixels; `...` any leading axes,
each with a path of its own. Scenes come frame by frame: frame f of walk n is number f * N + n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.errors import SriError
from sri_cli.generation.sample import (
    DrawnScene,
    checked,
    chunk_size,
    decode_drawn,
    device_of,
    in_chunks,
    sample_noise,
)
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.models.base import SlotVAE
from sri_cli.rng import NoiseSpec, indexed_noise

Latents = NDArray[np.float32]

DIRECTIONS = 3  # that a walk needs besides its start
TURNS = (1, 2)  # of the two great circles that make a walk


@dataclass(frozen=True)
class Walk:
    """The noise of a walk.

    Attributes:
        held: Noise [N,...] of every name.
        moves: Noise [F,N,...] of some names that takes the place of `held`.
        slot: Only this slot (from 0) of what is drawn changes; None: all of them.
    """

    held: Mapping[str, Tensor]
    moves: Mapping[str, Tensor]
    slot: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """F and N."""
        frames, walks = next(iter(self.moves.values())).shape[:2]
        return frames, walks


def random_walk(
    model: SlotVAE, seed: int, num: int, slots: int, frames: int, slot: int | None = None
) -> Walk:
    """Closed walks that begin at the scenes 0 .. num-1 of `seed`, as sampling draws them.

    The scene latent walks and the noise of the slots is held. With `slot` (from 0) the noise of
    this slot walks and all else is held; without a scene variable that of all slots walks.
    """
    specs = model.sampling_noise(slots)
    held = sample_noise(model, seed, 0, num, slots)
    shapes = {name: NoiseSpec(direction_shape(spec.shape)) for name, spec in specs.items()}
    directions = indexed_noise(shapes, seed, range(num), "walk")

    def closed(name: str, part: slice | tuple[slice, int]) -> Tensor:
        start, toward = held[name][part].numpy(), directions[name][part].numpy()
        return torch.from_numpy(closed_walk(start, toward, frames))

    if slot is None:
        names = {"scene"} if "scene" in specs else set(specs)
        return Walk(held, {name: closed(name, slice(None)) for name in names})
    moves = {}
    for name in specs.keys() - {"scene"}:
        moves[name] = held[name].repeat(frames, *(1 for _ in held[name].shape))
        moves[name][:, :, slot] = closed(name, (slice(None), slot))
    return Walk(held, moves, slot)


def check_between(run: TrainedRun, seeds: tuple[int, int]) -> None:
    """SriError unless the model has a scene variable, and the seeds differ."""
    if seeds[0] == seeds[1]:
        raise SriError(f"--between {seeds[0]} {seeds[1]}: equal seeds", "--between 0 1")
    if not run.model.has_scene:
        raise SriError(
            f"--between: {run.recipe.name} has no scene variable to interpolate",
            "leave it out (the noise of its slots then walks), or name another run",
        )


def walk_between(model: SlotVAE, seeds: tuple[int, int], num: int, slots: int, frames: int) -> Walk:
    """From the scene latents of one seed's scenes to those of another and back.

    The noise of the slots is held as the first seed has it. For models with a scene variable.
    """
    held, other = (sample_noise(model, seed, 0, num, slots) for seed in seeds)
    path = there_and_back(held["scene"].numpy(), other["scene"].numpy(), frames)
    return Walk(held, {"scene": torch.from_numpy(path)})


def walk_scenes(
    model: SlotVAE, walk: Walk, temperature: float = 1.0, precision: str = "auto"
) -> Iterator[DrawnScene]:
    """All F * N scenes of a walk, in chunks, in float32."""
    frames, walks = walk.shape
    device = device_of(model)

    def draw(start: int, count: int) -> DrawnScene:
        number = torch.arange(start, start + count)
        frame, at = number // walks, number % walks
        held = {name: noise[at].to(device) for name, noise in walk.held.items()}
        moved = {name: noise[frame, at].to(device) for name, noise in walk.moves.items()}
        latent = model.drawn_scene(held | moved, temperature, None)
        slots = model.slots(held | moved, temperature, scene=latent)
        if walk.slot is not None:
            # The slots after it would follow it; they are held, so that it alone changes.
            others = model.slots(held, temperature).clone()
            others[:, walk.slot] = slots[:, walk.slot]
            slots = others
        return decode_drawn(model, slots, latent)

    slots = next(noise.shape[1] for name, noise in walk.held.items() if name != "scene")
    size = chunk_size(slots, model.image_size, device)
    return checked(in_chunks(draw, frames * walks, size, device, precision))


def direction_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the normal draws that give a walk from latents [..., D] its directions."""
    return (*shape[:-1], DIRECTIONS, max(shape[-1], DIRECTIONS + 1))


def closed_walk(start: Latents, directions: NDArray[np.floating], frames: int) -> Latents:
    """A smooth closed path from `start` [..., D]: [F, ..., D].

    The path is the sum of two great circles in planes at right angles, one turned through once
    and one twice: all its points have the norm of `start`, all steps the same angle, and the step
    after the last frame leads to the first. With D < 4 it is the shadow of such a path, and its
    norm changes.

    Args:
        start: Where the path begins.
        directions: Normal draws of `direction_shape`.
        frames: F.
    """
    width = start.shape[-1]
    wide = np.zeros((*start.shape[:-1], directions.shape[-1]))
    wide[..., :width] = start
    norm = np.linalg.norm(wide, axis=-1, keepdims=True)
    vectors = np.concatenate([wide[..., None, :], directions], axis=-2)
    basis, triangle = np.linalg.qr(vectors.swapaxes(-1, -2))
    signs = np.sign(np.diagonal(triangle, axis1=-2, axis2=-1))  # or `ahead` may point backwards
    ahead, apart, *across = np.moveaxis(basis * signs[..., None, :], -1, 0)
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

    The angle is divided evenly, and so is the norm where the two differ in it.
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
