"""GENESIS-v2 (Engelcke et al., 2021): slots from instance colouring stick-breaking.

p(x, z_1:K) = p(x | z_1:K) prod_k p(z_k | z_<k). With a scene variable (SRI paper, Table 4):
p(s) prod_k p(z_k | z_<k, s), by SRI's scene encoder and slot prior over the slots in the order of
segregation; nothing is detached and nothing reordered.

The file reads from bottom to top: `GenesisV2` the model, `GenesisV2Segregation` its first stage
(also SRI's), `InstanceColouring` its masks, `FeaturePooling` its slots, `UNet` its features.
Axis legend: B batch, K slots, D slot size, S scene size, E = 8 colour dimensions, F feature
channels, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from sri_cli.models.base import (
    EMPTY_LOG_MASK,
    Losses,
    Noise,
    Objective,
    Reconstruction,
    Scene,
    Segregated,
    Segregation,
    SlotVAE,
    sum_slots,
)
from sri_cli.models.decoders import BroadcastDecoder
from sri_cli.models.distributions import (
    Gaussian,
    kl_to_standard,
    log_prob_standard,
    shifted_softplus,
)
from sri_cli.models.layers import conv_norm_relu, coordinate_grid, full_precision
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.slot_prior import HIDDEN_PER_SLOT_SIZE, GenesisPrior, SlotPrior
from sri_cli.rng import NoiseSpec

COLOURS = 8
ALPHA_RANGE = (0.01, 0.99)
MASK_EPSILON = 1e-5
FEWEST_PIXELS = 20  # dynamic slots: the first mask of less is the last slot
MLP_WIDTH = 128  # at the bottom of the U-Net

# Multiples of c that come out of the U-Net's down blocks and go into and out of its up blocks, by
# the number of blocks.
DOWN = {4: (1, 2, 2, 2), 5: (1, 1, 2, 2, 2), 6: (1, 1, 1, 2, 2, 2)}
UP_IN = {4: (4, 4, 4, 2), 5: (4, 4, 4, 2, 2), 6: (4, 4, 4, 2, 2, 2)}
UP = {4: (2, 2, 1, 1), 5: (2, 2, 1, 1, 1), 6: (2, 2, 1, 1, 1, 1)}


class UNet(nn.Module):
    """Images [B,3,H,W] to features [B,c,H,W] of the same size.

    One block per scale, floor(log2 H) - 1 of them: 4 at 32 pixels, 5 at 64 and 96, 6 at 128. The
    image is halved after every down block but the last, doubled after every up block but the last.
    """

    def __init__(self, image_size: int, channels: int) -> None:
        super().__init__()
        blocks, c = int(math.log2(image_size)) - 1, channels
        down = [3, *(c * multiple for multiple in DOWN[blocks])]
        self.down = nn.ModuleList(conv_norm_relu(down[i], down[i + 1]) for i in range(blocks))
        self.up = nn.ModuleList(
            conv_norm_relu(c * UP_IN[blocks][i], c * UP[blocks][i]) for i in range(blocks)
        )
        side = image_size // 2 ** (blocks - 1)
        self.bottom = (down[-1], side, side)
        flat = math.prod(self.bottom)
        self.mlp = nn.Sequential(
            nn.Linear(flat, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, flat),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        skips = []
        x = images
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else x[..., ::2, ::2])
            skips.append(x)
        x = self.mlp(x.reshape(len(x), -1)).unflatten(1, self.bottom)
        # Or all that follows would be laid out as this is, and not as kernels take it.
        x = x.contiguous(memory_format=torch.channels_last)
        for i, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], dim=1))
            if i < len(self.up) - 1:
                x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x


class InstanceColouring(nn.Module):
    """Attention masks by stick-breaking around random seed pixels in a colour space.

    Every pixel gets a colour zeta in R^E. For k = 1..K-1, with scope_1 = 1:

        seed    = argmax_pixel rand_pixel * scope_k
        alpha_k = kernel(||zeta - zeta_seed||^2),   clamped to [0.01, 0.99]
        mask_k  = scope_k * alpha_k,                scope_k+1 = scope_k * (1 - alpha_k)

    and the last mask is what is left, scope_K.
    """

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
        """The kernel: similarity in [0,1] to the seed pixel."""
        sigma = self.log_sigma.exp()
        if self.kernel == "gaussian":
            return torch.exp(-squared_distance / sigma)
        if self.kernel == "laplacian":
            return torch.exp(-straight_through_clamp(squared_distance, 1e-10).sqrt() / sigma)
        return torch.relu(1.0 - squared_distance / sigma)

    def forward(
        self, features: Tensor, rand_pixel: Tensor, dynamic: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-masks [B,K,1,H,W] and, with `dynamic` slots, which of them are empty [B,K].

        features [B,F,H,W]; rand_pixel [B,1,H,W], uniform in [0,1].
        """
        # A semi-convolution: learned colours, scaled by the gate, plus the pixel coordinates.
        colours = (self.colour_head(features).float() * self.gate + self.coordinates).flatten(2)
        rand_pixel = rand_pixel.flatten(1)
        log_scopes = [torch.zeros_like(rand_pixel)]
        log_masks = []
        for _ in range(self.slots - 1):
            log_scope = log_scopes[-1]
            # The seeds of the whole batch are looked up at once and never leave the device.
            pixel = (rand_pixel * log_scope.detach().exp()).argmax(dim=1)
            seed = colours.gather(2, pixel[:, None, None].expand(-1, COLOURS, 1))
            alpha = self.affinity((colours - seed).square().sum(dim=1))
            alpha = straight_through_clamp(alpha, *ALPHA_RANGE)
            log_masks.append(log_scope + alpha.log())
            log_scopes.append(log_scope + (1.0 - alpha).log())
        masks, empty = torch.stack([*log_masks, log_scopes[-1]], dim=1), None
        if dynamic:
            masks, empty = stop_early(masks, torch.stack(log_scopes, dim=1))
        return masks.unflatten(2, (1, *features.shape[-2:])), empty


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


