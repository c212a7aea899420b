"""GENESIS (Engelcke et al., 2020): autoregressive masks, and a component behind every mask.

p(x | z, c) prod_k p(z_k | z_<k) p(c_k | z_k), with mask latents z and component latents c; with a
scene variable (SRI paper, Table 4) p(s) prod_k p(z_k | z_<k, s) p(c_k | z_k).

`Genesis` is the model, `MaskAttention` infers and decodes the mask latents, `ComponentVAE` the
component latents.
Axis legend: B batch, K slots, N = B*K, D mask latent size, C component latent size, S scene size,
F = 256 features, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.base import Losses, Noise, Objective, Reconstruction, Scene, SlotVAE
from sri_cli.models.distributions import Gaussian, kl_to_standard, shifted_softplus, squashed_prior
from sri_cli.models.kernels import ConvTranspose2d, Elu, broadcast_elu, gated_batch_norms
from sri_cli.models.layers import BatchNorm2d, Lstm, coordinate_grid, full_precision
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.slot_prior import GenesisPrior, SlotPrior, stack_slots
from sri_cli.rng import NoiseSpec

# Attention.
FEATURES = 256
ENCODER_CHANNELS = (32, 32, 64, 64, 64)
DECODER_CHANNELS = (64, 32, 32, 32, 32)  # after the 64 that a latent is first broadcast to
BROADCAST_CHANNELS = 64
HIDDEN_PER_LATENT_SIZE = 2
STRIDES = {  # of the encoder; the decoder undoes them from the last to the first
    32: (1, 2, 1, 2, 1),
    64: (1, 2, 1, 2, 1),
    96: (1, 2, 1, 2, 1),
    128: (2, 2, 2, 1, 1),
}
# Components.
HALVINGS = 4
MLP_WIDTH = 256
MLP_LAYERS = 4  # at the end of the encoder, after its convolutions
DECODER_LAYERS = 4  # valid 3x3 convolutions, each of which takes a pixel off every border
# Priors.
PRIOR_WIDTH = 256


class FromPixel(nn.ConvTranspose2d):
    """A transposed convolution of a single pixel, computed as the matrix product that it is."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        weight = self.weight.permute(0, 2, 3, 1)  # [D,h,w,C]
        h, w = weight.shape[1:3]
        x = torch.addmm(self.bias.repeat(h * w), input.flatten(1), weight.flatten(1))
        return x.unflatten(1, (h, w, -1)).permute(0, 3, 1, 2)


