"""Refinement: a posterior improved by the gradient of what it costs.

Axis legend: B batch, K slots, D slot size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.base import Scene
from sri_cli.models.distributions import Gaussian
from sri_cli.models.emorl_layers import HIDDEN, Parameters
from sri_cli.models.layers import full_precision, init_small

PUBLISHED_BATCH = 32


class Pass(NamedTuple):
    """An image explained by one posterior: nll and kl [B], `prior` that of the bottom layer."""

    posterior: Gaussian
    slots: Tensor
    scene: Scene
    nll: Tensor
    kl: Tensor
    prior: Gaussian

    def detach(self) -> Pass:
        """The same numbers without their graph."""
        return Pass(
            self.posterior.detach(),
            self.slots.detach(),
            Scene(self.scene.rgb.detach(), self.scene.log_masks.detach()),
            self.nll.detach(),
            self.kl.detach(),
            self.prior.detach(),
        )


Explain = Callable[[Parameters], Pass]


class Refinement(nn.Module):
    """How often and with what gradient a posterior is refined, and the network that does it.

    `steps` (at most `most`, which fixes the shape of the noise) and `batch` are set by training.
    The gradient is that of the mean over a training batch whatever the batch at hand, so that an
    image's result is its own; the layer norm cancels that scale but for its epsilon.
    `error_weight` is what GECO weighs the NLL with. All three travel with the weights:
    an evaluation refines as training did.
    """

    error_weight: Tensor

    def __init__(self, slot_size: int, steps: int) -> None:
        super().__init__()
        self.most = self._steps = steps
        self.batch = PUBLISHED_BATCH
        self.slot_size = slot_size
        self.register_buffer("error_weight", torch.tensor(1.0))
        self.encoder = nn.Sequential(
            nn.Linear(4 * slot_size, HIDDEN), nn.ELU(), nn.Linear(HIDDEN, slot_size)
        )
        self.mean = nn.Linear(slot_size, slot_size)
        self.spread = nn.Linear(slot_size, slot_size)
        init_small(self)
        self.cell = nn.GRUCell(slot_size, slot_size)

    @property
    def steps(self) -> int:
        """How often the posterior is refined."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        if not 0 <= steps <= self.most:
            raise ValueError(f"{steps} refinement steps: this model has 0 to {self.most}")
        self._steps = steps

    def get_extra_state(self) -> Tensor:
        """[steps, batch]: plain numbers in the state dict, so that no step reads the device."""
        return torch.tensor([self.steps, self.batch])

    def set_extra_state(self, state: Tensor) -> None:
        self.steps, self.batch = state.tolist()

    def start(self, found: Parameters) -> Tensor:
        """The memory before the first step, [B*K,D] of zeros."""
        return torch.zeros_like(found.mean, dtype=torch.float32).flatten(0, 1)

    def forward(
        self, found: Parameters, gradient: Parameters, memory: Tensor
    ) -> tuple[Parameters, Tensor]:
        """The posterior moved by what its gradient [B,K,D] suggests, and the next memory."""
        with full_precision(found.mean):
            slope = [F.layer_norm(part.detach(), (self.slot_size,)) for part in gradient]
            seen = self.encoder(torch.cat([*found, *slope], dim=-1)).flatten(0, 1)
            memory = self.cell(seen, memory)
            hidden = memory.unflatten(0, found.mean.shape[:2])
            moved = Parameters(found.mean + self.mean(hidden), found.u + self.spread(hidden))
        return moved, memory

    def differentiate(self, explain: Explain, found: Parameters) -> tuple[Pass, Parameters]:
        """`explain(found)`, and the gradient of its loss with respect to `found`.

        In training the graph is kept and serves the loss too. Without gradients a graph of this
        pass alone is built and dropped. A compiler cannot differentiate within a graph, but it
        can transform a function, at the price of a second pass.
        """
        if torch.compiler.is_compiling():
            at = [part.detach() for part in found]
            slope = torch.func.grad(lambda *p: self.loss(explain(Parameters(*p))), (0, 1))(*at)
            return explain(found), Parameters(*slope)
        in_graph = torch.is_grad_enabled() and found.mean.requires_grad
        with torch.enable_grad():
            if not in_graph:
                found = Parameters(*(part.detach().requires_grad_() for part in found))
            seen = explain(found)
            slope = torch.autograd.grad(self.loss(seen), found, retain_graph=in_graph)
        return seen if in_graph else seen.detach(), Parameters(*slope)

    def loss(self, seen: Pass) -> Tensor:
        """What a pass costs but for a constant: KL + weight * NLL, as a mean over a batch."""
        # GECO moves the weight before the backward pass of the step needs it.
        return (seen.kl + self.error_weight.clone() * seen.nll).sum() / self.batch
