"""`sri study`: a small one, stopped and resumed, and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from sri_cli.training.log import read_log
from tests import small_cli
from tests.small_cli import finish, processes_of, sri, wait_until
from tests.small_data import write_small_data

STEPS = 6
STUDY: dict[str, Any] = {
    "name": "small",
    "description": "Two small systems",
    "data": {"name": "demo-towers", "size": 32},
    "overrides": [
        *("size=tiny", "model.slots=3", "model.slot_size=8", "model.scene_size=8"),
        *("train.log_every=1", "train.checkpoint_every=2", "train.precision=fp32"),
    ],
    "steps": STEPS,
    "batch": 4,
    "seeds": [0, 1],
    "systems": {"sri-mog": {}, "scene": {"recipe": "genesis-v2-scene"}},
    "metrics": {"order": 3, "elbo": 4},
    "claims": [{"better": "sri-mog", "than": ["scene"], "by": ["elbo", "order-iou"]}],
}
RUNS = [f"{system}-seed-{seed}" for seed in (0, 1) for system in ("sri-mog", "scene")]


@pytest.fixture
def work_dir(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data and the study's file."""
    write_small_data(here / "data" / "demo-towers-32.h5")
    write(here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return here


def write(folder: Path, **changes: Any) -> None:
    (folder / "small.yaml").write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))


def study(*more: str, root: str = "runs", **how: Any) -> Result:
    return sri("--runs-root", root, "study", "small.yaml", *more, **how)


def start(*more: str) -> subprocess.Popen[str]:
    """As a process of its own, which signals reach."""
    return small_cli.start("study", "small.yaml", *more)


def logs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.parent.name: read_log(path) for path in folder.glob("*/log.jsonl")}


@pytest.mark.slow
def test_a_study_stopped_and_resumed_gives_the_same_table(work_dir: Path) -> None:
    folder = work_dir / "runs" / "study-small"
    stopped = start("--jobs", "1")
    wait_until((folder / RUNS[1] / "log.jsonl").exists, stopped)
    stopped.send_signal(signal.SIGTERM)
    out, err = finish(stopped, 75, 120)
    said = err.splitlines()[-1]
    assert out == "" and said.startswith("Stopped") and "1 of 4" in said
    assert said.endswith("sri study small.yaml --jobs 1")
    before = logs(folder)
    assert set(before) == set(RUNS[:2])
    measured = (folder / RUNS[0] / "metrics.jsonl").read_text()

    resumed = study("--jobs", "2", code=0)
    after = logs(folder)
    assert set(after) == set(RUNS)
    for name, records in before.items():
        assert after[name][: len(records)] == records  # to the time of day: not trained again
    for records in after.values():
        assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert (folder / RUNS[0] / "metrics.jsonl").read_text() == measured

    check_results(folder, resumed)
    check_again(work_dir)

    # The run that was cut above, in one piece.
    whole = study("--jobs", "1", "--seeds", "0", "--only", "scene", "--json", root="whole", code=0)
    values = json.loads(whole.stdout)["values"]
    same = json.loads((folder / "summary.json").read_text())["values"]
    assert values.keys() == same.keys() == {"order-iou", "order-mi", "elbo"}
    for measure, systems in values.items():
        assert systems == {"sri-mog": [None, None], "scene": [same[measure]["scene"][0], None]}


