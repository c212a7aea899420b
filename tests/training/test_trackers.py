"""Trackers hold what log.jsonl holds, every step once, whatever happens to the run."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.summary.writer import event_file_writer

from sri_cli.errors import SriError, SriFailure, pip_install
from sri_cli.strict_json import from_json
from sri_cli.training import log as training_log
from sri_cli.training import trackers
from sri_cli.training.log import RunLog, read_log
from sri_cli.training.trackers import (
    STATE,
    TensorBoard,
    Tracker,
    choose_trackers,
    preview_path,
    read_state,
)
from tests.small_data import save_image
from tests.small_models import tiny_recipe as small
from tests.tracker_readers import READERS, mlflow_run, wandb_records

NOW = datetime.now(UTC).isoformat(timespec="seconds")
NOBODY = "http://127.0.0.1:9"  # where no server listens


@pytest.fixture(autouse=True)
def libraries(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library's store in a folder of the test; MLflow's as files, made in no time."""
    settings = {
        "MLFLOW_TRACKING_URI": f"file:{here}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("SRI_TRACKER", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    # It numbers the event files of a process, and of those of one second reads .10 before .9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def record(step: int, part: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "time": NOW, "loss": step + part / 10, **more}


def train(run: Path, names: list[str], steps: Iterable[int]) -> None:
    """A training of these steps that ends as it should, or is stopped."""
    first, *_ = steps
    log = RunLog(run)
    log.follow(names, small(steps=9), first - 1)
    for step in steps:
        log.append(record(step, 0))
    log.close()


def train_in_three_parts(run: Path, name: str) -> None:
    """Steps 1 to 4; killed, from 2 on again to 5; rolled back to 4, and to the end."""
    log = RunLog(run)
    log.follow([name], small(), 0)
    for step in range(1, 5):
        if step == 2:
            save_image(preview_path(run, "samples", step), [[[0, 128, 255]] * 8] * 8)
        log.append(record(step, 1, **({"val/nll": 3.0} if step == 2 else {})))
    log.close()
    if name == "wandb":
        time.sleep(1)  # it names its folders by the second
    log = RunLog(run)
    log.drop_after(2)
    log.follow([name], small(steps=9), 2)
    for step in range(3, 6):
        log.append(record(step, 2))
    log.drop_after(4)
    for step in (5, 6):
        log.append(record(step, 3))
    log.close(finished=True, checkpoint=run / "checkpoints" / "step-000000006")


def check_mlflow(run: Path) -> None:
    data, info = mlflow_run(run).data, mlflow_run(run).info
    assert info.run_name == run.name and info.status == "FINISHED"
    assert data.params["model.system"] == "sri" and data.params["train.steps"] == "6"
    assert data.tags["resumed/train.steps"] == "9"
    assert {"recipe", "data", "sri.version", "run_dir"} <= data.tags.keys()
    assert data.tags["checkpoint"].endswith("step-000000006")
    assert data.metrics["val/nll"] == 3.0


def check_wandb(run: Path) -> None:
    records = list(wandb_records(run))
    runs = [one.run for one in records if one.WhichOneof("record_type") == "run"]
    assert {one.run_id for one in runs} == {from_json((run / STATE).read_text())["wandb"]["id"]}
    assert runs[-1].project == "sri" and runs[-1].display_name == run.name
    assert {"small", "towers"} <= {*runs[-1].tags}
    texts = [str(one) for one in records if one.WhichOneof("record_type") in ("config", "summary")]
    for part in ("geco_target", "version", "step-000000006"):
        assert any(part in text for text in texts), part


def check_tensorboard(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"recipe/text_summary", "checkpoint/text_summary"} <= {*tags["tensors"]}
    assert events.Scalars("val/nll")[0].step == 2
    metadata = events.SummaryMetadata("_hparams_/session_start_info").SerializeToString()
    assert b"model.system" in metadata


ABOUT = {"mlflow": check_mlflow, "wandb": check_wandb, "tensorboard": check_tensorboard}


@pytest.mark.parametrize("name", READERS)
def test_a_run_is_held_once_after_a_kill_a_resume_and_a_roll_back(
    tmp_path: Path, name: str
) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    train_in_three_parts(run, name)
    losses, images = READERS[name](run)
    expected = {one["step"]: one["loss"] for one in read_log(run)}
    assert expected == {1: 1.1, 2: 2.1, 3: 3.2, 4: 4.2, 5: 5.3, 6: 6.3}
    if name in ("mlflow", "wandb"):  # what was sent stays
        expected |= {3: 3.1, 4: 4.1, 5: 5.2}
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert dict(losses) == pytest.approx(expected)
    assert images == ([] if name == "csv" else [2])
    if name in ABOUT:  # settings, versions and checkpoint
        ABOUT[name](run)


def test_a_copied_run_is_a_run_of_its_own_and_a_moved_one_is_not(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    first, moved, copy = (tmp_path / name for name in ("first", "moved", "copy"))
    first.mkdir()
    train_in_three_parts(first, "mlflow")
    known = read_state(first)["mlflow"]
    first.rename(moved)
    for step, run in ((7, moved), (8, copy), (8, moved)):
        if run == copy:
            shutil.copytree(moved, copy)
        train(run, ["mlflow"], [step])
    assert read_state(moved)["mlflow"]["id"] == known["id"] != read_state(copy)["mlflow"]["id"]
    for run in (moved, copy):
        history = MlflowClient().get_metric_history(read_state(run)["mlflow"]["id"], "loss")
        assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_tracker_chosen_late_gets_the_records_from_the_first_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2):
        log.append(record(step, 0))
    log.follow(["tensorboard", "mlflow", "csv"], small(), 2)
    log.append(record(3, 0, late=1))
    log.close()
    for name in ("tensorboard", "mlflow", "csv"):
        assert READERS[name](tmp_path)[0] == [(1, 1), (2, 2), (3, 3)], name


def test_records_made_without_tensorboard_are_not_missing_there(tmp_path: Path) -> None:
    for first, name in ((1, "tensorboard"), (3, "csv"), (5, "tensorboard")):
        train(tmp_path, [name], (first, first + 1))
    assert READERS["tensorboard"](tmp_path)[0] == [(step, step) for step in range(1, 7)]


def test_what_tensorboard_holds_is_known_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "KEEP_SEC", 0.0)
    killed = RunLog(tmp_path)
    killed.follow(["tensorboard"], small(), 0)
    for step in (1, 2):
        killed.append(record(step, 0))
    assert read_state(tmp_path)["tensorboard"]["step"] == 2
    RunLog(tmp_path).drop_after(2)
    train(tmp_path, ["tensorboard"], [3])
    assert READERS["tensorboard"](tmp_path)[0] == [(1, 1), (2, 2), (3, 3)]


