"""Scenes along a walk: which noise moves, which is held, and what is decoded of it.

Axis legend: F frames, N walks, B pictures of a chunk, K slots, D slot size, S picture side.
Pictures are numbered frame by frame: frame f of walk n is f * N + n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.generation.sample import (
    chunk_size,
    device_of,
    in_chunks,
    quantise,
    sample_noise,
    sample_scenes,
)
from sri_cli.generation.traverse import aside_shape, closed_walk, there_and_back
from sri_cli.models.base import Scene, SlotVAE
from sri_cli.plotting.grid import Picture
from sri_cli.plotting.palette import blend_masks
from sri_cli.rng import NoiseSpec, indexed_noise

SCENE = "scene"  # the noise of the scene variable, in systems that have one
OTHER_SCENES = 16  # unrelated ones, that neighbouring frames are compared with
OTHER_SEED = 2**31 - 1  # theirs: no walk is likely to begin there


@dataclass(frozen=True)
class Route:
    """The noise of a walk: `held` [N,...] of every name, and what `moves` instead [F,N,...].

    `slot` (from 0): only this slot of what is drawn counts, the others stay as held noise has them.
    """

    held: Mapping[str, Tensor]
    moves: Mapping[str, Tensor]
    slot: int | None = None

    @property
    def frames(self) -> int:
        """F."""
        return len(next(iter(self.moves.values())))

    @property
    def walks(self) -> int:
        """N."""
        return len(next(iter(self.held.values())))


@dataclass(frozen=True)
class Walked:
    """Pictures uint8 [F,N,S,S,3]: the scenes, their masks in slot colours.

    `step` and `apart`: the share of pixels whose strongest slot differs between a frame and the
    next (the last and the first included), and between unrelated scenes.
    """

    images: Picture
    masks: Picture
    step: float
    apart: float


def has_scene(model: SlotVAE) -> bool:
    """Whether the model has a scene variable."""
    return SCENE in model.sampling_noise(1)


def random_walk(
    model: SlotVAE, seed: int, num: int, slots: int, frames: int, slot: int | None = None
) -> Route:
    """Closed walks that begin at the scenes 0 .. num-1 of `seed`, as `sample_scenes` draws them.

    The scene latent walks and the noise of the slots is held; with `slot` (from 0) the noise of
    this slot walks and all else is held; without a scene variable that of all slots walks.
    """
    specs = model.sampling_noise(slots)
    held = sample_noise(model, seed, 0, num, slots)
    wanted = {name: NoiseSpec(aside_shape(spec.shape)) for name, spec in specs.items()}
    aside = indexed_noise(wanted, seed, range(num), "walk")
    if slot is None:
        names = {SCENE} if SCENE in specs else set(specs)
        moves = {n: _closed(held[n], aside[n], frames) for n in names}
    else:
        moves = {}
        for name in specs.keys() - {SCENE}:
            moves[name] = held[name].repeat(frames, *(1 for _ in held[name].shape)).clone()
            moves[name][:, :, slot] = _closed(held[name][:, slot], aside[name][:, slot], frames)
    return Route(held, moves, slot)


def way_between(model: SlotVAE, seeds: tuple[int, int], num: int, slots: int, frames: int) -> Route:
    """From the scene latents of one seed's scenes to those of another and back.

    The noise of the slots is held as the first seed has it.
    """
    held, other = (sample_noise(model, seed, 0, num, slots) for seed in seeds)
    way = there_and_back(held[SCENE].numpy(), other[SCENE].numpy(), frames)
    return Route(held, {SCENE: torch.from_numpy(way)})


def _closed(start: Tensor, aside: Tensor, frames: int) -> Tensor:
    return torch.from_numpy(closed_walk(start.numpy(), aside.numpy(), frames))


def draw(model: SlotVAE, route: Route, start: int, count: int, temperature: float) -> Scene:
    """Pictures start .. start+count-1 of a walk."""
    pictures = torch.arange(start, start + count)
    frame, walk = pictures // route.walks, pictures % route.walks
    device = device_of(model)
    held = {name: noise[walk].to(device) for name, noise in route.held.items()}
    moved = {name: noise[frame, walk].to(device) for name, noise in route.moves.items()}
    slots = model.slots(held | moved, temperature)
    if route.slot is not None:
        # Slots after it would follow it: held as they were, it alone is seen to change.
        others = model.slots(held, temperature).clone()
        others[:, route.slot] = slots[:, route.slot]
        slots = others
    scene = model.decode(slots)
    return Scene(scene.rgb.float(), scene.log_masks.float())


def walked(
    model: SlotVAE,
    route: Route,
    temperature: float = 1.0,
    precision: str = "auto",
    advance: Any = lambda more: None,
) -> Walked:
    """All pictures of a walk; `advance(more)` is told as they are done."""
    slots = next(noise.shape[1] for name, noise in route.held.items() if name != SCENE)
    device = device_of(model)
    size = chunk_size(slots, model.image_size, device)

    def compute(start: int, count: int) -> tuple[Picture, Picture, NDArray[np.uint8]]:
        return _pictures(draw(model, route, start, count, temperature))

    parts = []
    for part in in_chunks(compute, route.frames * route.walks, size, device, precision):
        parts.append(part)
        advance(len(part[0]))
    images, masks, strongest = (
        np.concatenate(arrays).reshape(route.frames, route.walks, *arrays[0].shape[1:])
        for arrays in zip(*parts, strict=True)
    )
    others = sample_scenes(model, OTHER_SCENES, slots, temperature, OTHER_SEED, precision=precision)
    apart = np.concatenate([_pictures(scene)[2] for scene in others])
    return Walked(
        images,
        masks,
        step=float((strongest != np.roll(strongest, -1, axis=0)).mean()),
        apart=float((apart != np.roll(apart, 1, axis=0)).mean()),
    )


def _pictures(scene: Scene) -> tuple[Picture, Picture, NDArray[np.uint8]]:
    """Images and masks [B,S,S,3], and the strongest slot of every pixel [B,S,S]."""
    masks = scene.masks[:, :, 0].cpu().numpy()
    return quantise(scene.image), blend_masks(masks), masks.argmax(axis=1).astype(np.uint8)
