"""The seam between a segregation model and what is built on it.

A segregation model is an `nn.Module` with two class attributes, `noise()` and a forward that
returns `Segregated`.
Axis legend: B batch, K slots, D slot size, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sri_cli.models.base import Noise, Scene
from sri_cli.models.distributions import Gaussian
from sri_cli.rng import NoiseSpec

EMPTY_LOG_MASK = -1e10  # of a slot that holds nothing: a mask of 0, without infinities


@dataclass(frozen=True)
class Segregated:
    """An image taken apart.

    posterior: independent slot posterior [B,K,D]; slots: a sample of it; log_masks [B,K,1,H,W]:
    attention. The rest is there where the stage has a loss of its own: scene: the slots decoded;
    nll [B]: -log p(image | slots); kl [B]: posterior to the stage's prior inside SRI;
    refinements: (error, kl), [B] each, of the passes before the last where it refines.
    empty [B,K]: slots that hold nothing (dynamic slots); None: all hold something.
    """

    posterior: Gaussian
    slots: Tensor
    log_masks: Tensor
    scene: Scene | None = None
    nll: Tensor | None = None
    kl: Tensor | None = None
    refinements: tuple[tuple[Tensor, Tensor], ...] = ()
    empty: Tensor | None = None


class Segregation(Protocol):
    """What SRI asks of its first stage.

    trained_by_sri: False: the stage has a loss of its own and what SRI builds on it is detached;
    True: it has none, and SRI's losses train it.
    ordered: False: its slots come in no meaningful order and SRI finds one; True: they keep theirs.
    """

    trained_by_sri: bool
    ordered: bool

    def noise(self) -> dict[str, NoiseSpec]:
        """The random draws that the forward pass wants, per image."""
        ...

    def __call__(self, images: Tensor, noise: Noise) -> Segregated:
        """images [B,3,H,W] in [0,1]."""
        ...


def without_empty(scene: Scene, empty: Tensor | None) -> Scene:
    """The scene with the masks of `empty` [B,K] slots closed and the others' summing to 1 again.

    The softmax over all slots, masked and normalised once more, is the softmax over those left:
    a decoder, whichever it is, need not know of empty slots. At least one slot must be left.
    """
    if empty is None:
        return scene
    log_masks = scene.log_masks.masked_fill(empty[:, :, None, None, None], EMPTY_LOG_MASK)
    return Scene(scene.rgb, log_masks.log_softmax(dim=1))


def total(kls: Tensor, empty: Tensor | None) -> Tensor:
    """Sum of KLs [B,K] over the slots that are there, [B]."""
    return (kls if empty is None else kls.masked_fill(empty, 0.0)).sum(dim=1)
