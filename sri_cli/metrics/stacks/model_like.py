"""What slot decoders do to pictures, done to simulated ones: so that a judge minds it less.

A slot model blends soft layers: edges are blurred, blocks are flatly coloured and a little
transparent, textures melt, neighbours shine through, contours waver. None of that is a flaw of the
structure.

Axis legend: B pictures, L layers (background and the blocks), S side in pixels. Pictures are
float [B,3,S,S] in [0,1], masks int [B,S,S], labels from 0 (background) to L-1. All randomness comes
from the generator passed in, which lies on the CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = 7  # background and at most 6 blocks
GROUPS = 4  # of a batch; the blurs of a group are alike
SOUND = 0.2  # share of a batch's groups of pictures left as they are


def model_like(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """The pictures as a slot model might have drawn them; some stay as they are."""
    groups = zip(images.chunk(GROUPS), masks.chunk(GROUPS), strict=True)
    changed = torch.cat([_layered(image, mask, random) for image, mask in groups])
    strength = _uniform(len(images), 0.0, 1.0, random)
    changed = torch.lerp(images, changed, strength)
    ghosts = changed.roll(1, 0)
    changed = torch.lerp(changed, ghosts, _uniform(len(images), 0.0, 0.12, random))
    changed = waving(changed, _uniform(len(images), 0.0, 0.8, random), 6, random)
    changed = torch.cat([_softened(part, random) for part in changed.chunk(GROUPS)])
    light = _uniform(len(images), 0.85, 1.15, random)
    noise = torch.randn(changed.shape, generator=random) * _uniform(len(images), 0, 0.03, random)
    changed = ((changed - 0.5) * light + 0.5 + noise).clamp(0, 1)
    keep = torch.rand(len(images), 1, 1, 1, generator=random) < SOUND
    return torch.where(keep, images, changed)


def mush(images: Tensor, random: torch.Generator) -> Tensor:
    """No stack any more: several pictures in one, or one torn to shreds."""
    b = len(images)
    parts = _uniform(b, 0.35, 0.5, random)
    blend = torch.lerp(images, images.roll(1, 0), parts)
    more = torch.lerp(blend, images.roll(2, 0), 0.33)
    blend = torch.where(torch.rand(b, 1, 1, 1, generator=random) < 0.5, more, blend)
    torn = waving(images, _uniform(b, 4.0, 10.0, random), 16, random)
    return torch.where(torch.rand(b, 1, 1, 1, generator=random) < 0.5, blend, torn)


def mirrored(images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each picture as it is or left to right: nothing of a stack's structure depends on it."""
    flip = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    return images, torch.where(flip[:, None, None], masks.flip(-1), masks)


def coarse(images: Tensor, side: int) -> Tensor:
    """As a picture of `side` pixels shows it, at the size that it has."""
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return F.interpolate(small, images.shape[-2:], mode="bilinear", antialias=True)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of each channel, sigma in pixels; at an edge what is inside counts alone.

    As two products with a matrix: ten times as fast on a CPU as convolutions of one channel.
    """
    if sigma < 0.05:
        return images
    return (
        _smoothing(images.shape[-2], sigma, images)
        @ images
        @ _smoothing(images.shape[-1], sigma, images).T
    )


def _smoothing(side: int, sigma: float, like: Tensor) -> Tensor:
    """[side,side], rows that sum to 1."""
    place = torch.arange(side, dtype=like.dtype, device=like.device)
    return (-0.5 * ((place[:, None] - place) / sigma) ** 2).softmax(dim=1)


def _layered(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Soft masks over smooth layers, one block a little transparent."""
    edge, *smooth = (float(v) for v in torch.rand(3, generator=random))
    hard = F.one_hot(masks.long(), LAYERS).permute(0, 3, 1, 2).float()  # [B,L,S,S]
    soft = blur(hard, 0.3 + 0.9 * edge)
    fade = torch.rand(len(images), LAYERS, 1, 1, generator=random).mul(0.35)
    fade[:, 0] = 0
    fade *= torch.rand(len(images), LAYERS, 1, 1, generator=random) < 0.3
    soft = soft * (1 - fade)
    soft = soft / soft.sum(1, keepdim=True).clamp(min=1e-6)
    sigma = [0.5 + 3 * smooth[0]] + [0.5 + 2 * smooth[1]] * (LAYERS - 1)
    layers = torch.zeros_like(images)
    for i, width in enumerate(sigma):
        weight = hard[:, i : i + 1]
        near = blur(torch.cat([images * weight, weight], 1), width)
        colour = near[:, :3] / near[:, 3:].clamp(min=1e-4)
        layers += soft[:, i : i + 1] * colour
    return layers


def waving(images: Tensor, pixels: Tensor, waves: int, random: torch.Generator) -> Tensor:
    """Contours that waver by about `pixels` [B,1,1,1], in `waves` waves across a picture."""
    b, side = len(images), images.shape[-1]
    shifts = torch.randn(b, 2, waves, waves, generator=random).clamp(-1.5, 1.5) * pixels * 2 / side
    shift = F.interpolate(shifts, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    whole = torch.eye(2, 3).expand(b, 2, 3)
    grid = F.affine_grid(whole, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + shift, padding_mode="border", align_corners=False)


def _softened(images: Tensor, random: torch.Generator) -> Tensor:
    """Of few pixels, or blurred, or neither."""
    kind, amount = (float(v) for v in torch.rand(2, generator=random))
    if kind < 0.4:
        return coarse(images, 32 if amount < 0.7 else 48)
    return blur(images, 0.9 * amount) if kind < 0.7 else images


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """[count,1,1,1]."""
    return torch.rand(count, 1, 1, 1, generator=random) * (high - low) + low
