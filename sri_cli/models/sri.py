"""SRI: segregate, relate, imagine (Emami et al., arXiv:2206.01370, section 3).

p(x, s, z_1:K) = p(x | z_1:K) p(s) prod_k p(z_k | z_<k, s), with p(s) = N(0, I).
Axis legend: B batch, K slots, D slot size, S scene size, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sri_cli.models.base import (
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
from sri_cli.models.distributions import Gaussian, kl_divergence, kl_to_standard
from sri_cli.models.layers import full_precision
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.matching import MATCHINGS, Matching, relaxed_order, reorder
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.slot_prior import PRIORS, SlotPosterior
from sri_cli.rng import NoiseSpec


class Inference(NamedTuple):
    """Everything that SRI infers from an image."""

    segregated: Segregated
    scene_posterior: Gaussian | None  # [B,S]; None: no scene variable
    scene: Tensor | None  # [B,S]
    rollout_prior: Gaussian  # [B,K,D]
    rollout: Tensor  # [B,K,D]
    order: Tensor | None  # [B,K]; None: the order of segregation, or a relaxed one
    posterior: Gaussian  # [B,K,D]
    slots: Tensor  # [B,K,D]
    empty: Tensor | None  # [B,K]: positions without a slot; None: there are none


class SRI(SlotVAE):
    """A segregation model with a scene variable, a learned order and a decoder on top."""

    segregate: Segregation

    def __init__(
        self,
        *,
        segregation: Segregation,
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
        prior: str = "lstm",
        end_to_end: bool = False,
    ) -> None:
        """`scene`, `alignment` and `cross_order` are the ablations of Table 3.

        Args:
            segregation: First stage.
            image_size: H = W, pixels.
            slots: K in training.
            slot_size: D.
            scene_size: S.
            decoder: Slots [B,K,D] to a Scene, for any K.
            likelihood: p(x | z).
            order: A name of MATCHINGS; sinkhorn is relaxed in training.
            scene: False (a): no scene variable, the first slot is drawn from N(0, I).
            alignment: False (b): the segregation posterior, in whatever order it is, replaces the
                autoregressive one, and there is no cross-order KL.
            cross_order: False (c): no cross-order KL.
            prior: A name of PRIORS, the network of p(z_k | z_<k, s).
            end_to_end: Let the gradient of relate and imagine reach a segregation stage that has a
                loss of its own (future work of the paper).
        """
        super().__init__(
            image_size=image_size,
            slots=slots,
            slot_size=slot_size,
            likelihood=likelihood,
            scene_size=scene_size if scene else None,
            segregation=segregation,
        )
        own = () if segregation.end_to_end else ("segregation",)
        self.objective_names = (*own, "imagination")
        self.learns_order = alignment
        self.match = MATCHINGS[order]
        self.matches = alignment and not segregation.ordered
        self.matches_on_host = self.matches and order == "hungarian"
        self.relaxes = self.matches and order == "sinkhorn"
        self.end_to_end = end_to_end or segregation.end_to_end
        self.cross_order = cross_order and alignment
        self.relate = SceneEncoder(slot_size, scene_size) if scene else None
        self.prior = PRIORS[prior](slot_size, self.scene_size)
        self.posterior = SlotPosterior(slot_size, self.scene_size) if alignment else None
        self.decoder = decoder

    def training_noise(self) -> dict[str, NoiseSpec]:
        k = self.num_slots
        slots = NoiseSpec((k, self.slot_size))
        return {
            **super().training_noise(),
            "rollout": slots,
            "posterior": slots,
            **({"order": NoiseSpec((k, k), "uniform")} if self.relaxes else {}),
        }

    def infer(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Inference:
        """q(s, z | x) with one sample of each latent; images [B,3,H,W] in [0,1].

        Segregate: q(z_k | x) independently, with means m_k, in a random order.
        Relate:    q(s | z_1:K) from its samples.
        Imagine:   a rollout of the prior from s; the segregation means matched to the rollout's
                   prior means; q(z_k | m_o(<k), s) = N(m_o(k), sigma_k^2) in that order o.
                   In training on a relaxed order, P m takes the place of m_o.
        """
        segregated = self.segregate(images, noise, gaussian_likelihood)
        return self._imagined(segregated, noise, self.match)

    def _imagined(self, segregated: Segregated, noise: Noise, match: Matching) -> Inference:
        """Relate and imagine."""
        posterior, drawn, empty = segregated.posterior, segregated.slots, segregated.empty
        if not self.end_to_end:
            posterior, drawn = posterior.detach(), drawn.detach()
        elif not self.segregate.end_to_end:
            share = self.end_to_end_share
            posterior = Gaussian(*(scale_gradient(part, share) for part in posterior))
            drawn = scale_gradient(drawn, share)
        scene_posterior, scene = self.infer_scene(drawn, noise, empty)
        rollout_prior, rollout = self.prior.rollout(noise["rollout"], scene)
        order, means = None, posterior.mean
        if self.relaxes and self.training:
            pairs = rollout_prior.mean, means, self.matching_temperature, noise["order"]
            with full_precision(means):
                means = torch.bmm(relaxed_order(*pairs), means)
        elif self.matches:
            order = match(rollout_prior.mean, means, empty)
            means = reorder(means, order)
        if self.posterior is not None:
            posterior = self.posterior(means, scene)
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

    # -ELBO of an image, with one sample of each latent:
    #
    #   nll           -log p(x | z_1:K)
    #   kl_scene    + KL(q(s | z) || N(0, I))
    #   kl_slot     + sum_k KL(q(z_k | m_<k, s) || p(z_k | z_<k, s)), z_<k posterior samples
    #
    # The loss adds the auxiliary term that makes the order consistent, which is no part of the
    # bound, and the loss of a segregation stage that has one:
    #
    #   kl_cross_order  sum_k KL(q(z_k | m_<k, s) || p(z_k | z'_<k, s)), z' the rollout
    #   loss = GECO(nll_seg, kl_seg) + GECO(nll, kl_scene + kl_slot + kl_cross_order)
    def losses(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        inferred = self.infer(images, noise, gaussian_likelihood)
        return self._losses(images, inferred, gaussian_likelihood)

    def losses_matched_by(
        self, matchings: Iterable[Matching], images: Tensor, noise: Noise
    ) -> list[tuple[Tensor, Losses]]:
        segregated = self.segregate.unscored(images, noise)
        results = []
        for match in matchings:
            inferred = self._imagined(segregated, noise, match)
            assert inferred.order is not None
            results.append((inferred.order, self._losses(images, inferred)))
        return results

    def _losses(
        self, images: Tensor, inferred: Inference, gaussian_likelihood: bool = False
    ) -> Losses:
        scene = self.decoder(inferred.slots).without(inferred.empty)
        nll = self.likelihood.nll(images, scene, gaussian_likelihood)
        kls = {}
        if inferred.scene_posterior is not None:
            kls["kl_scene"] = kl_to_standard(inferred.scene_posterior)
        forced = self.prior.teacher_forced(inferred.slots, inferred.scene)
        kls["kl_slot"] = sum_slots(kl_divergence(inferred.posterior, forced), inferred.empty)
        if self.cross_order:
            kl = kl_divergence(inferred.posterior, inferred.rollout_prior)
            kls["kl_cross_order"] = sum_slots(kl, inferred.empty)
        first, *others = kls.values()
        objectives = [Objective("imagination", nll, sum(others, first))]
        terms = {"nll": nll, **kls}
        bound = tuple(name for name in terms if name != "kl_cross_order")
        segregated = inferred.segregated
        if segregated.nll is not None and segregated.kl is not None:
            own = Objective("segregation", segregated.nll, segregated.kl, segregated.earlier)
            objectives.insert(0, own)
            terms |= {"seg_nll": segregated.nll, "seg_kl": segregated.kl}
        return Losses(tuple(objectives), terms, bound)

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        inferred = self._imagined(self.segregate.unscored(images, noise), noise, self.match)
        return Reconstruction(
            scene=self.decoder(inferred.slots).without(inferred.empty),
            attention=reorder(inferred.segregated.log_masks, inferred.order).exp(),
            imagine=lambda: self.decoder(inferred.rollout).without(inferred.empty),
            order=inferred.order,
            slots=inferred.slots,
            latent=inferred.scene,
        )

    def decode(self, slots: Tensor) -> Scene:
        return self.decoder(slots)


def scale_gradient(x: Tensor, share: Tensor) -> Tensor:
    """x, with its gradient multiplied by `share`, 0 or 1."""
    return x * share + x.detach() * (1 - share)
