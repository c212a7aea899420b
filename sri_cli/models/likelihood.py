"""p(x | slots): how an image is explained by its decoded slots.

Axis legend: B batch, K slots, C = 3, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, logsumexp

from sri_cli.models.base import Scene
from sri_cli.models.distributions import HALF_LOG_2PI

LikelihoodKind = Literal["mog", "gaussian"]


@dataclass
class ImageLikelihood:
    """A pixel likelihood with one fixed standard deviation, shared by all stages of a model.

    `mog`: each pixel is a mixture of one Gaussian per slot, weighted by the masks.
    `gaussian`: one Gaussian around the blended image.
    `normalised` adds the constant 0.5 log 2 pi per element; bits per dimension want it.
    `stand_in`, while set, is used instead of `kind`: a mixture asks every slot to explain its
    pixels alone and learns colours slowly from scratch, so training may begin with the blend.
    """

    kind: LikelihoodKind
    std: float
    normalised: bool
    stand_in: LikelihoodKind | None = None

    def nll(self, images: Tensor, scene: Scene) -> Tensor:
        """-log p(images | scene) in nats, [B]; images [B,3,H,W] in [0,1]."""
        log_std = math.log(self.std) + (HALF_LOG_2PI if self.normalised else 0.0)
        precision = 0.5 / self.std**2
        if (self.stand_in or self.kind) == "gaussian":
            error = precision * (images - scene.image).square()
            return (error + log_std).flatten(1).sum(dim=1)
        fit = scene.log_masks - precision * (images[:, None] - scene.rgb).square()
        return (log_std - logsumexp(fit, dim=1)).flatten(1).sum(dim=1)