def test_a_new_run_stops_where_its_tracker_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    with pytest.raises(SriFailure, match=r"\n.*MLFLOW_TRACKING_URI"):
        RunLog(tmp_path).follow(["mlflow"], small(), 0)


def test_a_run_that_began_trains_on_and_its_tracker_gets_the_records_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, store = RunLog(tmp_path), f"file:{tmp_path}/mlruns"
    train(tmp_path, ["mlflow"], [1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    log.follow(["mlflow"], small(), 1)
    log.append(record(2, 0))
    assert capsys.readouterr().err.count("Note: mlflow") == 1  # tried again minutes later
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    log.append(record(3, 0))
    assert len(READERS["mlflow"](tmp_path)[0]) == 1
    monkeypatch.setattr(training_log, "RETRY_SEC", 0.0)
    log.trackers[0].retry_at = 1.0
    log.append(record(4, 0))
    log.trackers[0].retry_at = math.inf  # it failed again, and the training ends before the time
    log.append(record(5, 0))
    log.close(finished=True)
    assert READERS["mlflow"](tmp_path)[0] == [(step, step) for step in range(1, 6)]


def test_slow_failures_are_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, attempts = 0.0, []

    class Slow(Tracker):
        name, is_local = "slow", False

        def open(self) -> None:
            nonlocal now
            attempts.append(now)
            now += 90
            raise TimeoutError

    monkeypatch.setattr(training_log, "time", SimpleNamespace(monotonic=lambda: now))
    log = RunLog(tmp_path)
    log.trackers.append(Slow(tmp_path, small(), 0))
    for step in range(120):
        now = max(now, 60.0 * step)
        log.append(record(step, 0))
    assert len(attempts) == 4  # 90 s of 7,200 s each
    log.trackers[0].is_open = True  # it was reached before
    monkeypatch.setattr(Slow, "write", lambda *_: 1 / 0)
    monkeypatch.setattr(Slow, "close", lambda *_: 1 / 0)
    capsys.readouterr()
    log.close(finished=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Note: slow") and "goes on" not in line


def test_a_roll_back_while_a_server_is_down_sends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, store = RunLog(tmp_path), f"file:{tmp_path}/mlruns"
    train(tmp_path, ["mlflow"], [1, 2])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    log.follow(["mlflow"], small(), 2)
    log.drop_after(1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    log.trackers[0].retry_at = 1.0
    for step in (2, 3):
        log.append(record(step, 1))
    log.close(finished=True)
    assert [step for step, _ in READERS["mlflow"](tmp_path)[0]] == [1, 2, 3]
    assert dict(READERS["mlflow"](tmp_path)[0])[2] == record(2, 0)["loss"]


def test_a_roll_back_while_a_tracker_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, ["tensorboard"], [1])

    def refuse(_: TensorBoard) -> None:
        raise TypeError("Descriptors cannot be created directly")

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "open", refuse)
        with pytest.raises(SriFailure, match=r"\n.*--tracker none"):
            RunLog(tmp_path / "new").follow(["tensorboard"], small(), 0)
        log = RunLog(tmp_path)
        log.follow(["tensorboard"], small(), 1)
        log.append(record(2, 0))
        log.drop_after(1)
        log.close()
    assert "Note: tensorboard" in capsys.readouterr().err
    assert [one["step"] for one in read_log(tmp_path)] == [1]


def test_trackers_are_chosen_by_name_by_the_environment_or_by_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose_trackers() == ["tensorboard"]
    assert choose_trackers(["csv", "csv"]) == ["csv"] and choose_trackers(["none"]) == []
    monkeypatch.setenv("SRI_TRACKER", "csv, wandb")
    assert choose_trackers() == ["csv", "wandb"]
    with pytest.raises(SriError, match="tensorboard"):
        choose_trackers(["tensorbord"])
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SriError) as caught:
        choose_trackers(["mlflow"])
    assert caught.value.hint == pip_install("sri-cli[mlflow]")
    monkeypatch.delenv("SRI_TRACKER")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert choose_trackers() == []
