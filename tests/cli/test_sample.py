"""`sri sample` and `sri eval` as commands: output, messages, exit codes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sri_cli.run import Workspace
from tests.small_cli import sri, start, wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _here(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_sample_names_its_folder_and_the_data() -> None:
    result = sri("sample", "--slots", "5", "--temp", "0.7", "--num", "3", "--masks")
    assert result.exit_code == 0, result.output
    assert "simulated" in result.stdout
    folder = Path(result.stdout.splitlines()[0].split(": ")[1])
    assert len(list((folder / "masks").iterdir())) == 3 * 5


def test_sample_into_the_empty_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    roots = ["--runs-root", "../runs", "--data-root", "../data"]
    result = sri(*roots, "sample", "--num", "2", "--out", ".")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir()) == ["grid.png", "images", "sample.json"]
    assert sorted(os.listdir(tmp_path)) == ["data", "here", "runs"]


def test_sigterm_while_sampling_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    sampling = start("sample", "--num", "200000", "--out", "big")
    wait_until(lambda: list(tmp_path.glob(".big.*.tmp/images/*")), sampling)
    sampling.send_signal(signal.SIGTERM)
    printed = sampling.communicate(timeout=60)[1]
    assert sampling.returncode == 130 and "Error: " not in printed, printed
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "line",
    [
        "sample --slots 0",
        "sample --temp 0",
        "sample --num -3",
        "sample --seed -1",
        "sample --run tinny",
        "eval --run tiny --run tinny --num 4",
        "eval --data missing.h5",
        "eval --metrics fid --offline",
        "eval --metrics fid --inception-weights data/demo-towers-32.h5",
        "eval --features random",
        "eval --recorded",
        "eval --images data --data demo-towers",
        "eval --images data --recorded",
    ],
)
def test_bad_input_is_two_lines_and_exit_2(line: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = sri(*line.split())
    assert result.exit_code == 2
    assert result.stdout == "" and result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_eval_of_several_runs_is_one_table() -> None:
    words = ("eval", "--run", "tiny", "--run", "other")
    result = sri(*words, "--num", "4")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == ["tiny,", "step", "10", "other,", "step", "10"]
    result = sri(*words, "--recorded", "--table", "markdown")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    names = [row.split("|")[1].split(", ")[-1].strip() for row in rows[2:]]
    assert sorted(names) == ["other", "tiny"]
