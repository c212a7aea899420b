"""What slot decoders do to pictures, done to simulated ones: so that a judge minds it less.

A slot model blends soft layers: edges are blurred, blocks are flatly coloured or take on colours of
others, half transparent or checkered, textures melt, other scenes shine through, contours waver.
None of that is a flaw of the structure; a picture torn to shreds is.

Axis legend: B pictures, L layers (background and the blocks), S side in pixels. Pictures are
float [B,3,S,S] in [0,1], masks int [B,S,S], labels from 0 (background) to L-1. All randomness comes
from the generator passed in, which lies on the CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = 7  # background and at most 6 blocks
SOUND = 0.15  # share of the pictures left as they are


def model_like(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """The pictures as a slot model might have drawn them; some stay as they are."""
    b = len(images)
    changed = torch.lerp(images, _layered(images, masks, random), _some(b, 0.8, 0.0, 1.0, random))
    changed = torch.lerp(changed, changed.roll(1, 0), _some(b, 0.5, 0.0, 0.25, random))
    changed = waving(changed, _uniform(b, 0.0, 0.8, random), 6, random)
    changed = _checkered(changed, random)
    changed = _softened(changed, random)
    light = _uniform(b, 0.85, 1.15, random)
    noise = torch.randn(changed.shape, generator=random) * _uniform(b, 0.0, 0.03, random)
    changed = ((changed - 0.5) * light + 0.5 + noise).clamp(0, 1)
    return torch.where(_chance(b, SOUND, random), images, changed)


def mush(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """No stack any more, as models fail: a block full of holes, or shreds beside the stack, or
    both; all of it torn, or melted."""
    b = len(images)
    fine = waving(images, _uniform(b, 4.0, 10.0, random), 16, random)
    coarsely = waving(images, _uniform(b, 12.0, 24.0, random), 7, random)
    melted = blur(coarsely, 4 + 5 * torch.rand(b, generator=random))
    broken = _with_holes(images, masks, random)
    shredded = _with_shreds(torch.where(_chance(b, 0.5, random), images, broken), masks, random)
    kind = torch.rand(b, 1, 1, 1, generator=random)
    found = torch.where(kind < 0.35, broken, shredded)
    for share, other in ((0.7, fine), (0.8, coarsely), (0.9, melted)):
        found = torch.where(kind > share, other, found)
    return _softened(found, random)


def _with_holes(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """A block of each picture, a third to two thirds of it gone: the ground shows."""
    b = len(images)
    last = masks.flatten(1).amax(1).float()
    which = 1 + (torch.rand(b, generator=random) * last).floor().clamp(max=5)
    ground = (masks == 0)[:, None].float()
    near = blur(torch.cat([images * ground, ground], 1), 6.0)
    fill = near[:, :3] / near[:, 3:].clamp(min=1e-4)
    holes = _patches(b, images.shape[-1], 14, 0.35 + 0.35 * torch.rand(b, generator=random), random)
    gone = (masks == which[:, None, None])[:, None] & holes
    return torch.where(gone, fill, images)


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
    """bool [count,1,side,side]: about a `share` [count] of the picture, in patches."""
    field = torch.rand(count, 1, cells, cells, generator=random)
    field = F.interpolate(field, (side, side), mode="bicubic")
    least = torch.stack([f.quantile(1 - s) for f, s in zip(field.flatten(1), share, strict=True)])
    return field > least.view(-1, 1, 1, 1)


def mirrored(images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each picture as it is or left to right: nothing of a stack's structure depends on it."""
    flip = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    return images, torch.where(flip[:, None, None], masks.flip(-1), masks)


def coarse(images: Tensor, side: int) -> Tensor:
    """As a picture of `side` pixels shows it, at the size that it has."""
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return F.interpolate(small, images.shape[-2:], mode="bilinear", antialias=True)


