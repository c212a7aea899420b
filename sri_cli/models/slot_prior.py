"""Imagine: the slot priors that draw a scene slot by slot, and SRI's posterior (section 3.3).

Every prior here is an LSTM over the slots drawn so far, p(z_k | z_<k, s). The scene variable s, if
there is one, gives the first input; without it (`scene` None) the first slot is N(0, I).
Axis legend: B batch, K slots, D slot size, S scene size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.distributions import (
    Gaussian,
    sqrt_softplus,
    squashed_prior,
    standard_like,
)
from sri_cli.models.layers import Lstm, full_precision, init_small

HIDDEN_PER_SLOT_SIZE = 4


def scene_projection(slot_size: int, scene_size: int | None) -> nn.Sequential | None:
    """The first input of an LSTM over slots, [B,S] to [B,D]; None without a scene variable."""
    if scene_size is None:
        return None
    return nn.Sequential(nn.Linear(scene_size, slot_size), nn.GELU())


def stack_slots(gaussians: list[Gaussian]) -> Gaussian:
    """Gaussians [B,D] of single slots to one of all, [B,K,D]."""
    mean = torch.stack([gaussian.mean for gaussian in gaussians], dim=1)
    return Gaussian(mean, torch.stack([gaussian.std for gaussian in gaussians], dim=1))


class AutoregressivePrior(nn.Module):
    """p(z_1:K | s) = prod_k p(z_k | z_<k, s); what an output of the LSTM means is up to subclasses.

    Subclasses create `from_scene` (or None) and `lstm`.
    """

    from_scene: nn.Module | None
    lstm: Lstm

    def gaussian(self, hidden: Tensor) -> Gaussian:
        """The next slot's prior [...,D] from the LSTM's output [...,hidden]."""
        raise NotImplementedError

    def rollout(
        self,
        noise: Tensor,
        scene: Tensor | None = None,
        temperature: float = 1.0,
        given: Tensor | None = None,
    ) -> tuple[Gaussian, Tensor]:
        """Draw slots one after another, each from all before it: z_k ~ p(z_k | z_<k, s).

        Args:
            noise: [B,K,D]; it fixes the number of slots.
            scene: Scene latents [B,S], if the prior has a scene variable.
            temperature: Factor of every standard deviation.
            given: The first slots [B,J,D], J <= K, instead of drawing them.

        Returns:
            The prior of each slot and the slots, both [B,K,D]; gradient flows through the draws.
        """
        with full_precision(noise):
            x = None if self.from_scene is None else self.from_scene(scene)
            state = self.lstm.start(len(noise), noise)
            priors, draws = [], []
            for k, step_noise in enumerate(noise.unbind(dim=1)):
                if x is None:
                    prior = standard_like(step_noise)
                else:
                    state = self.lstm.step(x, state)
                    prior = self.gaussian(state[0])
                if given is not None and k < given.shape[1]:
                    x = given[:, k].float()
                else:
                    x = prior.sample(step_noise, temperature)
                priors.append(prior)
                draws.append(x)
            return stack_slots(priors), torch.stack(draws, dim=1)

    def teacher_forced(self, slots: Tensor, scene: Tensor | None = None) -> Gaussian:
        """p(z_k | z_<k, s) of each of the slots [B,K,D], given the true slots before it."""
        with full_precision(slots):
            if self.from_scene is not None:
                inputs = torch.cat([self.from_scene(scene)[:, None], slots[:, :-1]], dim=1)
                return self.gaussian(self.lstm(inputs))
            first = standard_like(slots[:, :1])
            if slots.shape[1] == 1:
                return first
            later = self.gaussian(self.lstm(slots[:, :-1]))
            mean = torch.cat([first.mean, later.mean], dim=1)
            return Gaussian(mean, torch.cat([first.std, later.std], dim=1))


class SlotPrior(AutoregressivePrior):
    """SRI's prior: mean = W h, std = sqrt_softplus(V h) of the LSTM's output h."""

    def __init__(self, slot_size: int, scene_size: int | None) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = scene_projection(slot_size, scene_size)
        self.lstm = Lstm(slot_size, hidden)
        self.mean = nn.Linear(hidden, slot_size)
        self.spread = nn.Linear(hidden, slot_size)
        init_small(self)

    def gaussian(self, hidden: Tensor) -> Gaussian:
        return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))


class GenesisPrior(AutoregressivePrior):
    """The prior of GENESIS and GENESIS-v2: mean = tanh(W h), std = sigmoid(V h + 4) + 1e-4."""

    from_scene = None

    def __init__(self, slot_size: int, hidden: int) -> None:
        super().__init__()
        self.lstm = Lstm(slot_size, hidden)
        self.linear = nn.Linear(hidden, 2 * slot_size)

    def gaussian(self, hidden: Tensor) -> Gaussian:
        return squashed_prior(self.linear(hidden))


class SlotPosterior(nn.Module):
    """q(z_k | m_<k, s): the ordered segregation means m with standard deviations of its own.

    Without a scene variable the LSTM starts from a learned vector (our choice; Table 3, a).
    """

    def __init__(self, slot_size: int, scene_size: int | None) -> None:
        super().__init__()
        hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = scene_projection(slot_size, scene_size)
        self.first = nn.Parameter(torch.zeros(slot_size)) if scene_size is None else None
        self.lstm = Lstm(slot_size, hidden)
        self.spread = nn.Linear(hidden, slot_size)
        init_small(self)

    def forward(self, means: Tensor, scene: Tensor | None = None) -> Gaussian:
        """Ordered segregation means [B,K,D] and scene latents [B,S] to a Gaussian [B,K,D]."""
        with full_precision(means):
            if self.from_scene is not None:
                first = self.from_scene(scene)
            else:
                assert self.first is not None
                first = self.first.expand(len(means), -1)
            inputs = torch.cat([first[:, None], means[:, :-1]], dim=1)
            return Gaussian(means, sqrt_softplus(self.spread(self.lstm(inputs))))
