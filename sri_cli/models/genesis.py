"""GENESIS: an image is taken apart by autoregressive masks, and every mask has its component.

p(x | z, c) prod_k p(z_k | z_<k) p(c_k | z_k), with mask latents z and component latents c; with a
scene variable (SRI paper, Table 4) p(s) prod_k p(z_k | z_<k, s) p(c_k | z_k).
Axis legend: B batch, K slots, D mask latent size, C component latent size, S scene size, H W
pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sri_cli.models.base import Losses, Noise, Objective, Reconstruction, Scene
from sri_cli.models.distributions import Gaussian, kl_to_standard, squashed_prior
from sri_cli.models.genesis_attention import MaskAttention
from sri_cli.models.genesis_components import ComponentVAE
from sri_cli.models.genesis_v2 import GenesisV2Prior
from sri_cli.models.layers import full_precision
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.slot_prior import SlotPrior
from sri_cli.rng import NoiseSpec

PRIOR_WIDTH = 256


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
    """Everything that GENESIS infers from one image."""

    mask_posterior: Gaussian  # [B,K,D]
    mask_latents: Tensor  # [B,K,D]
    component_posterior: Gaussian  # [B,K,C]
    component_latents: Tensor  # [B,K,C]
    scene: Scene  # the components' colours, blended by the attention masks


class Genesis(nn.Module):
    """The complete generative model, with a scene variable where `scene_size` is given."""

    objective_names = ("genesis",)

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
        """Raises ValueError for an `image_size` other than 32, 64, 96 and 128."""
        super().__init__()
        self.image_size = image_size
        self.num_slots = slots
        self.slot_size = slot_size
        self.component_size = component_size
        self.scene_size = scene_size
        self.likelihood = likelihood
        self.attention = MaskAttention(image_size, slot_size)
        self.components = ComponentVAE(image_size, component_size, component_channels)
        self.component_prior = ComponentPrior(slot_size, component_size)
        self.prior: GenesisV2Prior | SlotPrior
        if scene_size is None:
            self.prior = GenesisV2Prior(slot_size, PRIOR_WIDTH)
        else:
            self.relate = SceneEncoder(slot_size, scene_size)
            self.prior = SlotPrior(slot_size, scene_size)

    def training_noise(self) -> dict[str, NoiseSpec]:
        return self.sampling_noise(self.num_slots)

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        scene = {} if self.scene_size is None else {"scene": NoiseSpec((self.scene_size,))}
        return {
            **scene,
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

    def mask_prior(self, latents: Tensor, noise: Noise) -> tuple[Gaussian, dict[str, Tensor]]:
        """The prior of every mask latent [B,K,D] given those before it, and the KLs it costs.

        With a scene variable the latents, in their order, give q(s | z), and one sample of it the
        prior.
        """
        if isinstance(self.prior, GenesisV2Prior):
            return self.prior.teacher_forced(latents), {}
        posterior = self.relate(latents)
        prior = self.prior.teacher_forced(posterior.sample(noise["scene"]), latents)
        return prior, {"kl_scene": kl_to_standard(posterior)}

    def slot_kls(self, found: Inference, mask_prior: Gaussian) -> tuple[Tensor, Tensor]:
        """One-sample Monte-Carlo KLs per slot of masks and of components, both [B,K]."""
        z, c = found.mask_latents, found.component_latents
        masks = found.mask_posterior.log_prob(z) - mask_prior.log_prob(z)
        component_prior = self.component_prior(z)
        return masks, found.component_posterior.log_prob(c) - component_prior.log_prob(c)

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        found = self.infer(images, noise)
        nll = self.likelihood.nll(images, found.scene)
        prior, kls = self.mask_prior(found.mask_latents, noise)
        kl_mask, kl_component = self.slot_kls(found, prior)
        kls |= {"kl_mask": kl_mask.sum(dim=1), "kl_component": kl_component.sum(dim=1)}
        kl = torch.stack(list(kls.values())).sum(dim=0)
        return Losses(
            objectives=(Objective("genesis", nll, kl),),
            terms={"nll": nll, **kls},
            bound=("nll", *kls),
        )

    forward = losses

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        found = self.infer(images, noise)
        latent = None
        if self.scene_size is not None:
            latent = self.relate(found.mask_latents).sample(noise["scene"])
        return Reconstruction(
            scene=found.scene,
            attention=found.scene.masks,
            slots=torch.cat([found.mask_latents, found.component_latents], dim=2),
            latent=latent,
        )

    def slots(self, noise: Noise, temperature: float = 1.0, given: Tensor | None = None) -> Tensor:
        """Masks from their prior, then each mask's component; every deviation times t.

        A slot is [mask latent ; component latent], [B,K,D+C]: the two belong together.
        """
        given_masks = None if given is None else given[..., : self.slot_size]
        latents = self.sample_masks(noise, temperature, given_masks)
        components = self.component_prior(latents).sample(noise["component"], temperature)
        slots = torch.cat([latents, components], dim=2)
        return slots if given is None else torch.cat([given, slots[:, given.shape[1] :]], dim=1)

    def decode(self, slots: Tensor) -> Scene:
        latents, components = slots.split([self.slot_size, self.component_size], dim=2)
        return Scene(self.components.decode(components), self.attention.log_masks(latents))

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        return self.decode(self.slots(noise, temperature))

    def sample_masks(
        self, noise: Noise, temperature: float = 1.0, given: Tensor | None = None
    ) -> Tensor:
        """Mask latents [B,K,D], as many as the noise holds; a scene variable is N(0, t^2 I)."""
        if isinstance(self.prior, GenesisV2Prior):
            return self.prior.rollout(noise["mask"], temperature, given)
        scene = temperature * noise["scene"]
        return self.prior.rollout(scene, noise["mask"], temperature, given)[1]
