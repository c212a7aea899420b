"""GECO: hold the reconstruction error at a target while the KL falls (Rezende & Viola, 2018).

One multiplier per objective replaces the fixed weight of a beta-VAE. GENESIS, GENESIS-v2 and SRI
use `Geco`, EfficientMORL has its own (`EmorlGeco`), and Slot-VAE has none: its beta stays 1. All
state is in buffers, so it is saved with a checkpoint, and nothing is read back from the device.

Axis legend: B batch. Errors and KLs are in nats per image; the target is in nats per pixel and
channel, so that the goal is target * 3*H*W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.base import Objective, SlotVAE

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection

MOMENTUM = 0.99
REFERENCE_SIZE_PX = 64
BETA_MAX = 1e10
EMORL_BETA_MIN = 0.55


class Geco(nn.Module):
    """GENESIS' GECO: the multiplier is on the KL (Rezende & Viola, 2018, Algorithm 1).

        loss    = err + beta * KL
        err_ema = 0.99 err_ema + 0.01 err       (the first err itself)
        gap     = goal - err_ema
        beta    = clamp(beta * exp(lr * s * gap), beta_min, 1e10),  s = speedup if gap > 0 else 1

    with err and KL the means over the batch, and lr scaled by 64^2/H^2. For the first `warmup`
    steps beta stays at `beta_start`, while the moving average runs.
    """

    beta: Tensor
    err_ema: Tensor
    seen: Tensor  # steps so far

    def __init__(
        self,
        target: float,
        lr: float,
        image_size: int,
        *,
        speedup: float = 10.0,
        beta_start: float = 1.0,
        beta_min: float = 1e-10,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self.goal = target * (3 * image_size**2)
        self.lr = lr * REFERENCE_SIZE_PX**2 / image_size**2
        self.speedup, self.beta_min, self.warmup = speedup, beta_min, warmup
        self.register_buffer("beta", torch.tensor(float(beta_start)))
        self.register_buffer("err_ema", torch.tensor(0.0))
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int64))

    def report(self) -> dict[str, Tensor]:
        """Scalars for the log."""
        return {"beta": self.beta, "err_ema": self.err_ema}

    def forward(self, objective: Objective) -> Tensor:
        """The scalar loss, with beta as it is before this step's `update`."""
        return objective.error.float().mean() + self.beta * objective.kl.float().mean()

    @torch.no_grad()
    def update(self, err: Tensor) -> None:
        """Move beta by the mean error of the step's global batch, after the backward pass."""
        ema = torch.where(self.seen == 0, err, MOMENTUM * self.err_ema + (1 - MOMENTUM) * err)
        gap = self.goal - ema
        rate = self.lr * torch.where(gap > 0, self.speedup, 1.0)
        moved = (self.beta * torch.exp(rate * gap)).clamp(self.beta_min, BETA_MAX)
        self.beta.copy_(torch.where(self.seen < self.warmup, self.beta, moved))
        self.err_ema.copy_(ema)
        self.seen.add_(1)


class EmorlGeco(nn.Module):
    """EfficientMORL's GECO: the multiplier is on the error, and moves by the gap itself.

        loss    = sum_i w_i * (KL_i - softplus(beta) * C_i),      C_i = goal - err_i
        gap_ema = 0.99 gap_ema + 0.01 C_I
        beta    = max(0.55, beta - lr * s * gap_ema),  s = speedup if gap_ema > 0 else 1

    over the passes i = 0..I of a model with I refinement steps, w_i = (I + 3 - i) / (I + 1). In
    the loss, C_i gives the gradient and gap_ema the value. In the first `warmup` steps the loss
    is sum_i w_i * (KL_i + err_i); the moving average starts at their end.
    """

    beta: Tensor
    gap_ema: Tensor
    seen: Tensor  # steps so far

    def __init__(
        self, target: float, lr: float, image_size: int, *, speedup: float = 10.0, warmup: int = 0
    ) -> None:
        super().__init__()
        self.goal = target * (3 * image_size**2)
        self.lr, self.speedup, self.warmup = lr, speedup, warmup
        self.register_buffer("beta", torch.tensor(EMORL_BETA_MIN))
        self.register_buffer("gap_ema", torch.tensor(0.0))
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int64))

    def error_weight(self) -> Tensor:
        """The weight of the error in the next step: 1 in the warm-up, then softplus(beta)."""
        return torch.where(self.seen < self.warmup, 1.0, F.softplus(self.beta))

    def report(self) -> dict[str, Tensor]:
        """Scalars for the log; `beta` is the weight of the KL relative to the error, as in Geco."""
        return {"beta": 1 / self.error_weight(), "err_ema": self.goal - self.gap_ema}

    def forward(self, objective: Objective) -> Tensor:
        """The scalar loss, with multiplier and average as they are before this step's `update`."""
        passes = (*objective.earlier, (objective.error, objective.kl))
        errors = torch.stack([error.float().mean() for error, _ in passes])
        kls = torch.stack([kl.float().mean() for _, kl in passes])
        weight, gaps = self.error_weight(), self.goal - errors.detach()
        average = torch.where(self.seen > self.warmup, self.gap_ema, gaps[-1])
        # A constant that replaces weight * error by -weight * average in the value of the loss.
        shift = torch.where(self.seen < self.warmup, 0.0, weight * (gaps - average - self.goal))
        return (pass_weights(len(passes), kls) * (kls + weight * errors + shift)).sum()

    @torch.no_grad()
    def update(self, err: Tensor) -> None:
        """Move beta by the last pass' mean error over the global batch, after the backward pass."""
        gap = self.goal - err
        moved = MOMENTUM * self.gap_ema + (1 - MOMENTUM) * gap
        # Until the average starts, it is the last gap.
        average = torch.where(self.seen <= self.warmup, gap, moved)
        rate = self.lr * torch.where(average > 0, self.speedup, 1.0)
        beta = (self.beta - rate * average).clamp(min=EMORL_BETA_MIN)
        self.beta.copy_(torch.where(self.seen < self.warmup, self.beta, beta))
        self.gap_ema.copy_(average)
        self.seen.add_(1)


def pass_weights(passes: int, like: Tensor) -> Tensor:
    """w_i = (I + 3 - i) / (I + 1) for i = 0..I, [passes]; 1 for an objective without refinement."""
    if passes == 1:
        return torch.ones_like(like)
    return torch.linspace(passes + 2, 3, passes, device=like.device) / passes


def make_gecos(model: SlotVAE, settings: TrainSection) -> nn.ModuleDict:
    """One GECO for each objective of the model, of the kind that it declares."""

    def make() -> nn.Module:
        target, lr, size = settings.geco_target or 0.0, settings.geco_lr, model.image_size
        speedup, warmup = settings.geco_speedup, settings.geco_warmup
        if model.geco == "emorl":
            return EmorlGeco(target, lr, size, speedup=speedup, warmup=warmup)
        start, lowest = settings.beta_start, settings.beta_min
        if model.geco == "none":
            lr, start = 0.0, 1.0  # beta stays 1
        return Geco(
            *(target, lr, size), speedup=speedup, beta_start=start, beta_min=lowest, warmup=warmup
        )

    return nn.ModuleDict({name: make() for name in model.objective_names})