class Gated(nn.Module):
    """A convolution to twice the channels [h ; g], each half normed on its own: h * sigmoid(g)."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: bool = True) -> None:
        super().__init__()
        channels = conv.out_channels // 2
        self.conv = conv
        self.h_norm = BatchNorm2d(channels) if norm else nn.Identity()
        self.g_norm = BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        h_norm, g_norm = self.h_norm, self.g_norm
        if isinstance(h_norm, BatchNorm2d) and isinstance(g_norm, BatchNorm2d):
            gated = None if h_norm.sums_over_ranks else gated_batch_norms(x, (h_norm, g_norm))
            if gated is not None:
                return gated
        halves = x.chunk(2, dim=1)
        # The halves are not contiguous, and there the CPU's BatchNorm is 6 times slower.
        h, g = (half.contiguous(memory_format=torch.channels_last) for half in halves)
        return self.h_norm(h) * self.g_norm(g).sigmoid()


def gated_encoder(image_size: int) -> nn.Sequential:
    """Images [B,3,H,W] to features [B,F,1,1]."""
    strides = STRIDES[image_size]
    channels = (3, *ENCODER_CHANNELS)
    layers = [
        Gated(nn.Conv2d(channels[i], 2 * channels[i + 1], 5, stride=strides[i], padding=2))
        for i in range(len(strides))
    ]
    whole = nn.Conv2d(channels[-1], 2 * FEATURES, remaining_size(image_size))
    return nn.Sequential(*layers, Gated(whole, norm=False))


def gated_decoder(image_size: int, latent_size: int) -> nn.Sequential:
    """Latents [N,D,1,1] to [N,32,H,W]."""
    strides = STRIDES[image_size][::-1]
    channels = (BROADCAST_CHANNELS, *DECODER_CHANNELS)
    whole = FromPixel(latent_size, 2 * BROADCAST_CHANNELS, remaining_size(image_size))
    layers = [
        Gated(ConvTranspose2d(channels[i], 2 * channels[i + 1], 5, stride, 2, stride - 1))
        for i, stride in enumerate(strides)
    ]
    return nn.Sequential(Gated(whole, norm=False), *layers)


def remaining_size(image_size: int) -> int:
    """What the strides leave of a side: 8 of 32, 16 of 64, 24 of 96, 16 of 128."""
    for stride in STRIDES[image_size]:
        image_size //= stride
    return image_size


def stick_breaking(logits: Tensor) -> Tensor:
    """Mask logits [B,K,...] to log-masks that sum to 1 over K.

    mask_k = sigmoid(a_k) prod_j<k sigmoid(-a_j): each slot takes its share of the scope that the
    slots before it left, and the last one all that remains: its logits go unused.
    """
    taken, left = F.logsigmoid(logits[:, :-1]), F.logsigmoid(-logits[:, :-1])
    nothing = torch.zeros_like(logits[:, :1])
    log_scope = torch.cat([nothing, left.cumsum(dim=1)], dim=1)
    return log_scope + torch.cat([taken, nothing], dim=1)


class MaskAttention(nn.Module):
    """q(z | x), autoregressive, and the latents' masks."""

    def __init__(self, image_size: int, latent_size: int) -> None:
        super().__init__()
        self.encoder = gated_encoder(image_size)
        self.mean = nn.Linear(FEATURES, latent_size)
        self.spread = nn.Linear(FEATURES, latent_size)
        hidden = HIDDEN_PER_LATENT_SIZE * latent_size
        self.lstm = Lstm(FEATURES + latent_size, hidden)
        self.linear = nn.Linear(hidden, 2 * latent_size)
        self.decoder = gated_decoder(image_size, latent_size)
        self.logits = nn.Conv2d(DECODER_CHANNELS[-1], 1, 1)

    def infer(self, images: Tensor, noise: Tensor) -> tuple[Gaussian, Tensor]:
        """images [B,3,H,W], noise [B,K,D] to q(z_k | z_<k, x) and its samples z, [B,K,D].

        The image is read once; every later latent sees its features and the latents before.
        """
        features = self.encoder(images.contiguous(memory_format=torch.channels_last)).flatten(1)
        features = features.float()
        with full_precision(features):
            first = Gaussian(self.mean(features), shifted_softplus(self.spread(features)))
            posteriors, draws = [first], [first.sample(noise[:, 0])]
            state = self.lstm.start(features)
            for step_noise in noise[:, 1:].unbind(dim=1):
                state = self.lstm.step(torch.cat([features, draws[-1]], dim=1), state)
                mean, u = self.linear(state[0]).chunk(2, dim=1)
                posteriors.append(Gaussian(mean, shifted_softplus(u)))
                draws.append(posteriors[-1].sample(step_noise))
            return stack_slots(posteriors), torch.stack(draws, dim=1)

    def log_masks(self, latents: Tensor) -> Tensor:
        """Latents [B,K,D] to log-masks [B,K,1,H,W], for any K.

        In training all K latents are one batch, that of the last slot too: batch statistics run
        over them all. Otherwise it is not decoded, since its logits go unused.
        """
        k = latents.shape[1]
        used = latents if self.training else latents[:, : max(1, k - 1)]
        pixels = used.flatten(0, 1)[..., None, None].contiguous(memory_format=torch.channels_last)
        logits = self.logits(self.decoder(pixels)).float().unflatten(0, used.shape[:2])
        return stick_breaking(torch.cat([logits, logits[:, : k - used.shape[1]]], dim=1))


