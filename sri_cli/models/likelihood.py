"""p(x | z): the likelihood of an image given its decoded slots.

Axis legend: B batch, K slots, C = 3, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, logsumexp
from torch.autograd.function import once_differentiable

from sri_cli.models.base import Scene
from sri_cli.models.distributions import HALF_LOG_2PI
from sri_cli.models.kernels import trains_on_cpu

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
        parts = images.contiguous(), scene.rgb, scene.log_masks, precision
        if trains_on_cpu(scene.rgb):
            mixture: Tensor = _Mixture.apply(*parts)
        else:
            mixture = log_mixture(*parts)[0]
        return (log_std - mixture).flatten(1).sum(dim=1)


def log_mixture(
    images: Tensor, rgb: Tensor, log_masks: Tensor, precision: float
) -> tuple[Tensor, Tensor, Tensor]:
    """log sum_k mask_k exp(-precision * (image - rgb_k)^2) [B,C,H,W].

    Also image - rgb_k and the logarithms under the sum, both [B,K,C,H,W].
    """
    apart = images[:, None] - rgb
    fit = torch.addcmul(log_masks, apart, apart, value=-precision)
    return logsumexp(fit, dim=1), apart, fit


class _Mixture(torch.autograd.Function):
    """`log_mixture`, with a backward pass in four trips to memory where autograd takes eleven."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, rgb: Tensor, log_masks: Tensor, precision: float
    ) -> Tensor:
        mixture, apart, fit = log_mixture(images, rgb, log_masks, precision)
        ctx.save_for_backward(apart, fit.sub_(mixture[:, None]).exp_())
        ctx.precision = precision
        return mixture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        apart, responsibility = ctx.saved_tensors
        slope = responsibility * grads[0][:, None]
        by_mask = slope.sum(dim=2, keepdim=True)
        by_rgb = slope.mul_(apart).mul_(2 * ctx.precision)
        by_image = -by_rgb.sum(dim=1) if ctx.needs_input_grad[0] else None
        return by_image, by_rgb, by_mask, None
