"""Imagine: the slot priors that draw a scene slot by slot, and SRI's posterior (section 3.3).

Every prior here is a network over the slots drawn so far, p(z_k | z_<k, s): an LSTM, as published,
or a transformer. The scene variable s, if there is one, gives the first input; without it (`scene`
None) the first slot is N(0, I).
Axis legend: B batch, K slots, D slot size, S scene size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.distributions import Gaussian, sqrt_softplus, squashed_prior
from sri_cli.models.layers import Lstm, full_precision, init_small

HIDDEN_PER_SLOT_SIZE = 4
LAYERS, HEADS = 2, 4  # of the transformer


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
    """p(z_1:K | s) = prod_k p(z_k | z_<k, s).

    Subclasses create `from_scene` (or None), the network and what its output means. The network is
    an LSTM unless a subclass says otherwise; the state is all that it keeps of the inputs so far.
    """

    from_scene: nn.Module | None
    lstm: Lstm
    mean: nn.Linear
    spread: nn.Linear

    def gaussian(self, hidden: Tensor) -> Gaussian:
        """The next slot's prior [...,D], as SRI's, from the network's output [...,hidden]."""
        return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))

    def start(self, like: Tensor) -> Any:
        """The state before the first input, for a batch as large as that of `like` [B,...]."""
        return self.lstm.start(like)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One input [B,D] and the state to the output [B,hidden] and the next state."""
        state = self.lstm.step(x, state)
        return state[0], state

    def sequence(self, inputs: Tensor) -> Tensor:
        """All outputs [B,T,hidden] of a known sequence of inputs [B,T,D]."""
        return self.lstm(inputs)

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
            state = self.start(noise)
            priors, draws = [], []
            for k, step_noise in enumerate(noise.unbind(dim=1)):
                if x is None:
                    prior = Gaussian(torch.zeros_like(step_noise), torch.ones_like(step_noise))
                else:
                    hidden, state = self.step(x, state)
                    prior = self.gaussian(hidden)
                if given is not None and k < given.shape[1]:
                    x = given[:, k].float()
                else:
                    x = prior.sample(step_noise, temperature)
                priors.append(prior)
                draws.append(x)
            return stack_slots(priors), torch.stack(draws, dim=1)

    def teacher_forced(self, slots: Tensor, scene: Tensor | None = None) -> Gaussian:
        """p(z_k | z_<k, s) of each of the slots [B,K,D], K > 1, given the true slots before it."""
        with full_precision(slots):
            if self.from_scene is not None:
                inputs = torch.cat([self.from_scene(scene)[:, None], slots[:, :-1]], dim=1)
                return self.gaussian(self.sequence(inputs))
            later = self.gaussian(self.sequence(slots[:, :-1]))
            before = (0, 0, 1, 0)  # one slot, N(0, I)
            return Gaussian(F.pad(later.mean, before), F.pad(later.std, before, value=1.0))


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


class GenesisPrior(AutoregressivePrior):
    """The prior of GENESIS and GENESIS-v2: mean = tanh(W h), std = sigmoid(V h + 4) + 1e-4."""

    from_scene = None

    def __init__(self, slot_size: int, hidden: int) -> None:
        super().__init__()
        self.lstm = Lstm(slot_size, hidden)
        self.linear = nn.Linear(hidden, 2 * slot_size)

    def gaussian(self, hidden: Tensor) -> Gaussian:
        return squashed_prior(self.linear(hidden))


class CausalAttention(nn.Module):
    """Attention of each input to itself and those before, and an MLP; norms come first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B,T,hidden] after the inputs whose keys and values are `past` [2,B,heads,P,...].

        Returns the output, and keys and values of all inputs so far. With a `past` T is 1.
        """
        heads = self.query_key_value(self.attention_norm(x)).unflatten(2, (3, HEADS, -1))
        query, *own = heads.permute(2, 0, 3, 1, 4)
        seen = torch.stack(own)
        if past is not None:
            seen = torch.cat([past, seen], dim=3)
        gathered = F.scaled_dot_product_attention(query, seen[0], seen[1], is_causal=past is None)
        x = x + self.out(gathered.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x)), seen


class TransformerPrior(AutoregressivePrior):
    """A causal transformer in place of SRI's LSTM (ours; `prior: transformer`).

    Its heads are SRI's. Positions are sines of the slot's number, so that any number of slots can
    be drawn; keys and values are kept while slots are drawn one by one.
    """

    def __init__(self, slot_size: int, scene_size: int | None) -> None:
        super().__init__()
        self.hidden = HIDDEN_PER_SLOT_SIZE * slot_size
        self.from_scene = scene_projection(slot_size, scene_size)
        self.embed = nn.Linear(slot_size, self.hidden)
        self.blocks = nn.ModuleList(CausalAttention(self.hidden) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(self.hidden)
        self.mean = nn.Linear(self.hidden, slot_size)
        self.spread = nn.Linear(self.hidden, slot_size)
        for part in (self.from_scene, self.mean, self.spread):
            if part is not None:
                init_small(part)

    def start(self, like: Tensor) -> list[Tensor | None]:
        return [None] * LAYERS

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, list[Tensor]]:
        hidden, seen = self._run(x[:, None], state)
        return hidden[:, 0], seen

    def sequence(self, inputs: Tensor) -> Tensor:
        return self._run(inputs, self.start(inputs))[0]

    def _run(self, inputs: Tensor, state: Any) -> tuple[Tensor, list[Tensor]]:
        """Outputs of inputs [B,T,D] that follow those of the state, and the next state."""
        x, number = self.embed(inputs), 0 if state[0] is None else state[0].shape[3]
        x = x + sines(number, inputs.shape[1], x)
        seen = []
        for block, past in zip(self.blocks, state, strict=True):
            x, kept = block(x, past)
            seen.append(kept)
        return self.norm(x), seen


def sines(first: int, count: int, like: Tensor) -> Tensor:
    """Position code [count,F] of the numbers first .. first+count-1, for `like` [...,F].

    sin(n / 100^(2i/F)) and cos of the same: slots are few, so wavelengths end at 600.
    """
    half = like.shape[-1] // 2
    number = torch.arange(first, first + count, device=like.device, dtype=like.dtype)
    rates = 100 ** (-torch.arange(half, device=like.device, dtype=like.dtype) / half)
    angles = number[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


PRIORS: dict[str, type[SlotPrior] | type[TransformerPrior]] = {
    "lstm": SlotPrior,
    "transformer": TransformerPrior,
}


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
