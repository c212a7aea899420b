"""GECO: keep the error of a model at its goal while its KL falls (Rezende & Viola, 2018).

Axis legend: B batch. Errors and KLs are in nats per image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sri_cli.models.base import Objective
from sri_cli.training.geco_emorl import EmorlGeco

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection

MOMENTUM = 0.99
REFERENCE_SIZE_PX = 64


class Geco(nn.Module):
    """The multiplier of one objective; all of its state lives in buffers, nothing is read back.

    `target_per_element` is the goal per pixel and channel, `num_elements` is 3*H*W, `lr` the
    multiplier's rate at 64 px (scaled by 64^2/H^2 here). For the first `warmup` steps the
    multiplier stays where it started while the moving average already runs.
    """

    beta: Tensor
    err_ema: Tensor
    seen: Tensor

    def __init__(
        self,
        target_per_element: float,
        num_elements: int,
        lr: float,
        image_size: int,
        *,
        speedup: float = 10.0,
        beta_start: float = 1.0,
        beta_min: float = 1e-10,
        beta_max: float = 1e10,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self.goal = target_per_element * num_elements
        self.lr = lr * REFERENCE_SIZE_PX**2 / image_size**2
        self.speedup = speedup
        self.beta_min, self.beta_max = beta_min, beta_max
        self.warmup = warmup
        self.register_buffer("beta", torch.tensor(float(beta_start)))
        self.register_buffer("err_ema", torch.tensor(0.0))
        self.register_buffer("seen", torch.tensor(0, dtype=torch.int64))

    def report(self) -> dict[str, Tensor]:
        """Scalars for the log."""
        return {"beta": self.beta, "err_ema": self.err_ema}

    def forward(self, objective: Objective) -> Tensor:
        """The scalar loss err + beta * KL; moves nothing."""
        return objective.error.float().mean() + self.beta * objective.kl.float().mean()

    @torch.no_grad()
    def move(self, err: Tensor) -> None:
        """Take in the mean error of the step's whole batch, after its backward pass."""
        ema = torch.where(self.seen == 0, err, MOMENTUM * self.err_ema + (1 - MOMENTUM) * err)
        gap = self.goal - ema
        rate = self.lr * torch.where(gap > 0, self.speedup, 1.0)
        moved = (self.beta * torch.exp(rate * gap)).clamp(self.beta_min, self.beta_max)
        self.beta.copy_(torch.where(self.seen < self.warmup, self.beta, moved))
        self.err_ema.copy_(ema)
        self.seen.add_(1)


def make_gecos(model: Any, settings: TrainSection) -> nn.ModuleDict:
    """One GECO for each objective, with the recipe's settings.

    A GECO is called with its objective for the loss, and told the error afterwards by `move`:
    with several processes the error is that of all of them.
    The model declares its kind.
    """
    make = emorl_geco if model.geco == "emorl" else genesis_geco
    names = model.objective_names
    return nn.ModuleDict({name: make(settings, model.image_size) for name in names})


def genesis_geco(settings: TrainSection, size: int) -> nn.Module:
    """For images of `size` pixels."""
    return Geco(
        settings.geco_target,
        3 * size * size,
        settings.geco_lr,
        size,
        speedup=settings.geco_speedup,
        beta_start=settings.beta_start,
        beta_min=settings.beta_min,
        warmup=settings.geco_warmup,
    )


def emorl_geco(settings: TrainSection, size: int) -> nn.Module:
    """For images of `size` pixels; where its beta starts and ends is fixed."""
    return EmorlGeco(
        settings.geco_target,
        3 * size * size,
        settings.geco_lr,
        speedup=settings.geco_speedup,
        warmup=settings.geco_warmup,
    )