def check_results(folder: Path, result: Result) -> None:
    """Table, figures and summary."""
    assert (folder / "table.txt").read_text().strip() in result.stdout
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "2/2" in rows["scene"] and rows["scene"].count("±") == 3
    assert "sri-mog better than scene" in result.stdout
    for name in ("samples.png", "order.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    text = (folder / "summary.json").read_text()
    summary = json.loads(text)
    assert len(text) < 4 * 6000
    assert [(run["system"], run["seed"], run["step"]) for run in summary["runs"]] == [
        (system, seed, STEPS) for seed in (0, 1) for system in ("sri-mog", "scene")
    ]
    run = summary["runs"][0]
    assert run["train_seconds"] > 0 and run["machine"]["torch"] and len(run["model"]) == 64
    value = run["metrics"]["negative_elbo"]["value"]
    assert summary["values"]["elbo"]["sri-mog"][0] == value
    assert len(summary["data"]["sha256"]) == len(summary["protocol_sha256"]) == 64
    verdicts = {claim["verdict"] for claim in summary["claims"]}
    assert verdicts <= {"confirmed", "refuted", "undecided", "undecided, in favour"}


def check_again(folder: Path) -> None:
    """What is done is not done again, but printed in another format; a changed study is refused."""
    before = logs(folder / "runs" / "study-small")
    again = study("--table", "markdown", "--out", "shown")
    assert again.exit_code == 0 and "begins" not in again.stderr
    table = (folder / "shown" / "table.md").read_text()
    assert "| sri-mog | 2/2 |" in table and again.stdout.strip() == table.strip()
    assert logs(folder / "runs" / "study-small") == before
    write(folder, seeds=[0, 1, 2])
    message, hint = study(code=2).stderr.splitlines()[-2:]
    assert "protocol.seeds [0, 1] -> [0, 1, 2]" in message and "small.yaml" in hint
    write(folder, description="Only the description differs")
    path = folder / "runs" / "study-small" / "study.json"
    stored = json.loads(path.read_text())
    stored["sha256"] = "of a version whose recipes had a key less"
    del stored["asked"]["recipes"]["scene"]["train"]["keep_checkpoints"]
    path.write_text(json.dumps(stored))
    assert study("--dry-run", "--only", "scene", "--seeds", "1").exit_code == 0


def test_runs_that_diverge_or_fail_stop_no_other(work_dir: Path) -> None:
    wild = {"recipe": "sri-mog", "overrides": ["train.lr=1e30"]}
    systems = {"wild": wild, "scene": STUDY["systems"]["scene"]}
    write(work_dir, steps=12, systems=systems, claims=[])
    obstacle = work_dir / "runs" / "study-small" / "scene-seed-0"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where the run's folder should be")
    first = study("--seeds", "0", "--out", "results", code=1)
    summary = json.loads((obstacle.parent / "summary.json").read_text())  # of what is done so far
    assert [bool(run["diverged"]) for run in summary["runs"]] == [True, False, False, False]
    message, hint = first.stderr.splitlines()[-2:]
    assert "scene seed 0" in message and "runs/study-small/logs" in hint
    assert "wild seed 0" in first.stdout  # beside the table
    again = study("--seeds", "0", "--only", "wild")
    assert again.exit_code == 4 and "begins" not in again.stderr
    message, hint = again.stderr.splitlines()[-2:]
    assert "wild seed 0" in message
    assert "rm runs/study-small/wild-seed-0/diverged.txt" in hint
    shutil.rmtree(work_dir / "runs" / "study-small" / "wild-seed-0")
    recorded = study("--seeds", "0", "--only", "wild")
    assert recorded.exit_code == 4 and "diverged.txt" not in recorded.stderr
    assert recorded.stderr.strip().endswith("mkdir runs/study-small/wild-seed-0")


def test_a_study_that_is_killed_leaves_no_run_behind(work_dir: Path) -> None:
    write(work_dir, steps=100_000, systems={"sri-mog": {}}, claims=[])
    run = work_dir / "runs" / "study-small" / "sri-mog-seed-0"
    killed = start()
    wait_until((run / "log.jsonl").exists, killed)
    assert "study-small" in study(code=2).stderr
    killed.kill()
    killed.communicate()
    for _ in range(600):
        text = (work_dir / "runs/study-small/logs/sri-mog-seed-0.txt").read_text()
        if "Stopped at step" in text:
            break
        time.sleep(0.1)
    assert "Stopped at step" in text
    assert list((run / "checkpoints").iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux lists processes there")
def test_a_run_that_was_stopped_alone_is_saved_and_counts_as_failed(work_dir: Path) -> None:
    write(work_dir, steps=100_000, systems={"alone": {"recipe": "sri-mog"}}, claims=[])
    run = work_dir / "runs" / "study-small" / "alone-seed-0"
    started = start("--seeds", "0")
    wait_until((run / "log.jsonl").exists, started)
    (number,) = processes_of(run.name)
    for _ in range(2):
        os.kill(number, signal.SIGTERM)
    assert "alone seed 0" in finish(started, 1, 60)[1].splitlines()[-2]
    assert "Stopped at step" in (work_dir / f"runs/study-small/logs/{run.name}.txt").read_text()
    assert list((run / "checkpoints").iterdir())


def test_missing_data_are_prepared_and_compared_with_the_protocol(work_dir: Path) -> None:
    (work_dir / "data" / "demo-towers-32.h5").unlink()
    file = work_dir / "data" / "own.h5"
    made = "shapestacks --preset demo --scenes 2 --val-scenes 2 --test-scenes 2 --workers 1"
    data = {"name": "demo-towers", "size": 32, "prepare": made, "sha256": "0" * 64}
    data |= {"file": "own.h5"}
    write(work_dir, data=data, steps=1, systems={"sri-mog": {}}, claims=[])
    result = study("--seeds", "1", "--json", code=0)
    assert f"prepare {made} --out data/own.h5" in result.stderr
    assert "Note: " in result.stderr and "000000000000" in result.stderr
    summary = json.loads(result.stdout)
    assert summary["data"]["prepare"] == f"{made} --out data/own.h5"
    assert summary["data"]["images"] == {"train": 8, "val": 8, "test": 8}
    assert [run["step"] for run in summary["runs"]] == [0, 1]
    write_small_data(work_dir / "demo-towers-32.h5", images=20).replace(file)
    assert "data/own.h5" in study(code=2).stderr


def test_results_that_cannot_be_written_leave_nothing(work_dir: Path) -> None:
    """Found before the training, not after it."""
    assert "small.yaml/results" in study("--out", "small.yaml/results", code=1).stderr
    assert not (work_dir / "runs").exists()


def test_no_data(work_dir: Path) -> None:
    (work_dir / "data" / "demo-towers-32.h5").unlink()
    assert "data/demo-towers-32.h5" in study(code=2).stderr
    assert not (work_dir / "runs").exists()
