"""GENESIS-v2 on its own: the segregation model with an autoregressive slot prior.

With a scene variable (paper, Table 4): SRI's scene encoder and slot prior over the slots in the
order of segregation; nothing is detached and nothing reordered.
Axis legend: B batch, K slots, D slot size, S scene size, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.base import Losses, Noise, Objective, Reconstruction, Scene
from sri_cli.models.distributions import Gaussian, kl_to_standard, squashed_prior, standard_like
from sri_cli.models.genesis_v2_segregation import GenesisV2Segregation
from sri_cli.models.layers import Lstm, full_precision
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.segregation import Segregated, total
from sri_cli.models.slot_prior import (
    HIDDEN_PER_SLOT_SIZE,
    SlotPrior,
    after_standard_first,
    drawn_or_given,
)
from sri_cli.rng import NoiseSpec


class GenesisV2Prior(nn.Module):
    """z_1 ~ N(0, I), then an LSTM over the slots before: tanh means, sigmoid deviations."""

    def __init__(self, slot_size: int, hidden: int) -> None:
        super().__init__()
        self.lstm = Lstm(slot_size, hidden)
        self.linear = nn.Linear(hidden, 2 * slot_size)

    def teacher_forced(self, slots: Tensor) -> Gaussian:
        """The prior at each place given the slots [B,K,D] before it."""
        with full_precision(slots):
            single = slots.shape[1] == 1
            later = None if single else squashed_prior(self.linear(self.lstm(slots[:, :-1])))
            return after_standard_first(slots, later)

    def rollout(
        self, noise: Tensor, temperature: float = 1.0, given: Tensor | None = None
    ) -> Tensor:
        """Draw as many slots as the noise [B,K,D] holds; the first are `given` [B,J,D], if any."""
        with full_precision(noise):
            x = drawn_or_given(standard_like(noise[:, 0]), noise[:, 0], temperature, given, 0)
            state = self.lstm.start(len(x), x)
            draws = [x]
            for place, step_noise in enumerate(noise[:, 1:].unbind(dim=1), start=1):
                state = self.lstm.step(x, state)
                prior = squashed_prior(self.linear(state[0]))
                x = drawn_or_given(prior, step_noise, temperature, given, place)
                draws.append(x)
            return torch.stack(draws, dim=1)


class GenesisV2(nn.Module):
    """The complete generative model; with a scene variable where `scene_size` is given."""

    objective_names = ("genesis-v2",)

    def __init__(
        self,
        *,
        segregation: GenesisV2Segregation,
        image_size: int,
        slots: int,
        slot_size: int,
        scene_size: int | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_slots = slots
        self.slot_size = slot_size
        self.scene_size = scene_size
        self.segregate = segregation
        self.likelihood = segregation.likelihood
        self.relate = None if scene_size is None else SceneEncoder(slot_size, scene_size)
        self.prior: GenesisV2Prior | SlotPrior = (
            GenesisV2Prior(slot_size, HIDDEN_PER_SLOT_SIZE * slot_size)
            if scene_size is None
            else SlotPrior(slot_size, scene_size)
        )

    def training_noise(self) -> dict[str, NoiseSpec]:
        return {**self.segregate.noise(), **self._scene_noise()}

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        return {**self._scene_noise(), "slots": NoiseSpec((slots, self.slot_size))}

    def _scene_noise(self) -> dict[str, NoiseSpec]:
        return {} if self.scene_size is None else {"scene": NoiseSpec((self.scene_size,))}

    def slot_kls(self, posterior: Gaussian, slots: Tensor, scene: Tensor | None = None) -> Tensor:
        """One-sample Monte-Carlo KL per slot, [B,K]; scene [B,S] if the prior starts from one."""
        if isinstance(self.prior, SlotPrior):
            prior = self.prior.teacher_forced(scene, slots)
        else:
            prior = self.prior.teacher_forced(slots)
        return posterior.log_prob(slots) - prior.log_prob(slots)

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        found = self.segregate(images, noise)
        kls = self._kls(found, noise)
        first, *others = kls.values()
        return Losses(
            objectives=(Objective("genesis-v2", found.nll, sum(others, first)),),
            terms={"nll": found.nll, **kls},
            bound=("nll", *kls),
        )

    forward = losses

    def _kls(self, found: Segregated, noise: Noise) -> dict[str, Tensor]:
        """The KLs by name, [B] each: `kl` alone, or that of the scene (analytic) and the slots."""
        if self.relate is None:
            return {"kl": total(self.slot_kls(found.posterior, found.slots), found.empty)}
        scene_posterior = self.relate(found.slots, found.empty)
        scene = scene_posterior.sample(noise["scene"])
        kls = self.slot_kls(found.posterior, found.slots, scene)
        return {"kl_scene": kl_to_standard(scene_posterior), "kl_slot": total(kls, found.empty)}

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        found = self.segregate(images, noise)
        latent = None
        if self.relate is not None:
            latent = self.relate(found.slots, found.empty).sample(noise["scene"])
        return Reconstruction(
            scene=found.scene, attention=found.log_masks.exp(), slots=found.slots, latent=latent
        )

    def slots(self, noise: Noise, temperature: float = 1.0, given: Tensor | None = None) -> Tensor:
        if isinstance(self.prior, SlotPrior):
            scene = temperature * noise["scene"]
            return self.prior.rollout(scene, noise["slots"], temperature, given)[1]
        return self.prior.rollout(noise["slots"], temperature, given)

    def decode(self, slots: Tensor) -> Scene:
        return self.segregate.decoder(slots)

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        return self.decode(self.slots(noise, temperature))
