"""EfficientMORL's own GECO: the multiplier is on the error and moves by the gap itself.

Axis legend: B batch. Errors and KLs are in nats per image; goal - error is the gap.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.base import Objective

MOMENTUM = 0.99
LOWEST_BETA = 0.55


class EmorlGeco(nn.Module):
    """The multiplier of one objective; all of its state lives in buffers, nothing is read back.

    `target_per_element` is the goal per pixel and channel, `num_elements` is 3*H*W, `lr` the
    step of beta at every image size. The first `warmup` steps minimise the plain error + KL.
    """

    beta: Tensor
    gap_ema: Tensor
    seen: Tensor

    def __init__(
        self,
        target_per_element: float,
        num_elements: int,
        lr: float,
        *,
        speedup: float = 10.0,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self.goal = target_per_element * num_elements
        self.lr, self.speedup, self.warmup = lr, speedup, warmup
        self.register_buffer("beta", torch.tensor(LOWEST_BETA))
        self.register_buffer("gap_ema", torch.tensor(0.0))
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int64))

    def error_weight(self) -> Tensor:
        """What the error is multiplied with in the next step: 1 in the warm-up, then softplus."""
        return torch.where(self.seen < self.warmup, 1.0, F.softplus(self.beta))

    def report(self) -> dict[str, Tensor]:
        """Scalars for the log; `beta` as in `Geco` is the weight of the KL against the error's."""
        return {"beta": 1 / self.error_weight(), "err_ema": self.goal - self.gap_ema}

    def forward(self, objective: Objective) -> Tensor:
        """The scalar loss, with multiplier and average as they stand; moves nothing.

        The loss of a pass is KL - weight * (goal - error): the gap gives the gradient, its moving
        average the value. Earlier passes weigh more, the last one 3/(I+1) of I refinements.
        """
        pairs = (*objective.earlier, (objective.error, objective.kl))
        errors = torch.stack([error.float().mean() for error, _ in pairs])
        kls = torch.stack([kl.float().mean() for _, kl in pairs])
        weight, gap = self.error_weight(), self.goal - errors.detach()
        started = torch.where(self.seen > self.warmup, self.gap_ema, gap[-1])
        # Without gradient: takes weight * error away again and puts the average in its place.
        shift = torch.where(self.seen < self.warmup, 0.0, weight * (gap - started - self.goal))
        return (pass_weights(len(pairs), kls) * (kls + weight * errors + shift)).sum()

    @torch.no_grad()
    def move(self, err: Tensor) -> None:
        """Take in the last pass' mean error of the step's whole batch, after its backward pass."""
        gap = self.goal - err
        moved = MOMENTUM * self.gap_ema + (1 - MOMENTUM) * gap
        # The average begins when the warm-up is over; until then it is the last gap.
        average = torch.where(self.seen <= self.warmup, gap, moved)
        rate = self.lr * torch.where(average > 0, self.speedup, 1.0)
        beta = (self.beta - rate * average).clamp(min=LOWEST_BETA)
        self.beta.copy_(torch.where(self.seen < self.warmup, self.beta, beta))
        self.gap_ema.copy_(average)
        self.seen.add_(1)


def pass_weights(passes: int, like: Tensor) -> Tensor:
    """(I+2-i+1)/(I+1) for pass i = 0..I; 1 for an objective that is not refined."""
    if passes == 1:
        return torch.ones_like(like)
    return torch.linspace(passes + 2, 3, passes, device=like.device) / passes
