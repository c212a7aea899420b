from __future__ import annotations

import json
import math
from pathlib import Path

from sri_cli.training.log import RunLog, read_log


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


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path)
    log.append({"step": 1, "loss": 2.5, "time": "noon"})
    log.append({"step": 2, "loss": 1.5, "time": "one"})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 2.5), (2, 1.5)]
