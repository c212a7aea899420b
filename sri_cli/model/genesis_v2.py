"""GENESIS-v2 on its own: the segregation model with an autoregressive slot prior.

Axis legend: B batch, K slots, D slot size, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.model.blocks import Lstm, full_precision
from sri_cli.model.gaussians import Gaussian, squashed_prior, standard_like
from sri_cli.model.imagine import HIDDEN_PER_SLOT_SIZE
from sri_cli.model.output import Losses, Noise, NoiseSpec, Objective, Reconstruction, Scene
from sri_cli.model.segregate.genesis_v2 import GenesisV2Segregation


class GenesisV2Prior(nn.Module):
    """z_1 ~ N(0, I), then an LSTM over the slots before: tanh means, sigmoid deviations."""

    def __init__(self, slot_size: int) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.lstm = Lstm(slot_size, hidden)
        self.linear = nn.Linear(hidden, 2 * slot_size)

    def teacher_forced(self, slots: Tensor) -> Gaussian:
        """The prior at each place given the slots [B,K,D] before it."""
        with full_precision(slots):
            first = standard_like(slots[:, :1])
            if slots.shape[1] == 1:
                return first
            later = squashed_prior(self.linear(self.lstm(slots[:, :-1])))
            return Gaussian(
                torch.cat([first.mean, later.mean], dim=1), torch.cat([first.std, later.std], dim=1)
            )

    def rollout(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Draw as many slots as the noise [B,K,D] holds."""
        with full_precision(noise):
            x = temperature * noise[:, 0]
            state = self.lstm.start(len(x), x)
            draws = [x]
            for step_noise in noise[:, 1:].unbind(dim=1):
                state = self.lstm.step(x, state)
                x = squashed_prior(self.linear(state[0])).sample(step_noise, temperature)
                draws.append(x)
            return torch.stack(draws, dim=1)


class GenesisV2(nn.Module):
    """The complete generative model."""

    objective_names = ("genesis-v2",)

    def __init__(
        self, *, segregation: GenesisV2Segregation, image_size: int, slots: int, slot_size: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_slots = slots
        self.slot_size = slot_size
        self.segregate = segregation
        self.likelihood = segregation.likelihood
        self.prior = GenesisV2Prior(slot_size)

    def training_noise(self) -> dict[str, NoiseSpec]:
        return self.segregate.noise()

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        return {"slots": NoiseSpec((slots, self.slot_size))}

    def slot_kls(self, posterior: Gaussian, slots: Tensor) -> Tensor:
        """One-sample Monte-Carlo KL per slot, [B,K]."""
        return posterior.log_prob(slots) - self.prior.teacher_forced(slots).log_prob(slots)

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        found = self.segregate(images, noise)
        assert found.nll is not None
        kl = self.slot_kls(found.posterior, found.slots).sum(dim=1)
        return Losses(
            objectives=(Objective("genesis-v2", found.nll, kl),),
            terms={"nll": found.nll, "kl": kl},
        )

    forward = losses

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        found = self.segregate(images, noise)
        assert found.scene is not None
        return Reconstruction(scene=found.scene, attention=found.log_masks.exp())

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        return self.segregate.decoder(self.prior.rollout(noise["slots"], temperature))
