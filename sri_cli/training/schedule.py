"""What changes in the course of a training, as functions of the step alone.

The last step of a run is no argument: a run that is trained further repeats nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection

LOWEST_LR_SHARE = 0.01


class Phase(NamedTuple):
    """How the model is run for a while: the likelihood of the warm-up, refinement steps."""

    gaussian_likelihood: bool
    refinements: int


def learning_rate(settings: TrainSection, step: int) -> float:
    """The rate of step t = 0, 1, ...: lr * min(1, (t+1)/W) * decay(u) with u = max(0, t - W).

    W is `lr_warmup`. decay(u) is 0.5^(u/H) for `lr_half_life` H, or half a cosine from 1 to 0.01 in
    `lr_decay_steps`, or 1.
    """
    warm = min(1.0, (step + 1) / settings.lr_warmup) if settings.lr_warmup else 1.0
    after = max(0, step - settings.lr_warmup)
    if settings.lr_half_life:
        return settings.lr * warm * 0.5 ** (after / settings.lr_half_life)
    if not settings.lr_decay_steps:
        return settings.lr * warm
    done = min(1.0, after / settings.lr_decay_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return settings.lr * warm * (LOWEST_LR_SHARE + (1 - LOWEST_LR_SHARE) * cosine)


def sinkhorn_temperature(settings: TrainSection, step: int) -> float:
    """The temperature of the relaxed matching at step t: start (end / start)^min(1, t / T)."""
    done = min(1.0, step / settings.sinkhorn_steps)
    return settings.sinkhorn_start * (settings.sinkhorn_end / settings.sinkhorn_start) ** done


def phase_at(settings: TrainSection, step: int, most_refinements: int) -> Phase:
    """The phase of a training step, for a model with up to `most_refinements`."""
    late, begin = settings.late_refinements, settings.late_refinements_from
    is_late = late is not None and begin is not None and step >= begin
    refinements = late if is_late and late is not None else most_refinements
    return Phase(step < settings.gaussian_warmup_steps, refinements)