class BroadcastConvolutions(nn.Module):
    """Component latents [N,C] to colours [N,3,H,W] in [0,1], in float32.

    The latent is broadcast to a grid of H+8 with its coordinates, [c ; row ; column], and convolved
    without padding. The first convolution sees the same latent at every pixel and the same grid in
    every image, so it is applied to each once and the two are added.
    """

    grid: Tensor

    def __init__(self, image_size: int, latent_size: int, channels: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        layers: list[nn.Module] = []
        for inputs in (latent_size + 2, *(channels for _ in range(DECODER_LAYERS - 1))):
            layers += [nn.Conv2d(inputs, channels, 3), Elu()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 3, 1))
        side = image_size + 2 * DECODER_LAYERS
        self.register_buffer("grid", coordinate_grid(side), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        weight, bias = self.layers[0].parameters()
        constant = F.linear(latents, weight[:, : self.latent_size].sum(dim=(2, 3)), bias)
        positions = F.conv2d(self.grid[None], weight[:, self.latent_size :])
        return self.layers[2:](broadcast_elu(constant, positions)).float().sigmoid()


def component_encoder(image_size: int, latent_size: int, channels: int) -> nn.Sequential:
    """[log-mask ; image] [N,4,H,W] to [mean ; u] [N,2C]; widths c, c, 2c, 2c."""
    widths = (4, channels, channels, 2 * channels, 2 * channels)
    layers: list[nn.Module] = []
    for i in range(HALVINGS):
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1), Elu()]
    flat = widths[-1] * (image_size // 2**HALVINGS) ** 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(flat, MLP_WIDTH),
        nn.ELU(),
        nn.Linear(MLP_WIDTH, 2 * latent_size),
    )


