"""Diagonal Gaussians in closed form, and the parameterisations of their standard deviations.

Axis legend: everything is [..., D]; densities and divergences sum over D and return [...].
Kept in float32 whatever the surrounding autocast, because a KL is a difference of logarithms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """A diagonal Gaussian: `mean` and `std`, both [..., D] in float32."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Reparameterised draw mean + temperature * std * noise, noise ~ N(0, I) of [..., D]."""
        return self.mean + temperature * self.std * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """log N(value; mean, std^2), summed over D."""
        whitened = (value - self.mean) / self.std
        return -(0.5 * whitened.square() + self.std.log() + HALF_LOG_2PI).sum(dim=-1)

    def detach(self) -> Gaussian:
        """The same distribution, cut off from the gradient."""
        return Gaussian(self.mean.detach(), self.std.detach())


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """Analytic KL(q || p), summed over D."""
    ratio = (q.std / p.std).square()
    shift = ((q.mean - p.mean) / p.std).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).sum(dim=-1)


def kl_to_standard(q: Gaussian) -> Tensor:
    """Analytic KL(q || N(0, I)), summed over D."""
    variance = q.std.square()
    return 0.5 * (variance + q.mean.square() - 1 - variance.log()).sum(dim=-1)


def log_prob_standard(value: Tensor) -> Tensor:
    """log N(value; 0, I), summed over D."""
    return -(0.5 * value.square() + HALF_LOG_2PI).sum(dim=-1)


def sqrt_softplus(u: Tensor) -> Tensor:
    """std = sqrt(softplus(min(u, 80)) + 1e-5): SRI, EMORL and Slot Attention."""
    return (F.softplus(u.float().clamp(max=80.0)) + 1e-5).sqrt()


def shifted_softplus(u: Tensor) -> Tensor:
    """std = softplus(u + 0.5) + 1e-8: the posteriors of GENESIS and GENESIS-v2."""
    return F.softplus(u.float() + 0.5) + 1e-8


def squashed_prior(parameters: Tensor) -> Gaussian:
    """GENESIS' and GENESIS-v2's priors: tanh(u) and sigmoid(v + 4) + 1e-4 of [u ; v] [..., 2D]."""
    u, v = parameters.float().chunk(2, dim=-1)
    return Gaussian(u.tanh(), torch.sigmoid(v + 4.0) + 1e-4)
