"""Signs of divergence: too many skipped steps, or an error far outside its recent range.

And its likely cause, by the settings and the last values of the run.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sri_cli.config.schema import Recipe
from sri_cli.models.distributions import HALF_LOG_2PI

WINDOW_STEPS = 100
MAX_SKIPPED_SHARE = 0.2
MAX_SKIPPED_ALWAYS = 5  # so many may be skipped however short the window
WINDOW_RECORDS = 20
MIN_RECORDS = 5
MARGIN_PER_ELEMENT = 0.1  # nats; far above GECO's own oscillations
MARGIN_RANGES = 3.0
SMALL_STD = 0.05  # shipped recipes have 0.1 and 0.7
LARGE_BETA = 1e3  # a weight of the KL; it is 1e-3 to 10 in trainings that succeed


def likely_cause(recipe: Recipe, metrics: Mapping[str, float | None]) -> tuple[str, str]:
    """The most likely cause, and the setting that changes it as KEY=VALUE.

    Args:
        recipe: What is trained.
        metrics: The last log record; errors and weights of the KL count.
    """
    model, train = recipe.model, recipe.train
    elements = 3 * model.image_size**2
    betas = {k.partition("/")[2]: v for k, v in metrics.items() if k.startswith("beta/") and v}
    objective = max(betas, key=lambda name: betas[name], default="")
    beta, error = betas.get(objective, 0.0), metrics.get(f"err_ema/{objective}")
    # -log p of a perfect reconstruction; no error can be less.
    least = math.log(model.std) + (HALF_LOG_2PI if model.normalised else 0.0)
    if train.beta_start >= LARGE_BETA:
        return f"the KL begins with the weight {train.beta_start:g}", "train.beta_start=1"
    if model.std < SMALL_STD:
        cause = f"errors count 1/std^2, {(0.7 / model.std) ** 2:,.0f} times as much as at std 0.7"
        return cause, "model.std=0.7"
    if train.geco_target is None:  # no GECO
        return "the learning rate may be too high", f"train.lr={train.lr / 2:g}"
    if train.geco_target < least:
        cause = f"no error reaches the target: the least is {least:.4f} at std {model.std:g}"
        return cause, f"train.geco_target={least + 0.003:.4f}"
    if beta >= LARGE_BETA and error is not None and math.isfinite(error):
        cause = f"the error stays below the target, so the weight of the KL rose to {beta:.2g}"
        return cause, f"train.geco_target={error / elements:.4f}"
    return "the learning rate may be too high", f"train.lr={train.lr / 2:g}"


class DivergenceDetector:
    """Checks every log record; `num_elements` is 3*H*W."""

    def __init__(self, num_elements: int) -> None:
        self.margin = MARGIN_PER_ELEMENT * num_elements
        self.skips: deque[tuple[int, int]] = deque()  # (steps, skipped) of each record
        self.errors: dict[str, deque[float]] = {}

    def catch_up(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take the records of a log, which were accepted, as those that were checked last."""
        recent = [{"step": 0}, *records][-1 - max(WINDOW_STEPS, WINDOW_RECORDS) :]
        for before, record in pairwise(recent):
            self._too_many_skipped(record["step"] - before["step"], record.get("skipped", 0), False)
            for name, value in record.items():
                if name.startswith("error/") and value is not None:
                    self._window(name).append(value)

    def check(self, steps: int, metrics: Mapping[str, float], last: bool = False) -> str | None:
        """What is wrong with the means of the last `steps` steps, or None.

        Without a single finite step in the window, the `last` record of a run is always wrong.
        """
        problem = self._too_many_skipped(steps, int(metrics["skipped"]), last)
        for name, value in metrics.items():
            if name.startswith("error/"):
                problem = problem or self._far_outside(name, value)
        return problem

    def _too_many_skipped(self, steps: int, skipped: int, last: bool) -> str | None:
        self.skips.append((steps, skipped))
        while sum(n for n, _ in list(self.skips)[1:]) >= WINDOW_STEPS:
            self.skips.popleft()
        total, lost = (sum(column) for column in zip(*self.skips, strict=True))
        allowed = max(MAX_SKIPPED_ALWAYS, MAX_SKIPPED_SHARE * total)
        if lost <= allowed and not (last and lost == total):
            return None
        return f"{lost} of the last {total} steps had losses or gradients that are not finite"

    def _far_outside(self, name: str, value: float) -> str | None:
        if not math.isfinite(value):  # no finite step in this window: the skipped steps decide
            return None
        window = self._window(name)
        if len(window) >= MIN_RECORDS:
            limit = max(window) + MARGIN_RANGES * (max(window) - min(window)) + self.margin
            if value > limit:
                return f"{name} rose to {value:.4g}, far outside its recent {max(window):.4g}"
        window.append(value)
        return None

    def _window(self, name: str) -> deque[float]:
        return self.errors.setdefault(name, deque(maxlen=WINDOW_RECORDS))
