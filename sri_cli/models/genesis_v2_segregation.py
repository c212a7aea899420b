"""GENESIS-v2's way of taking an image apart: instance colouring stick-breaking.

Axis legend: B batch, K slots, D slot size, E = 8 colour dimensions, F feature channels, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sri_cli.models.base import Noise
from sri_cli.models.decoders import BroadcastDecoder
from sri_cli.models.distributions import Gaussian, log_prob_standard, shifted_softplus
from sri_cli.models.layers import conv_norm_relu, coordinate_grid, full_precision
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.segregation import EMPTY_LOG_MASK, Segregated, total, without_empty
from sri_cli.models.unet import UNet
from sri_cli.rng import NoiseSpec

COLOURS = 8
ALPHA_RANGE = (0.01, 0.99)
MASK_EPSILON = 1e-5
FEWEST_PIXELS = 20  # dynamic slots: the first mask of less stops the search for more


def initial_log_sigma(kernel: str, slots: int) -> float:
    """The kernel width at which K equal segments tile the colour space."""
    widths = {
        "gaussian": 1.0 / (slots * math.log(2)),
        "laplacian": 1.0 / (math.sqrt(slots) * math.log(2)),
        "epanechnikov": 2.0 / slots,
    }
    return math.log(widths[kernel])


def straight_through_clamp(x: Tensor, low: float | None, high: float | None = None) -> Tensor:
    """x clamped, with the gradient of x."""
    return x + (x.clamp(low, high) - x).detach()


class InstanceColouring(nn.Module):
    """Semi-convolutional colours, stick-breaking around random seed pixels: K attention masks."""

    coordinates: Tensor

    def __init__(self, features: int, slots: int, image_size: int, kernel: str) -> None:
        super().__init__()
        self.slots = slots
        self.kernel = kernel
        self.colour_head = nn.Conv2d(features, COLOURS, 1)
        self.gate = nn.Parameter(torch.zeros(()))
        self.log_sigma = nn.Parameter(torch.tensor(initial_log_sigma(kernel, slots)))
        coordinates = torch.zeros(COLOURS, image_size, image_size)
        coordinates[-2:] = coordinate_grid(image_size)
        self.register_buffer("coordinates", coordinates, persistent=False)

    def affinity(self, squared_distance: Tensor) -> Tensor:
        """Similarity in [0,1] to the seed pixel from the squared colour distance."""
        sigma = self.log_sigma.exp()
        if self.kernel == "gaussian":
            return torch.exp(-squared_distance / sigma)
        if self.kernel == "laplacian":
            return torch.exp(-straight_through_clamp(squared_distance, 1e-10).sqrt() / sigma)
        return torch.relu(1.0 - squared_distance / sigma)

    def forward(self, features: Tensor, rand_pixel: Tensor) -> Tensor:
        """features [B,F,H,W], rand_pixel [B,1,H,W] in [0,1] to log-masks [B,K,1,H,W]."""
        log_masks, _ = self.sticks(features, rand_pixel, self.slots)
        return torch.stack(log_masks, dim=1).unflatten(2, (1, *features.shape[-2:]))

    def dynamic(self, features: Tensor, rand_pixel: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        """At most `slots` log-masks, as many as each image wants, and which are empty [B,slots]."""
        log_masks, log_scopes = self.sticks(features, rand_pixel, slots)
        stopped, empty = stop_early(torch.stack(log_masks, dim=1), torch.stack(log_scopes, dim=1))
        return stopped.unflatten(2, (1, *features.shape[-2:])), empty

    def sticks(
        self, features: Tensor, rand_pixel: Tensor, slots: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Log-masks and the log-scopes that they are broken from, [B,HW] each, `slots` of both."""
        colours = (self.colour_head(features).float() * self.gate + self.coordinates).flatten(2)
        rand_pixel = rand_pixel.flatten(1)
        log_scopes = [torch.zeros_like(rand_pixel)]
        log_masks = []
        for _ in range(slots - 1):
            log_scope = log_scopes[-1]
            # The seed is looked up for the whole batch at once and never leaves the device.
            pixel = (rand_pixel * log_scope.detach().exp()).argmax(dim=1)
            seed = colours.gather(2, pixel[:, None, None].expand(-1, COLOURS, 1))
            alpha = self.affinity((colours - seed).square().sum(dim=1))
            alpha = straight_through_clamp(alpha, *ALPHA_RANGE)
            log_masks.append(log_scope + alpha.log())
            log_scopes.append(log_scope + (1.0 - alpha).log())
        return [*log_masks, log_scopes[-1]], log_scopes


