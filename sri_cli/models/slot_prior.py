"""Imagine: the slot prior that draws a scene slot by slot, and the posterior that follows it.

Paper, section 3.3. Without a scene variable (Table 3, a; `scene_size` and `scene` None) the first
slot is drawn from N(0, I) and the posterior starts from a learned vector.
Axis legend: B batch, K slots, D slot size, S scene size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.distributions import Gaussian, sqrt_softplus, standard_like
from sri_cli.models.layers import Lstm, full_precision, init_small

HIDDEN_PER_SLOT_SIZE = 4


def from_scene(slot_size: int, scene_size: int) -> nn.Sequential:
    """The first input of an LSTM over slots: [B,S] to [B,D]."""
    return nn.Sequential(nn.Linear(scene_size, slot_size), nn.GELU())


def after_standard_first(slots: Tensor, later: Gaussian | None) -> Gaussian:
    """N(0, I) at the first place of slots [B,K,D], then `later` [B,K-1,D] (None when K is 1)."""
    first = standard_like(slots[:, :1])
    if later is None:
        return first
    mean = torch.cat([first.mean, later.mean], dim=1)
    return Gaussian(mean, torch.cat([first.std, later.std], dim=1))


def drawn_or_given(
    prior: Gaussian, noise: Tensor, temperature: float, given: Tensor | None, place: int
) -> Tensor:
    """The slot [B,D] at a place: drawn from its prior, or `given` [B,J,D] where place < J."""
    if given is not None and place < given.shape[1]:
        return given[:, place].float()
    return prior.sample(noise, temperature)


class SlotPrior(nn.Module):
    """p(z_k | z_<k, s): an LSTM that starts from the scene variable."""

    def __init__(self, slot_size: int, scene_size: int | None) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = None if scene_size is None else from_scene(slot_size, scene_size)
        self.lstm = Lstm(slot_size, hidden)
        self.mean = nn.Linear(hidden, slot_size)
        self.spread = nn.Linear(hidden, slot_size)
        init_small(self)

    def _gaussian(self, hidden: Tensor) -> Gaussian:
        return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))

    def rollout(
        self,
        scene: Tensor | None,
        noise: Tensor,
        temperature: float = 1.0,
        given: Tensor | None = None,
    ) -> tuple[Gaussian, Tensor]:
        """Draw slots one after another, each from all before it.

        scene [B,S]; noise [B,K,D] fixes the number of slots; the first are `given` [B,J,D], if
        any are. Returns the prior at each place and the slots, both [B,K,D]; gradient flows
        through the draws.
        """
        with full_precision(noise):
            x = None if self.from_scene is None else self.from_scene(scene)
            state = self.lstm.start(len(noise), noise)
            priors, draws = [], []
            for place, step_noise in enumerate(noise.unbind(dim=1)):
                if x is None:
                    priors.append(standard_like(step_noise))
                else:
                    state = self.lstm.step(x, state)
                    priors.append(self._gaussian(state[0]))
                x = drawn_or_given(priors[-1], step_noise, temperature, given, place)
                draws.append(x)
            mean = torch.stack([prior.mean for prior in priors], dim=1)
            std = torch.stack([prior.std for prior in priors], dim=1)
            return Gaussian(mean, std), torch.stack(draws, dim=1)

    def teacher_forced(self, scene: Tensor | None, slots: Tensor) -> Gaussian:
        """The prior at each place given the true slots [B,K,D] before it."""
        with full_precision(slots):
            if self.from_scene is not None:
                inputs = torch.cat([self.from_scene(scene)[:, None], slots[:, :-1]], dim=1)
                return self._gaussian(self.lstm(inputs))
            single = slots.shape[1] == 1
            later = None if single else self._gaussian(self.lstm(slots[:, :-1]))
            return after_standard_first(slots, later)


class SlotPosterior(nn.Module):
    """q(z_k | m_<k, s): the ordered segregation means with variances of its own."""

    def __init__(self, slot_size: int, scene_size: int | None) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = None if scene_size is None else from_scene(slot_size, scene_size)
        self.first = nn.Parameter(torch.zeros(slot_size)) if scene_size is None else None
        self.lstm = Lstm(slot_size, hidden)
        self.spread = nn.Linear(hidden, slot_size)
        init_small(self)

    def forward(self, scene: Tensor | None, means: Tensor) -> Gaussian:
        """scene [B,S], ordered segregation means [B,K,D] to a Gaussian [B,K,D]."""
        with full_precision(means):
            inputs = torch.cat([self._first(scene, means)[:, None], means[:, :-1]], dim=1)
            return Gaussian(means, sqrt_softplus(self.spread(self.lstm(inputs))))

    def _first(self, scene: Tensor | None, means: Tensor) -> Tensor:
        """The first input [B,D]: from the scene, or the learned vector for every image."""
        if self.from_scene is not None:
            return self.from_scene(scene)
        assert self.first is not None
        return self.first.expand(len(means), -1)