class GenesisV2Segregation(Segregation):
    """GENESIS-v2 up to its decoder: images to a randomly ordered slot posterior and its scene."""

    can_vary_slots = True

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

    def noise(self) -> dict[str, NoiseSpec]:
        return {
            "rand_pixel": NoiseSpec((1, self.image_size, self.image_size), "uniform"),
            "segregation": NoiseSpec((self.slots, self.slot_size)),
        }

    def unscored(self, images: Tensor, noise: Noise) -> Segregated:
        """Raises ValueError for dynamic slots in training mode: they have no loss."""
        if self.dynamic_slots and self.training:
            raise ValueError("dynamic slots are for inference only: model.eval()")
        features = self.encoder(images.contiguous(memory_format=torch.channels_last))
        log_masks, empty = self.colouring(
            self.seg_head(features), noise["rand_pixel"], self.dynamic_slots
        )
        pooled = self.pooling(features, log_masks.exp())
        with full_precision(pooled):
            mean, u = self.slot_head(pooled).chunk(2, dim=-1)
        posterior = Gaussian(mean, shifted_softplus(u))
        slots = posterior.sample(noise["segregation"])
        return Segregated(posterior, slots, log_masks, empty=empty)

    def forward(
        self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False
    ) -> Segregated:
        """Raises ValueError for dynamic slots in training mode."""
        inferred = self.unscored(images, noise)
        posterior, slots, empty = inferred.posterior, inferred.slots, inferred.empty
        scene = self.decoder(slots).without(empty)
        # Inside SRI the slots have independent N(0, I) priors:
        # kl = sum_k log q(z_k | x) - log N(z_k; 0, I), of one sample.
        kl = sum_slots(posterior.log_prob(slots) - log_prob_standard(slots), empty)
        nll = self.likelihood.nll(images, scene, gaussian_likelihood)
        return replace(inferred, nll=nll, kl=kl)


class GenesisV2(SlotVAE):
    """The complete generative model; with a scene variable where `scene_size` is given."""

    objective_names = ("genesis-v2",)
    segregate: GenesisV2Segregation

    def __init__(self, segregation: GenesisV2Segregation, scene_size: int | None = None) -> None:
        slot_size = segregation.slot_size
        super().__init__(
            image_size=segregation.image_size,
            slots=segregation.slots,
            slot_size=slot_size,
            likelihood=segregation.likelihood,
            scene_size=scene_size,
            segregation=segregation,
        )
        self.relate = None if scene_size is None else SceneEncoder(slot_size, scene_size)
        self.prior = (
            GenesisPrior(slot_size, HIDDEN_PER_SLOT_SIZE * slot_size)
            if scene_size is None
            else SlotPrior(slot_size, scene_size)
        )

    def losses(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        """-ELBO = nll + kl, with the KL of the slots estimated from one sample:

        kl = sum_k log q(z_k | x) - log p(z_k | z_<k).

        With a scene variable kl = kl_scene + kl_slot, KL(q(s | z) || N(0, I)) in closed form and
        the above with p(z_k | z_<k, s).
        """
        segregated = self.segregate(images, noise, gaussian_likelihood)
        scene_posterior, scene = self.infer_scene(segregated.slots, noise, segregated.empty)
        kls = {} if scene_posterior is None else {"kl_scene": kl_to_standard(scene_posterior)}
        prior = self.prior.teacher_forced(segregated.slots, scene)
        kl = segregated.posterior.log_prob(segregated.slots) - prior.log_prob(segregated.slots)
        kls["kl_slot" if self.has_scene else "kl"] = sum_slots(kl, segregated.empty)
        first, *others = kls.values()
        return Losses(
            objectives=(Objective("genesis-v2", segregated.nll, sum(others, first)),),
            terms={"nll": segregated.nll, **kls},
            bound=("nll", *kls),
        )

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        segregated = self.segregate.unscored(images, noise)
        return Reconstruction(
            scene=self.decode(segregated.slots).without(segregated.empty),
            attention=segregated.log_masks.exp(),
            slots=segregated.slots,
            latent=self.infer_scene(segregated.slots, noise, segregated.empty)[1],
        )

    def decode(self, slots: Tensor) -> Scene:
        return self.segregate.decoder(slots)