def stop_early(log_masks: Tensor, log_scopes: Tensor) -> tuple[Tensor, Tensor]:
    """Dynamic slots: the first mask that is too small takes the whole scope, the rest is empty.

    log_masks, log_scopes [B,K,HW], the last of both equal. Returns log-masks and empty [B,K].
    """
    small = log_masks.exp().sum(dim=-1) < FEWEST_PIXELS
    before = small.cumsum(dim=1) - small.long()  # too small ones before each
    empty = before > 0
    last = small & ~empty
    log_masks = torch.where(last[..., None], log_scopes, log_masks)
    return log_masks.masked_fill(empty[..., None], EMPTY_LOG_MASK), empty


class FeaturePooling(nn.Module):
    """Mask-weighted mean of the feature head, per slot.

    The head's last 1x1 convolution is linear, so it is applied to the K pooled vectors instead of
    every pixel: W mean(f) + b mean(1), the second mean short of 1 only by the epsilon.
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.head = conv_norm_relu(features, features)
        self.project = nn.Conv2d(features, outputs, 1)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """features [B,F,H,W], masks [B,K,1,H,W] to [B,K,outputs]."""
        pixels = self.head(features).float().flatten(2)
        with full_precision(masks):
            masks = masks.flatten(2)
            mass = masks.sum(dim=-1, keepdim=True)
            pooled = torch.bmm(masks, pixels.transpose(1, 2)) / (mass + MASK_EPSILON)
            share = mass / (mass + MASK_EPSILON)
            weight, bias = self.project.parameters()
            return nn.functional.linear(pooled, weight.flatten(1)) + share * bias


class GenesisV2Segregation(nn.Module):
    """GENESIS-v2 up to its decoder: images to a randomly ordered slot posterior and its scene."""

    trained_by_sri = False
    ordered = False
    # Evaluation may set these two; the model must then be in eval mode.
    dynamic_slots = False  # as many slots as an image wants (GENESIS-v2, inference only)
    max_slots: int | None = None  # at most so many; None: K

    def __init__(
        self,
        *,
        image_size: int,
        slots: int,
        slot_size: int,
        feature_channels: int,
        decoder_channels: int,
        kernel: str,
        likelihood: ImageLikelihood,
    ) -> None:
        super().__init__()
        self.slots, self.slot_size, self.image_size = slots, slot_size, image_size
        self.likelihood = likelihood
        self.encoder = UNet(image_size, feature_channels)
        self.seg_head = conv_norm_relu(feature_channels, feature_channels)
        self.colouring = InstanceColouring(feature_channels, slots, image_size, kernel)
        self.pooling = FeaturePooling(feature_channels, 2 * slot_size)
        self.slot_head = nn.Sequential(
            nn.LayerNorm(2 * slot_size),
            nn.Linear(2 * slot_size, 2 * slot_size),
            nn.ReLU(),
            nn.Linear(2 * slot_size, 2 * slot_size),
        )
        self.decoder = BroadcastDecoder(image_size, slot_size, decoder_channels)

    @property
    def places(self) -> int:
        """How many slots come out: K, or another bound on dynamic ones."""
        return (self.max_slots if self.dynamic_slots else None) or self.slots

    def noise(self) -> dict[str, NoiseSpec]:
        return {
            "rand_pixel": NoiseSpec((1, self.image_size, self.image_size), "uniform"),
            "segregation": NoiseSpec((self.places, self.slot_size)),
        }

    def masks(self, features: Tensor, rand_pixel: Tensor) -> tuple[Tensor, Tensor | None]:
        """U-Net features to attention log-masks [B,K,1,H,W] and which are empty (dynamic) [B,K]."""
        colours = self.seg_head(features)
        if not self.dynamic_slots:
            return self.colouring(colours, rand_pixel), None
        if self.training:
            raise ValueError("dynamic slots are for inference only: model.eval()")
        return self.colouring.dynamic(colours, rand_pixel, self.places)

    def forward(self, images: Tensor, noise: Noise) -> Segregated:
        features = self.encoder(images.contiguous(memory_format=torch.channels_last)).relu()
        log_masks, empty = self.masks(features, noise["rand_pixel"])
        pooled = self.pooling(features, log_masks.exp())
        with full_precision(pooled):
            mean, u = self.slot_head(pooled).chunk(2, dim=-1)
        posterior = Gaussian(mean, shifted_softplus(u))
        slots = posterior.sample(noise["segregation"])
        scene = without_empty(self.decoder(slots), empty)
        # Inside SRI the slots have independent N(0, I) priors; a one-sample KL.
        kl = total(posterior.log_prob(slots) - log_prob_standard(slots), empty)
        nll = self.likelihood.nll(images, scene)
        return Segregated(posterior, slots, log_masks, scene, nll, kl, empty=empty)
