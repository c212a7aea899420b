"""The log of a run, and when its records count as divergence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sri_cli.strict_json import to_json
from sri_cli.training.divergence import DivergenceDetector
from sri_cli.training.log import RunLog, read_log, train_seconds


def test_records_come_back_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.append({"step": 1, "loss": 2.5})
    log.append({"step": 2, "loss": math.nan, "kl": math.inf})
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": None, "kl": None}]
    for line in log.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: 1 / 0)  # strict JSON: no NaN


def test_resume_drops_later_records_and_a_torn_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.append({"step": step})
    with open(log.path, "a") as file:
        file.write('{"step": 4, "lo')
    log.drop_after(2)
    log.append({"step": 3, "again": True})
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


ELEMENTS = 3 * 64 * 64


def metrics(skipped: int = 0, error: float = 7000.0) -> dict[str, float]:
    return {"skipped": skipped, "error/a": error}


def test_a_few_skipped_steps_are_allowed_many_are_not() -> None:
    detector = DivergenceDetector(ELEMENTS)
    for _ in range(10):
        assert detector.check(100, metrics(skipped=20)) is None
    assert "21 of the last 100" in (detector.check(100, metrics(skipped=21)) or "")


def test_skips_add_up_over_short_records() -> None:
    detector = DivergenceDetector(ELEMENTS)
    results = [detector.check(1, metrics(skipped=1, error=math.nan)) for _ in range(6)]
    assert results[:5] == [None] * 5
    assert results[5] is not None
    slow = DivergenceDetector(ELEMENTS)  # every tenth step skipped, for good
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


def test_a_stop_changes_no_verdict() -> None:
    records = [{"step": 5 * n, **metrics(error=7000 - n)} for n in range(1, 30)]
    records[-1] |= {"skipped": 5, "error/a": None}
    for before in ([], records[:3], records):
        detector, resumed = DivergenceDetector(ELEMENTS), DivergenceDetector(ELEMENTS)
        resumed.catch_up(before)
        for record in before:
            detector.check(5, {key: v for key, v in record.items() if v is not None})
        assert (resumed.skips, resumed.errors) == (detector.skips, detector.errors)
    assert "far outside" in (resumed.check(5, metrics(error=12000)) or "")


def test_what_a_log_holds_was_accepted() -> None:
    """Also a jump, which a run of an earlier version may have made after a stop."""
    levels = [7000.0] * 6 + [12000.0] * 30
    detector = DivergenceDetector(ELEMENTS)
    detector.catch_up([{"step": n, **metrics(error=e)} for n, e in enumerate(levels, 1)])
    assert detector.check(1, metrics(error=12000)) is None


def test_the_first_errors_are_not_judged() -> None:
    detector = DivergenceDetector(ELEMENTS)
    assert not any(detector.check(100, metrics(error=10.0**n)) for n in range(5))


def test_lines_without_a_record_are_skipped_wherever_they_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ['{"step": 1, "loss": NaN}', "", '{"schema": 1}', "[1]", '{"step": "2"}', '{"a": "\\']
    lines += ['{"step": 3, "loss": 1e999}', "[" * 100_000, '{"step": 4, "lo']
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines))
    expected = [{"step": 1, "loss": None}, {"step": 3, "loss": None}]  # 0.1 wrote a bare NaN
    assert read_log(tmp_path) == read_log(path) == expected
    assert capsys.readouterr().err.count("Note:") == 1  # once, though read twice
    RunLog(tmp_path).drop_after(3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == expected


def test_training_time_up_to_a_step() -> None:
    log = [{"step": 10, "images_per_second": 2.0}, {"step": 30, "images_per_second": 4.0}]
    assert train_seconds(log, 6, 20) == 10 * 6 / 2 + 10 * 6 / 4
    assert train_seconds(log, 6) == 10 * 6 / 2 + 20 * 6 / 4 and train_seconds([], 6) == 0


def test_json_holds_no_nan_at_any_depth() -> None:
    value = {"a": [1.5, (math.nan, -math.inf)], "b": {"c": math.inf}, "d": Path("x")}
    text = to_json(value)
    assert json.loads(text, parse_constant=lambda word: 1 / 0) == {
        "a": [1.5, [None, None]],
        "b": {"c": None},
        "d": "x",
    }
