"""SRI: segregate, relate, imagine (paper, section 3).

p(x, s, z_1:K) = p(x | z_1:K) p(s) prod_k p(z_k | z_<k, s), with p(s) = N(0, I).
Axis legend: B batch, K slots, D slot size, S scene size, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from sri_cli.model.decoders import BroadcastDecoder
from sri_cli.model.gaussians import Gaussian, kl_divergence, kl_to_standard
from sri_cli.model.imagine import SlotPosterior, SlotPrior
from sri_cli.model.likelihood import ImageLikelihood
from sri_cli.model.order import MATCHINGS, reorder
from sri_cli.model.output import Losses, Noise, NoiseSpec, Objective, Reconstruction, Scene
from sri_cli.model.relate import SceneEncoder
from sri_cli.model.segregate.base import Segregated, Segregation


class Inference(NamedTuple):
    """Everything that SRI infers from one image: segregated, related, imagined."""

    segregated: Segregated
    scene_posterior: Gaussian  # [B,S]
    scene: Tensor  # [B,S]
    rollout_prior: Gaussian  # [B,K,D]
    rollout: Tensor  # [B,K,D]
    order: Tensor  # [B,K]
    posterior: Gaussian  # [B,K,D]
    slots: Tensor  # [B,K,D]


class SRI(nn.Module):
    """A segregation model with a scene variable, a learned order and a decoder on top.

    No gradient of the upper stages reaches the segregation model.
    """

    objective_names = ("segregation", "imagination")

    def __init__(
        self,
        *,
        segregation: nn.Module,
        image_size: int,
        slots: int,
        slot_size: int,
        scene_size: int,
        decoder_channels: int,
        likelihood: ImageLikelihood,
        order: str,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_slots = slots
        self.slot_size = slot_size
        self.scene_size = scene_size
        self.likelihood = likelihood
        self.match = MATCHINGS[order]
        self.segregate: Segregation = segregation  # type: ignore[assignment]
        self.relate = SceneEncoder(slot_size, scene_size)
        self.prior = SlotPrior(slot_size, scene_size)
        self.posterior = SlotPosterior(slot_size, scene_size)
        self.decoder = BroadcastDecoder(image_size, slot_size, decoder_channels)

    def training_noise(self) -> dict[str, NoiseSpec]:
        slots = NoiseSpec((self.num_slots, self.slot_size))
        scene = NoiseSpec((self.scene_size,))
        return {**self.segregate.noise(), "scene": scene, "rollout": slots, "posterior": slots}

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        return {
            "scene": NoiseSpec((self.scene_size,)),
            "slots": NoiseSpec((slots, self.slot_size)),
        }

    def infer(self, images: Tensor, noise: Noise) -> Inference:
        """q(s, z | x) with one sample of each latent; images [B,3,H,W] in [0,1]."""
        segregated = self.segregate(images, noise)
        loose = segregated.posterior.detach()
        scene_posterior = self.relate(segregated.slots.detach())
        scene = scene_posterior.sample(noise["scene"])
        rollout_prior, rollout = self.prior.rollout(scene, noise["rollout"])
        order = self.match(rollout_prior.mean, loose.mean)
        posterior = self.posterior(scene, reorder(loose.mean, order))
        slots = posterior.sample(noise["posterior"])
        return Inference(
            segregated, scene_posterior, scene, rollout_prior, rollout, order, posterior, slots
        )

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        found = self.infer(images, noise)
        segregated = found.segregated
        assert segregated.nll is not None and segregated.kl is not None
        nll = self.likelihood.nll(images, self.decoder(found.slots))
        forced = self.prior.teacher_forced(found.scene, found.slots)
        kl_scene = kl_to_standard(found.scene_posterior)
        kl_slot = kl_divergence(found.posterior, forced).sum(dim=1)
        kl_cross_order = kl_divergence(found.posterior, found.rollout_prior).sum(dim=1)
        return Losses(
            objectives=(
                Objective("segregation", segregated.nll, segregated.kl),
                Objective("imagination", nll, kl_scene + kl_slot + kl_cross_order),
            ),
            terms={
                "nll": nll,
                "kl_scene": kl_scene,
                "kl_slot": kl_slot,
                "kl_cross_order": kl_cross_order,
                "seg_nll": segregated.nll,
                "seg_kl": segregated.kl,
            },
            bound=("nll", "kl_scene", "kl_slot"),
        )

    forward = losses

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        found = self.infer(images, noise)
        return Reconstruction(
            scene=self.decoder(found.slots),
            attention=reorder(found.segregated.log_masks, found.order).exp(),
            imagined=self.decoder(found.rollout),
            order=found.order,
        )

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        """s ~ N(0, t^2 I), then the rollout with every standard deviation times t."""
        _, slots = self.prior.rollout(temperature * noise["scene"], noise["slots"], temperature)
        return self.decoder(slots)
