"""Distances and folders of pictures in `sri eval`: names, caches, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sri_cli.errors import SriError
from sri_cli.generation.samples import Request, write_samples
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate_runs import evaluate_all, evaluate_one
from sri_cli.metrics.picture_metrics import Wanted
from sri_cli.metrics.records import read_records
from sri_cli.run import Workspace

ROOT = Path(__file__).parents[2]


def only(records: list[Any]) -> Any:
    (record,) = records
    return record


def test_a_distance_says_what_it_is(workspace: Workspace, capsys: Any) -> None:
    wanted = Wanted(("fid",), num=3, features="random")
    record = only(evaluate_one(workspace, open_run(workspace, "tiny"), wanted))
    assert record["name"] == "FD-random-inception(3/3)" and record["metric"] == "fid"
    assert record["counts"] == {"real": 3, "generated": 3}
    assert "only ranks models" in record["warning"] and "too few" in record["warning"]
    assert "only ranks models" in capsys.readouterr().err
    assert list((workspace.data_root / "fid").glob("reference-*.npz"))
    assert list((workspace.runs_root / "tiny" / "fid").iterdir())


def test_samples_on_disk_measure_as_the_run_does(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    """The same 8-bit pictures, whether they come from PNG files or from memory."""
    wanted = Wanted(("stack-fd",), data="demo-towers", num=12)
    own = only(evaluate_one(workspace, trained, wanted))
    for kind in ("png", "npz", "h5"):
        folder = write_samples(trained, Request(num=12, format=kind), tmp_path / kind)
        given = only(evaluate_all(workspace, [], [folder], wanted).measured)
        assert given["value"] == pytest.approx(own["value"], rel=1e-5)
        assert given["name"] == own["name"] == "stack-FD(12/12)"
        assert given["subject"]["kind"] == "images" and given["subject"]["count"] == 12


def test_fewer_pictures_than_asked_are_counted(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    folder = write_samples(trained, Request(num=5), tmp_path / "few")
    wanted = Wanted(("stack-fd", "sacc-estimate"), data="demo-towers")
    distance, share = evaluate_all(workspace, [], [folder], wanted).measured
    assert distance["name"] == "stack-FD(16/5)"
    assert share["counts"]["generated"] == 5 and 0 <= share["low"] <= share["high"] <= 1


def test_pictures_of_another_size_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    np.savez(tmp_path / "given" / "a.npz", images=np.zeros((4, 64, 64, 3), np.uint8))
    file = str(workspace.data_path("demo-towers", 32))
    with pytest.raises(SriError, match="of 64 px, the images of .* of 32") as caught:
        evaluate_all(workspace, [], [tmp_path / "given"], Wanted(("stack-fd",), data=file))
    assert "--size 64" in caught.value.hint


def test_runs_and_folders_go_into_one_table(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    folder = write_samples(trained, Request(num=6), tmp_path / "given")
    wanted = Wanted(("stack-fd",), data="demo-towers", num=6)
    found = evaluate_all(workspace, ["tiny"], [folder], wanted)
    assert [m["subject"]["kind"] for m in found.known] == ["run", "images"]
    assert found.known[0]["value"] == pytest.approx(found.known[1]["value"], rel=1e-5)


def test_an_interrupted_evaluation_keeps_what_it_had_and_goes_on(workspace: Workspace) -> None:
    run = workspace.runs_root / "tiny"
    words = ["--data-root", str(workspace.data_root), "--runs-root", str(workspace.runs_root)]
    words += ["eval", "--run", "tiny", "--metrics", "elbo,fid", "--features", "random"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sri_cli", *words, "--num", "2000"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((workspace.data_root / "fid").glob("*.npz")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert out == "" and "Traceback" not in told
    kept = read_records(run)
    assert "negative_elbo" in {m["metric"] for m in kept} and "fid" not in {
        m["metric"] for m in kept
    }
    # The real statistics are there already: they are not computed again.
    (file,) = (workspace.data_root / "fid").glob("*.npz")
    before = file.stat().st_mtime_ns
    evaluate_one(
        workspace, open_run(workspace, "tiny"), Wanted(("fid",), num=16, features="random")
    )
    assert file.stat().st_mtime_ns == before
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["metric"] == "fid"