class ComponentVAE(nn.Module):
    """q(c_k | x, mask_k) and the colours of a component, the same for every slot."""

    def __init__(self, image_size: int, latent_size: int, channels: int) -> None:
        super().__init__()
        self.encoder = component_encoder(image_size, latent_size, channels)
        self.decoder = BroadcastConvolutions(image_size, latent_size, channels)

    def infer(self, images: Tensor, log_masks: Tensor) -> Gaussian:
        """images [B,3,H,W], log_masks [B,K,1,H,W] to a Gaussian [B,K,C]."""
        b, k = log_masks.shape[:2]
        repeated = images[:, None].expand(-1, k, -1, -1, -1)
        x = torch.cat([log_masks, repeated], dim=2).flatten(0, 1)
        x = self.encoder[:-MLP_LAYERS](x.contiguous(memory_format=torch.channels_last))
        with full_precision(x):
            parameters = self.encoder[-MLP_LAYERS:](x.float()).unflatten(0, (b, k))
            mean, u = parameters.chunk(2, dim=-1)
            return Gaussian(mean, shifted_softplus(u))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B,K,C] to colours [B,K,3,H,W] in [0,1]; any K."""
        return self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])


class ComponentPrior(nn.Sequential):
    """p(c_k | z_k): mask latents [B,K,D] to a Gaussian [B,K,C]."""

    def __init__(self, latent_size: int, component_size: int) -> None:
        super().__init__(
            nn.Linear(latent_size, PRIOR_WIDTH),
            nn.ELU(),
            nn.Linear(PRIOR_WIDTH, PRIOR_WIDTH),
            nn.ELU(),
            nn.Linear(PRIOR_WIDTH, 2 * component_size),
        )

    def forward(self, input: Tensor) -> Gaussian:
        with full_precision(input):
            return squashed_prior(super().forward(input))


class Inference(NamedTuple):
    """Everything that GENESIS infers from an image."""

    mask_posterior: Gaussian  # [B,K,D]
    mask_latents: Tensor  # [B,K,D]
    component_posterior: Gaussian  # [B,K,C]
    component_latents: Tensor  # [B,K,C]
    scene: Scene  # the components' colours, blended by the attention masks


class Genesis(SlotVAE):
    """The complete generative model, with a scene variable where `scene_size` is given."""

    objective_names = ("genesis",)
    shared_masks = True

    def __init__(
        self,
        *,
        image_size: int,
        slots: int,
        slot_size: int = 64,
        component_size: int = 16,
        component_channels: int = 32,
        likelihood: ImageLikelihood,
        scene_size: int | None = None,
    ) -> None:
        super().__init__(
            image_size=image_size,
            slots=slots,
            slot_size=slot_size,
            likelihood=likelihood,
            scene_size=scene_size,
        )
        self.component_size = component_size
        self.decoded_size = slot_size + component_size  # [mask latent ; component latent]
        self.attention = MaskAttention(image_size, slot_size)
        self.components = ComponentVAE(image_size, component_size, component_channels)
        self.component_prior = ComponentPrior(slot_size, component_size)
        self.relate = None if scene_size is None else SceneEncoder(slot_size, scene_size)
        self.prior = (
            GenesisPrior(slot_size, PRIOR_WIDTH)
            if scene_size is None
            else SlotPrior(slot_size, scene_size)
        )

    def training_noise(self) -> dict[str, NoiseSpec]:
        return self.sampling_noise(self.num_slots)

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        return {
            **self.scene_noise(),
            "mask": NoiseSpec((slots, self.slot_size)),
            "component": NoiseSpec((slots, self.component_size)),
        }

    def infer(self, images: Tensor, noise: Noise) -> Inference:
        """q(z, c | x) with one sample of each latent; images [B,3,H,W] in [0,1]."""
        mask_posterior, mask_latents = self.attention.infer(images, noise["mask"])
        log_masks = self.attention.log_masks(mask_latents)
        component_posterior = self.components.infer(images, log_masks)
        component_latents = component_posterior.sample(noise["component"])
        scene = Scene(self.components.decode(component_latents), log_masks)
        return Inference(
            mask_posterior, mask_latents, component_posterior, component_latents, scene
        )

    def losses(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        """-ELBO = nll + kl_mask + kl_component (+ kl_scene), KLs estimated from one sample:

        kl_mask      = sum_k log q(z_k | z_<k, x) - log p(z_k | z_<k, s)
        kl_component = sum_k log q(c_k | x, mask_k) - log p(c_k | z_k)
        kl_scene     = KL(q(s | z) || N(0, I)), in closed form, with a scene variable.
        """
        inferred = self.infer(images, noise)
        z, c = inferred.mask_latents, inferred.component_latents
        nll = self.likelihood.nll(images, inferred.scene, gaussian_likelihood)
        scene_posterior, scene = self.infer_scene(z, noise)
        kls = {} if scene_posterior is None else {"kl_scene": kl_to_standard(scene_posterior)}
        prior = self.prior.teacher_forced(z, scene)
        kl_mask = inferred.mask_posterior.log_prob(z) - prior.log_prob(z)
        component_prior = self.component_prior(z)
        kl_component = inferred.component_posterior.log_prob(c) - component_prior.log_prob(c)
        kls |= {"kl_mask": kl_mask.sum(dim=1), "kl_component": kl_component.sum(dim=1)}
        kl = torch.stack(list(kls.values())).sum(dim=0)
        return Losses(
            objectives=(Objective("genesis", nll, kl),),
            terms={"nll": nll, **kls},
            bound=("nll", *kls),
        )

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        inferred = self.infer(images, noise)
        return Reconstruction(
            scene=inferred.scene,
            attention=inferred.scene.masks,
            slots=torch.cat([inferred.mask_latents, inferred.component_latents], dim=2),
            latent=self.infer_scene(inferred.mask_latents, noise)[1],
        )

    def _draw(
        self, noise: Noise, temperature: float, scene: Tensor | None, given: Tensor | None
    ) -> Tensor:
        """Masks from their prior, then each mask's component.

        A slot is [mask latent ; component latent], [B,K,D+C]: the two belong together.
        """
        masks = None if given is None else given[..., : self.slot_size]
        latents = self.prior.rollout(noise["mask"], scene, temperature, masks)[1]
        components = self.component_prior(latents).sample(noise["component"], temperature)
        return torch.cat([latents, components], dim=2)

    def decode(self, slots: Tensor) -> Scene:
        latents, components = slots.split([self.slot_size, self.component_size], dim=2)
        return Scene(self.components.decode(components), self.attention.log_masks(latents))
