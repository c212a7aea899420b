"""p(x | z): the likelihood of an image given its decoded slots.

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


@dataclass(frozen=True)
class ImageLikelihood:
    """A pixel likelihood with one fixed standard deviation, shared by all stages of a model.

    mog:      -log p = -sum_chw log sum_k mask_k N(x; rgb_k, std^2), a mixture with one Gaussian
              per slot.
    gaussian: -log p = -sum_chw log N(x; sum_k mask_k rgb_k, std^2), one Gaussian around the
              blended image.

    `normalised` counts the constant 0.5 log 2 pi of every element; bits per dimension need it.
    """

    kind: LikelihoodKind
    std: float
    normalised: bool

    def nll(self, images: Tensor, scene: Scene, gaussian: bool = False) -> Tensor:
        """-log p(images | scene) in nats, [B].

        Args:
            images: [B,3,H,W] in [0,1].
            scene: The decoded slots.
            gaussian: Use the Gaussian likelihood whatever the `kind` (warm-up of training).
        """
        log_std = math.log(self.std) + (HALF_LOG_2PI if self.normalised else 0.0)
        precision = 0.5 / self.std**2
        if gaussian or self.kind == "gaussian":
            error = precision * (images - scene.image).square()
            return (error + log_std).flatten(1).sum(dim=1)
        fit = scene.log_masks - precision * (images[:, None] - scene.rgb).square()
        return (log_std - logsumexp(fit, dim=1)).flatten(1).sum(dim=1)
