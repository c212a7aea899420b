"""The seam between a segregation model and what is built on it.

A segregation model is an `nn.Module` with `noise()` and a forward that returns `Segregated`.
Axis legend: B batch, K slots, D slot size, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sri_cli.model.gaussians import Gaussian
from sri_cli.model.output import Noise, NoiseSpec, Scene


@dataclass(frozen=True)
class Segregated:
    """An image taken apart.

    posterior: independent slot posterior [B,K,D] in no meaningful order; slots: a sample of it;
    log_masks [B,K,1,H,W]: attention; scene: the slots decoded; nll [B]: -log p(image | slots).
    """

    posterior: Gaussian
    slots: Tensor
    log_masks: Tensor
    scene: Scene
    nll: Tensor


class Segregation(Protocol):
    """What SRI asks of its first stage."""

    def noise(self) -> dict[str, NoiseSpec]:
        """The random draws that the forward pass wants, per image."""
        ...

    def __call__(self, images: Tensor, noise: Noise) -> Segregated:
        """images [B,3,H,W] in [0,1]."""
        ...
