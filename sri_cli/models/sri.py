"""SRI: segregate, relate, imagine (paper, section 3).

p(x, s, z_1:K) = p(x | z_1:K) p(s) prod_k p(z_k | z_<k, s), with p(s) = N(0, I).
Axis legend: B batch, K slots, D slot size, S scene size, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from sri_cli.models.base import Losses, Noise, Objective, Reconstruction, Scene
from sri_cli.models.distributions import Gaussian, kl_divergence, kl_to_standard
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.matching import MATCHINGS, reorder
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.segregation import Segregated, Segregation, total, without_empty
from sri_cli.models.slot_prior import SlotPosterior, SlotPrior
from sri_cli.rng import NoiseSpec


class Inference(NamedTuple):
    """Everything that SRI infers from one image: segregated, related, imagined."""

    segregated: Segregated
    scene_posterior: Gaussian | None  # [B,S]; None: no scene variable
    scene: Tensor | None  # [B,S]
    rollout_prior: Gaussian  # [B,K,D]
    rollout: Tensor  # [B,K,D]
    order: Tensor | None  # [B,K]; None: the slots stay as they came
    posterior: Gaussian  # [B,K,D]
    slots: Tensor  # [B,K,D]
    empty: Tensor | None  # [B,K]: places without a slot; None: there are none


class SRI(nn.Module):
    """A segregation model with a scene variable, a learned order and a decoder on top.

    No gradient of the upper stages reaches a segregation model with a loss of its own.
    """

    def __init__(
        self,
        *,
        segregation: nn.Module,
        image_size: int,
        slots: int,
        slot_size: int,
        scene_size: int,
        decoder: nn.Module,
        likelihood: ImageLikelihood,
        order: str,
        scene: bool = True,
        alignment: bool = True,
        cross_order: bool = True,
    ) -> None:
        """`decoder`: slots [B,K,D] to a Scene, for any K. The ablations of Table 3 are

        (a) `scene` False: no scene variable, the slot prior starts from N(0, I);
        (b) `alignment` False: the segregation posterior itself stands in place of the
        autoregressive one, in whatever order it has; without the cross-order KL;
        (c) `cross_order` False: no cross-order KL.
        """
        super().__init__()
        self.image_size = image_size
        self.num_slots = slots
        self.slot_size = slot_size
        self.scene_size = scene_size if scene else None
        self.likelihood = likelihood
        self.match = MATCHINGS[order]
        self.cross_order = cross_order and alignment
        self.segregate: Segregation = segregation  # type: ignore[assignment]
        self.relate = SceneEncoder(slot_size, scene_size) if scene else None
        self.prior = SlotPrior(slot_size, self.scene_size)
        self.posterior = SlotPosterior(slot_size, self.scene_size) if alignment else None
        self.decoder = decoder

    @property
    def objective_names(self) -> tuple[str, ...]:
        """A stage without a loss of its own is part of the one objective."""
        own = () if self.segregate.trained_by_sri else ("segregation",)
        return (*own, "imagination")

    def training_noise(self) -> dict[str, NoiseSpec]:
        # Dynamic slots may be more than in training.
        places = getattr(self.segregate, "places", self.num_slots)
        slots = NoiseSpec((places, self.slot_size))
        return {
            **self.segregate.noise(),
            **self._scene_noise(),
            "rollout": slots,
            "posterior": slots,
        }

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        return {**self._scene_noise(), "slots": NoiseSpec((slots, self.slot_size))}

    def _scene_noise(self) -> dict[str, NoiseSpec]:
        return {} if self.scene_size is None else {"scene": NoiseSpec((self.scene_size,))}

    def infer(self, images: Tensor, noise: Noise) -> Inference:
        """q(s, z | x) with one sample of each latent; images [B,3,H,W] in [0,1]."""
        segregated = self.segregate(images, noise)
        loose, drawn, empty = segregated.posterior, segregated.slots, segregated.empty
        if not self.segregate.trained_by_sri:
            loose, drawn = loose.detach(), drawn.detach()
        scene_posterior = scene = None
        if self.relate is not None:
            scene_posterior = self.relate(drawn, empty)
            scene = scene_posterior.sample(noise["scene"])
        rollout_prior, rollout = self.prior.rollout(scene, noise["rollout"])
        order, posterior = None, loose
        if self.posterior is not None:
            if not self.segregate.ordered:
                order = self.match(rollout_prior.mean, loose.mean, empty)
            posterior = self.posterior(scene, reorder(loose.mean, order))
        return Inference(
            segregated,
            scene_posterior,
            scene,
            rollout_prior,
            rollout,
            order,
            posterior,
            slots=posterior.sample(noise["posterior"]),
            empty=None if empty is None else reorder(empty, order),
        )

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        found = self.infer(images, noise)
        nll = self.likelihood.nll(images, self._decode(found.slots, found.empty))
        kls = self._kls(found)
        first, *others = kls.values()
        objectives = [Objective("imagination", nll, sum(others, first))]
        terms = {"nll": nll, **kls}
        bound = tuple(name for name in terms if name != "kl_cross_order")
        segregated = found.segregated
        if segregated.nll is not None and segregated.kl is not None:
            own = Objective("segregation", segregated.nll, segregated.kl, segregated.refinements)
            objectives.insert(0, own)
            terms |= {"seg_nll": segregated.nll, "seg_kl": segregated.kl}
        return Losses(tuple(objectives), terms, bound)

    forward = losses

    def _kls(self, found: Inference) -> dict[str, Tensor]:
        """The KLs of this model by name, [B] each."""
        kls = {}
        if found.scene_posterior is not None:
            kls["kl_scene"] = kl_to_standard(found.scene_posterior)
        forced = self.prior.teacher_forced(found.scene, found.slots)
        kls["kl_slot"] = total(kl_divergence(found.posterior, forced), found.empty)
        if self.cross_order:
            # Of the learned order: the posterior at each place to what the prior would draw there.
            kl = kl_divergence(found.posterior, found.rollout_prior)
            kls["kl_cross_order"] = total(kl, found.empty)
        return kls

    def _decode(self, slots: Tensor, empty: Tensor | None) -> Scene:
        return without_empty(self.decoder(slots), empty)

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        found = self.infer(images, noise)
        return Reconstruction(
            scene=self._decode(found.slots, found.empty),
            attention=reorder(found.segregated.log_masks, found.order).exp(),
            imagined=self._decode(found.rollout, found.empty),
            order=found.order,
            slots=found.slots,
            latent=found.scene,
        )

    def slots(self, noise: Noise, temperature: float = 1.0, given: Tensor | None = None) -> Tensor:
        """s ~ N(0, t^2 I), then the rollout with every standard deviation times t."""
        scene = None if self.scene_size is None else temperature * noise["scene"]
        return self.prior.rollout(scene, noise["slots"], temperature, given)[1]

    def decode(self, slots: Tensor) -> Scene:
        return self.decoder(slots)

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        return self.decode(self.slots(noise, temperature))