def waving(images: Tensor, pixels: Tensor, waves: int, random: torch.Generator) -> Tensor:
    """Contours that waver by about `pixels` [B,1,1,1], in `waves` waves across a picture."""
    b, side = len(images), images.shape[-1]
    shifts = torch.randn(b, 2, waves, waves, generator=random).clamp(-1.5, 1.5) * pixels * 2 / side
    shift = F.interpolate(shifts, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    whole = torch.eye(2, 3).expand(b, 2, 3)
    grid = F.affine_grid(whole, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + shift, padding_mode="border", align_corners=False)


def blur(images: Tensor, sigma: float | Tensor) -> Tensor:
    """Gaussian blur of each channel; sigma in pixels, one for all or [B]; at an edge what is
    inside counts alone.

    As two products with matrices: ten times as fast on a CPU as convolutions of one channel.
    """
    height, width = images.shape[-2:]
    return _smoothing(height, sigma, images) @ images @ _smoothing(width, sigma, images).mT


def _smoothing(side: int, sigma: float | Tensor, like: Tensor) -> Tensor:
    """[side,side] or [B,1,side,side], rows that sum to 1."""
    place = torch.arange(side, dtype=like.dtype, device=like.device)
    width = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).clamp(min=1e-2)
    if width.ndim:
        width = width.view(-1, 1, 1, 1)
    return (-0.5 * ((place[:, None] - place) / width) ** 2).softmax(dim=-1)


def _layered(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Soft masks over smooth layers that bleed into each other, some blocks half transparent.

    Widths go with the blocks': what melts a small block leaves a large one as it is.
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
        weight = hard[:, i : i + 1]
        near = blur(torch.cat([images * weight, weight], 1), 0.5 + 0.3 * (inside if i else ground))
        colour = near[:, :3] / near[:, 3:].clamp(min=1e-4)
        drawn += soft[:, i : i + 1] * (torch.lerp(colour, stains, stained) if i else colour)
    return drawn


def _checkered(images: Tensor, random: torch.Generator) -> Tensor:
    """The patterns that strided deconvolutions leave: columns, rows or checks of 2 to 4 pixels."""
    b, side = len(images), images.shape[-1]
    place = torch.arange(side)
    period = 2.0 + 2.0 * torch.rand(b, 1, 1, 1, generator=random)
    along = (6.2832 / period * place).sin()  # [B,1,1,S]
    kinds = torch.stack([along.expand(b, 1, side, side), along.mT.expand(b, 1, side, side)])
    mix = torch.rand(2, b, 1, 1, 1, generator=random) < 0.5
    pattern = torch.where(mix[0], kinds[0], 1.0) * torch.where(mix[1], kinds[1], 1.0)
    depth = _some(b, 0.4, 0.0, 0.15, random) * mix.any(0)
    return images * (1 + depth * pattern)


def _softened(images: Tensor, random: torch.Generator) -> Tensor:
    """Of few pixels, or blurred, or neither."""
    b = len(images)
    kind = torch.rand(b, 1, 1, 1, generator=random)
    soft = blur(images, 0.2 + 0.7 * torch.rand(b, generator=random))
    changed = torch.where(kind < 0.3, coarse(images, 32), images)
    changed = torch.where((kind >= 0.3) & (kind < 0.4), coarse(images, 48), changed)
    return torch.where((kind >= 0.4) & (kind < 0.7), soft, changed)


def _some(count: int, share: float, low: float, high: float, random: torch.Generator) -> Tensor:
    """[count,1,1,1]: a `share` of them uniform, the others 0."""
    return _uniform(count, low, high, random) * _chance(count, share, random)


def _chance(count: int, share: float, random: torch.Generator) -> Tensor:
    """bool [count,1,1,1], True in about a `share` of them."""
    return torch.rand(count, 1, 1, 1, generator=random) < share


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """[count,1,1,1]."""
    return torch.rand(count, 1, 1, 1, generator=random) * (high - low) + low
