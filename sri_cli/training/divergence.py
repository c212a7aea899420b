"""When a run has diverged: too many skipped steps, or an error far outside its window."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

WINDOW_STEPS = 100
MAX_SKIPPED_SHARE = 0.2
MAX_SKIPPED_ALWAYS = 5  # this many are forgiven however short the window
WINDOW_RECORDS = 20
MIN_RECORDS = 5
MARGIN_PER_ELEMENT = 0.1  # nats; far above what GECO's own swings reach
MARGIN_RANGES = 3.0


class Watch:
    """Looks at every log record; `num_elements` is 3*H*W."""

    def __init__(self, num_elements: int) -> None:
        self.margin = MARGIN_PER_ELEMENT * num_elements
        self.skips: deque[tuple[int, int]] = deque()
        self.errors: dict[str, deque[float]] = {}

    def verdict(self, steps: int, metrics: Mapping[str, float], last: bool = False) -> str | None:
        """What is wrong after `steps` more steps with these means, or None.

        On the `last` record no step is forgiven when none at all was finite.
        """
        reason = self._too_many_skipped(steps, int(metrics["skipped"]), last)
        for name, value in metrics.items():
            if name.startswith("error/"):
                reason = reason or self._far_outside(name, value)
        return reason

    def _too_many_skipped(self, steps: int, skipped: int, last: bool) -> str | None:
        self.skips.append((steps, skipped))
        while sum(n for n, _ in list(self.skips)[1:]) >= WINDOW_STEPS:
            self.skips.popleft()
        seen, lost = (sum(column) for column in zip(*self.skips, strict=True))
        if not (last and lost == seen) and lost <= max(
            MAX_SKIPPED_ALWAYS, MAX_SKIPPED_SHARE * seen
        ):
            return None
        return f"{lost} of the last {seen} steps had losses or gradients that are not finite"

    def _far_outside(self, name: str, value: float) -> str | None:
        if not math.isfinite(value):  # no finite step in this window: the skip count judges
            return None
        window = self.errors.setdefault(name, deque(maxlen=WINDOW_RECORDS))
        if len(window) >= MIN_RECORDS:
            limit = max(window) + MARGIN_RANGES * (max(window) - min(window)) + self.margin
            if value > limit:
                return f"{name} rose to {value:.4g}, far outside its recent {max(window):.4g}"
        window.append(value)
        return None
