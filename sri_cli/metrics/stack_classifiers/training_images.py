"""Simulated images to train the two networks on, drawn over as slot decoders draw.

Half of each set looks like original ShapeStacks towers, half like the demo's. Image i of a seed is
a function of both alone.

A slot model blends soft layers: edges blur, blocks are flatly coloured or take on colours of
others, half transparent or checkered, textures melt, other scenes shine through, contours waver.
None of that is a flaw of the structure (`model_like`); an image torn to shreds is (`shredded`).

Axis legend: N images of a set, B of a batch, L layers (background and the blocks), P positions in a
stack, S side in pixels. In a batch images are float [B,3,S,S] in [0,1], masks int [B,S,S] with
labels 0 (background) to L-1. All randomness comes from the CPU generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.data.dataset import Advance
from sri_cli.data.parallel import parallel_map
from sri_cli.data.simulate.flaws import FLAWS, flaw_of, simulate_labelled_tower
from sri_cli.data.simulate.towers import simulate_tower
from sri_cli.data.source import Scenario
from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.stack_classifiers.classifiers import COLOURS, POSITIONS, SHAPES, SIDE

VIEWS = 2  # of a tower of the original look
FACTORS = ("height", "shapes", "colours", "stable", "wall_texture")
IGNORED = -100  # an unknown target
NO_STACK = 5  # the flaw of an image that shows no stack
SHREDDED = 0.25  # share of a batch
UNCHANGED = 0.15  # share of the images that `model_like` leaves as they are
LAYERS = 7  # background and at most 6 blocks


@dataclass(frozen=True)
class LabelledImages:
    """images uint8 [N,S,S,3], masks uint8 [N,S,S], targets int64 [N] or [N,P] by output."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    targets: Mapping[str, NDArray[np.int64]]


