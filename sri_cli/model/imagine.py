"""Imagine: the slot prior that draws a scene slot by slot, and the posterior that follows it.

Paper, section 3.3. Axis legend: B batch, K slots, D slot size, S scene size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.model.blocks import Lstm, full_precision, init_small
from sri_cli.model.gaussians import Gaussian, sqrt_softplus

HIDDEN_PER_SLOT_SIZE = 4


class SlotPrior(nn.Module):
    """p(z_k | z_<k, s): an LSTM that starts from the scene variable."""

    def __init__(self, slot_size: int, scene_size: int) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = nn.Sequential(nn.Linear(scene_size, slot_size), nn.GELU())
        self.lstm = Lstm(slot_size, hidden)
        self.mean = nn.Linear(hidden, slot_size)
        self.spread = nn.Linear(hidden, slot_size)
        init_small(self)

    def _gaussian(self, hidden: Tensor) -> Gaussian:
        return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))

    def rollout(
        self, scene: Tensor, noise: Tensor, temperature: float = 1.0
    ) -> tuple[Gaussian, Tensor]:
        """Draw slots one after another, each from all before it.

        scene [B,S]; noise [B,K,D] fixes the number of slots. Returns the prior at each place and
        the drawn slots, both [B,K,D]; gradient flows through the draws.
        """
        with full_precision(scene):
            x = self.from_scene(scene)
            state = self.lstm.start(len(x), x)
            priors, draws = [], []
            for step_noise in noise.unbind(dim=1):
                state = self.lstm.step(x, state)
                priors.append(self._gaussian(state[0]))
                x = priors[-1].sample(step_noise, temperature)
                draws.append(x)
            mean = torch.stack([prior.mean for prior in priors], dim=1)
            std = torch.stack([prior.std for prior in priors], dim=1)
            return Gaussian(mean, std), torch.stack(draws, dim=1)

    def teacher_forced(self, scene: Tensor, slots: Tensor) -> Gaussian:
        """The prior at each place given the true slots [B,K,D] before it."""
        with full_precision(scene):
            inputs = torch.cat([self.from_scene(scene)[:, None], slots[:, :-1]], dim=1)
            return self._gaussian(self.lstm(inputs))


class SlotPosterior(nn.Module):
    """q(z_k | m_<k, s): the ordered segregation means with variances of its own."""

    def __init__(self, slot_size: int, scene_size: int) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = nn.Sequential(nn.Linear(scene_size, slot_size), nn.GELU())
        self.lstm = Lstm(slot_size, hidden)
        self.spread = nn.Linear(hidden, slot_size)
        init_small(self)

    def forward(self, scene: Tensor, means: Tensor) -> Gaussian:
        """scene [B,S], ordered segregation means [B,K,D] to a Gaussian [B,K,D]."""
        with full_precision(scene):
            inputs = torch.cat([self.from_scene(scene)[:, None], means[:, :-1]], dim=1)
            return Gaussian(means, sqrt_softplus(self.spread(self.lstm(inputs))))
