"""The bound on the likelihood of an image (METRICS: -ELBO), in nats and in bits per dimension.

Axis legend: B images. One posterior sample per image; every GECO weight counts as 1.
"""

from __future__ import annotations

import math

from torch import Tensor

from sri_cli.models.base import Losses

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def negative_elbo(losses: Losses) -> Tensor:
    """-ELBO per image [B], in nats: the terms that the model says make up its bound.

    SRI: NLL + scene KL + slot KL; the segregation stage and the cross-order KL are no part.
    """
    return sum((losses.terms[name] for name in losses.bound[1:]), losses.terms[losses.bound[0]])


def bits_per_dimension(nats: float, image_size: int, normalised: bool) -> float:
    """-ELBO in bits per pixel and channel, as the papers count: with the normalised likelihood.

    A likelihood trained without its constant gets the missing 0.5 log 2 pi back.
    """
    per_dimension = nats / (3 * image_size**2)
    return (per_dimension + (0.0 if normalised else HALF_LOG_2PI)) / math.log(2)