def factor_images(
    count: int, seed: int, workers: int = 1, advance: Advance = lambda done: None
) -> LabelledImages:
    """`count` images of towers as in the data sets; in the original look half of them stable."""
    items = [("original", i) for i in range(count // 2 // VIEWS)]
    items += [("demo", i) for i in range(count - VIEWS * len(items))]
    made, images, masks = _simulate(partial(_tower, seed), items, workers, advance)
    factors = {key: np.concatenate([tower.factors[key] for tower in made]) for key in FACTORS}
    return LabelledImages(images, masks, factor_targets(factors))


def touching_images(
    count: int, seed: int, workers: int = 1, advance: Advance = lambda done: None
) -> LabelledImages:
    """`count` images of stacks, half of them whole and half with a flaw of each kind in turn."""
    items = [(look, i) for look in ("original", "demo") for i in range(count // 2)]
    _, images, masks = _simulate(partial(_stack, seed), items, workers, advance)
    flaws = [0 if (flaw := flaw_of(i)) is None else 1 + FLAWS.index(flaw) for _, i in items]
    return LabelledImages(images, masks, {"flaw": np.array(flaws, np.int64)})


def _simulate(
    make: Callable[[Any], Scenario], items: Sequence[Any], workers: int, advance: Advance
) -> tuple[list[Scenario], NDArray[np.uint8], NDArray[np.uint8]]:
    """The scenarios, and all their images and masks."""
    made = []
    for one in parallel_map(make, items, workers, items_per_task=16):
        made.append(one)
        advance(len(one.images))
    masks = [one.masks for one in made if one.masks is not None]
    return made, np.concatenate([one.images for one in made]), np.concatenate(masks)


def _tower(seed: int, item: tuple[Any, int]) -> Scenario:
    look, index = item
    views = VIEWS if look == "original" else 1
    return simulate_tower(index, size_px=SIDE, views=views, preset=look, seed=seed)


def _stack(seed: int, item: tuple[Any, int]) -> Scenario:
    look, index = item
    return simulate_labelled_tower(index, size_px=SIDE, preset=look, seed=seed)


def factor_targets(factors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    """The simulator's factors of N images as classes.

    All demo towers are stable, so their stability is ignored: it would teach a look, not physics.
    """
    shapes, colours = factors["shapes"].astype(np.int64), factors["colours"].astype(np.int64)
    demo = factors["wall_texture"] < 0
    return {
        "height": factors["height"].astype(np.int64) - 1,
        "shapes": np.where(shapes < 0, SHAPES, shapes)[:, :POSITIONS],
        "colours": np.where(colours < 0, COLOURS, colours)[:, :POSITIONS],
        "stable": np.where(demo, IGNORED, factors["stable"]).astype(np.int64),
    }


def batch_of(
    which: str, source: LabelledImages, chosen: NDArray[np.int64], random: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The chosen images [B,3,S,S] as the network sees them in training, and their targets.

    Features have to respond to blur and noise, so `factors` sees clean images, half of its batches
    at a resolution of 32 pixels. `touching` has to ignore what decoders do, but not shreds.
    """
    images, masks = to_tensor(source.images[chosen]), torch.from_numpy(source.masks[chosen])
    targets = {name: torch.from_numpy(values[chosen]) for name, values in source.targets.items()}
    images, masks = mirrored(images, masks, random)
    if which == "factors":
        return coarse(images, 32) if torch.rand((), generator=random) < 0.5 else images, targets
    images = model_like(images, masks, random)
    torn = torch.rand(len(images), generator=random) < SHREDDED
    images = torch.where(torn[:, None, None, None], shredded(images, masks, random), images)
    flaw = targets["flaw"].masked_fill(torn, NO_STACK)
    return images, {"plausible": (flaw == 0).long(), "flaw": flaw}


def model_like(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """The images as a slot model might have drawn them; some stay as they are."""
    b = len(images)
    changed = torch.lerp(images, _layered(images, masks, random), _some(b, 0.8, 0.0, 1.0, random))
    changed = torch.lerp(changed, changed.roll(1, 0), _some(b, 0.5, 0.0, 0.25, random))
    changed = waving(changed, _uniform(b, 0.0, 0.8, random), 6, random)
    changed = _checkered(changed, random)
    changed = _softened(changed, random)
    light = _uniform(b, 0.85, 1.15, random)
    noise = torch.randn(changed.shape, generator=random) * _uniform(b, 0.0, 0.03, random)
    changed = ((changed - 0.5) * light + 0.5 + noise).clamp(0, 1)
    return torch.where(_chance(b, UNCHANGED, random), images, changed)


def shredded(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """No stack any more, as models fail: a block full of holes, or shreds beside the stack, or
    both; all of it torn, or melted."""
    b = len(images)
    fine = waving(images, _uniform(b, 4.0, 10.0, random), 16, random)
    coarsely = waving(images, _uniform(b, 12.0, 24.0, random), 7, random)
    melted = blur(coarsely, 4 + 5 * torch.rand(b, generator=random))
    broken = _with_holes(images, masks, random)
    shreds = _with_shreds(torch.where(_chance(b, 0.5, random), images, broken), masks, random)
    kind = torch.rand(b, 1, 1, 1, generator=random)
    torn = torch.where(kind < 0.35, broken, shreds)
    for share, other in ((0.7, fine), (0.8, coarsely), (0.9, melted)):
        torn = torch.where(kind > share, other, torn)
    return _softened(torn, random)


def mirrored(images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image as it is, or left to right."""
    flip = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    return images, torch.where(flip[:, None, None], masks.flip(-1), masks)


def coarse(images: Tensor, side: int) -> Tensor:
    """Reduced to `side` pixels and enlarged again."""
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return F.interpolate(small, images.shape[-2:], mode="bilinear", antialias=True)


def waving(images: Tensor, pixels: Tensor, waves: int, random: torch.Generator) -> Tensor:
    """Contours that waver by about `pixels` [B,1,1,1], in `waves` waves across an image."""
    b, side = len(images), images.shape[-1]
    shifts = torch.randn(b, 2, waves, waves, generator=random).clamp(-1.5, 1.5) * pixels * 2 / side
    shift = F.interpolate(shifts, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3).expand(b, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + shift, padding_mode="border", align_corners=False)


def blur(images: Tensor, sigma: float | Tensor) -> Tensor:
    """Gaussian blur of each channel, sigma in pixels (one for all, or [B]), renormalised at edges.

    Two matrix products: ten times as fast on a CPU as convolutions of one channel.
    """
    height, width = images.shape[-2:]
    return _smoothing(height, sigma, images) @ images @ _smoothing(width, sigma, images).mT


def blur_within(images: Tensor, weight: Tensor, sigma: float | Tensor) -> Tensor:
    """Blur [B,3,S,S] that takes up only pixels of `weight` 1, [B,1,S,S], and spreads beyond."""
    near = blur(torch.cat([images * weight, weight], dim=1), sigma)
    return near[:, :3] / near[:, 3:].clamp(min=1e-4)


def _smoothing(side: int, sigma: float | Tensor, like: Tensor) -> Tensor:
    """[side,side] or [B,1,side,side], rows that sum to 1."""
    position = torch.arange(side, dtype=like.dtype, device=like.device)
    width = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).clamp(min=1e-2)
    if width.ndim:
        width = width.view(-1, 1, 1, 1)
    return (-0.5 * ((position[:, None] - position) / width) ** 2).softmax(dim=-1)


def _with_holes(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """A third to two thirds of one block of each image replaced by background."""
    b = len(images)
    last = masks.flatten(1).amax(1).float()
    which = 1 + (torch.rand(b, generator=random) * last).floor().clamp(max=5)
    holes = _patches(b, images.shape[-1], 14, 0.35 + 0.35 * torch.rand(b, generator=random), random)
    gone = (masks == which[:, None, None])[:, None] & holes
    return torch.where(gone, blur_within(images, (masks == 0)[:, None].float(), 6.0), images)


def _with_shreds(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Bits of some colour around the stack that belong to nothing."""
    b = len(images)
    blocks = (masks > 0)[:, None].float()
    around = (blur(blocks, 4.0) > 0.02) & (blocks == 0)
    bits = _patches(b, images.shape[-1], 24, 0.1 + 0.15 * torch.rand(b, generator=random), random)
    colour = torch.rand(b, 3, 1, 1, generator=random).round()
    strength = _uniform(b, 0.5, 1.0, random)
    return torch.where(around & bits, torch.lerp(images, colour, strength), images)


def _patches(count: int, side: int, cells: int, share: Tensor, random: torch.Generator) -> Tensor:
    """bool [count,1,side,side]: about a `share` [count] of each image, in patches."""
    field = torch.rand(count, 1, cells, cells, generator=random)
    field = F.interpolate(field, (side, side), mode="bicubic")
    least = torch.stack([f.quantile(1 - s) for f, s in zip(field.flatten(1), share, strict=True)])
    return field > least.view(-1, 1, 1, 1)


def _layered(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Soft masks over smooth layers that bleed into each other, some blocks half transparent.

    Blur widths scale with the blocks: what melts a small block leaves a large one as it is.
    """
    b, side = len(images), images.shape[-1]
    hard = F.one_hot(masks.long(), LAYERS).permute(0, 3, 1, 2).float()  # [B,L,S,S]
    blocks = hard[:, 1:].flatten(2).sum(2)  # pixels of each
    width = (blocks.sum(1) / (blocks > 0).sum(1).clamp(min=1)).sqrt()  # of a block, [B]
    edge, ground, inside = torch.rand(3, b, generator=random) * width
    opacity = 1 - _some(b * LAYERS, 0.4, 0.0, 0.65, random).view(b, LAYERS, 1, 1)
    opacity[:, 0] = 1
    soft = blur(hard, 0.3 + 0.14 * edge) * opacity
    soft = soft / soft.sum(1, keepdim=True).clamp(min=1e-6)
    stains = torch.rand(b, 3, 8, 8, generator=random)
    stains = F.interpolate(stains, (side, side), mode="bicubic").clamp(0, 1)
    stained = _some(b, 0.6, 0.0, 0.45, random)
    drawn = torch.zeros_like(images)
    for i in range(LAYERS):
        sigma = 0.5 + 0.3 * (inside if i else ground)
        colour = blur_within(images, hard[:, i : i + 1], sigma)
        drawn += soft[:, i : i + 1] * (torch.lerp(colour, stains, stained) if i else colour)
    return drawn


def _checkered(images: Tensor, random: torch.Generator) -> Tensor:
    """The patterns that strided deconvolutions leave: columns, rows or checks of 2 to 4 pixels."""
    b, side = len(images), images.shape[-1]
    period = 2.0 + 2.0 * torch.rand(b, 1, 1, 1, generator=random)
    along = (6.2832 / period * torch.arange(side)).sin()  # [B,1,1,S]
    kinds = torch.stack([along.expand(b, 1, side, side), along.mT.expand(b, 1, side, side)])
    mix = torch.rand(2, b, 1, 1, 1, generator=random) < 0.5
    pattern = torch.where(mix[0], kinds[0], 1.0) * torch.where(mix[1], kinds[1], 1.0)
    depth = _some(b, 0.4, 0.0, 0.15, random) * mix.any(0)
    return images * (1 + depth * pattern)


def _softened(images: Tensor, random: torch.Generator) -> Tensor:
    """At low resolution, or blurred, or unchanged."""
    b = len(images)
    kind = torch.rand(b, 1, 1, 1, generator=random)
    soft = blur(images, 0.2 + 0.7 * torch.rand(b, generator=random))
    changed = torch.where(kind < 0.3, coarse(images, 32), images)
    changed = torch.where((kind >= 0.3) & (kind < 0.4), coarse(images, 48), changed)
    return torch.where((kind >= 0.4) & (kind < 0.7), soft, changed)


def _some(count: int, share: float, low: float, high: float, random: torch.Generator) -> Tensor:
    """[count,1,1,1]: a `share` of them uniform in [low, high], the others 0."""
    return _uniform(count, low, high, random) * _chance(count, share, random)


def _chance(count: int, share: float, random: torch.Generator) -> Tensor:
    """bool [count,1,1,1], True in about a `share` of them."""
    return torch.rand(count, 1, 1, 1, generator=random) < share


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """[count,1,1,1]."""
    return torch.rand(count, 1, 1, 1, generator=random) * (high - low) + low
