"""What a recipe changes in the course of a training, as functions of the step alone.

How long a run is to last does not change what it has done.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sri_cli.errors import SriError

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection

LOWEST_LR_SHARE = 0.01


def learning_rate(settings: TrainSection, step: int) -> float:
    """Linear warm-up over `lr_warmup` steps, then, if wanted, one of two ways down.

    Half a cosine to a hundredth in `lr_decay_steps`, or halved every `lr_half_life` steps.
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


def check_refinements(most: int, settings: TrainSection) -> None:
    """SriError when the settings name more refinement steps than the `most` of the model."""
    if settings.late_refinements is not None and settings.late_refinements > most:
        raise SriError(
            f"train.late_refinements={settings.late_refinements}: this model has {most} steps",
            "it can only lower their number; leave it out for a model that does not refine",
        )


def refinement_steps(settings: TrainSection, step: int, most: int) -> int:
    """How many refinement steps a model of `most` takes in training step `step`."""
    late = settings.late_refinements
    begin = settings.late_refinements_from
    return most if late is None or begin is None or step < begin else late
