"""Signs of divergence: too many skipped steps, or an error far outside its recent range."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

WINDOW_STEPS = 100
MAX_SKIPPED_SHARE = 0.2
MAX_SKIPPED_ALWAYS = 5  # so many may be skipped however short the window
WINDOW_RECORDS = 20
MIN_RECORDS = 5
MARGIN_PER_ELEMENT = 0.1  # nats; far above GECO's own oscillations
MARGIN_RANGES = 3.0


class DivergenceDetector:
    """Checks every log record; `num_elements` is 3*H*W."""

    def __init__(self, num_elements: int) -> None:
        self.margin = MARGIN_PER_ELEMENT * num_elements
        self.skips: deque[tuple[int, int]] = deque()  # (steps, skipped) of each record
        self.errors: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW_RECORDS))

    def catch_up(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take the records of a log, which were accepted, as those that were checked last."""
        recent = [{"step": 0}, *records][-1 - max(WINDOW_STEPS, WINDOW_RECORDS) :]
        for before, record in pairwise(recent):
            self._too_many_skipped(record["step"] - before["step"], record.get("skipped", 0), False)
            for name, value in record.items():
                if name.startswith("error/") and value is not None:
                    self.errors[name].append(value)

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
        window = self.errors[name]
        if len(window) >= MIN_RECORDS:
            limit = max(window) + MARGIN_RANGES * (max(window) - min(window)) + self.margin
            if value > limit:
                return f"{name} rose to {value:.4g}, far outside its recent {max(window):.4g}"
        window.append(value)
        return None
