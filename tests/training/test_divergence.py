"""When a run counts as diverged."""

from __future__ import annotations

import math

from sri_cli.training.divergence import DivergenceDetector

ELEMENTS = 3 * 64 * 64


def metrics(skipped: int = 0, error: float = 7000.0) -> dict[str, float]:
    return {"skipped": skipped, "error/a": error}


def test_a_few_skipped_steps_are_forgiven_many_are_not() -> None:
    detector = DivergenceDetector(ELEMENTS)
    for _ in range(10):
        assert detector.check(100, metrics(skipped=20)) is None
    assert "21 of the last 100" in (detector.check(100, metrics(skipped=21)) or "")


def test_skips_add_up_over_short_records() -> None:
    detector = DivergenceDetector(ELEMENTS)
    verdicts = [detector.check(1, metrics(skipped=1, error=math.nan)) for _ in range(6)]
    assert verdicts[:5] == [None] * 5
    assert verdicts[5] is not None
    slow = DivergenceDetector(ELEMENTS)  # every tenth step skipped, for ever
    assert not any(slow.check(1, metrics(skipped=n % 10 == 0)) for n in range(500))


def test_a_run_without_one_finite_step_has_diverged_at_its_end() -> None:
    assert DivergenceDetector(ELEMENTS).check(2, metrics(skipped=2, error=math.nan), last=True)
    assert not DivergenceDetector(ELEMENTS).check(2, metrics(skipped=1), last=True)


def test_an_error_far_outside_its_window() -> None:
    detector = DivergenceDetector(ELEMENTS)
    for n in range(10):
        assert detector.check(100, metrics(error=7000 - 10 * n)) is None
    assert detector.check(100, metrics(error=7100)) is None
    assert "far outside" in (detector.check(100, metrics(error=12000)) or "")


def test_the_first_errors_are_only_looked_at() -> None:
    detector = DivergenceDetector(ELEMENTS)
    assert not any(detector.check(100, metrics(error=10.0**n)) for n in range(5))
