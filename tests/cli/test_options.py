"""sample, order and eval as commands: output, messages, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from sri_cli.run import Workspace

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _here(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_sample_says_what_the_data_are() -> None:
    result = sri("sample", "--slots", "5", "--temp", "0.7", "--num", "3", "--masks")
    assert result.exit_code == 0, result.output
    assert "simulated" in result.stdout
    folder = Path(result.stdout.splitlines()[0].split(": ")[1])
    assert len(list((folder / "masks").iterdir())) == 3 * 5


def test_sample_into_the_empty_folder_one_stands_in(
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
    sampling = subprocess.Popen(
        [sys.executable, "-m", "sri_cli", "sample", "--num", "200000", "--out", "big"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob(".big.*.tmp/images/*")) and sampling.poll() is None:
        time.sleep(0.02)
    sampling.send_signal(signal.SIGTERM)
    told = sampling.communicate(timeout=60)[1].splitlines()
    assert sampling.returncode == 75, told
    assert told[-2].startswith("Error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--slots", "0"],
        ["sample", "--temp", "0"],
        ["sample", "--temp", "-1"],
        ["sample", "--num", "0"],
        ["sample", "--num", "-3"],
        ["sample", "--run", "tinny"],
        ["order", "--num", "1"],
        ["order", "--out", "."],
        ["order", "--seed", "-1"],
        ["sample", "--seed", "-1"],
        ["figure", "reconstructions", "--out", "data"],
        ["eval", "--seed", "-1"],
        ["figure", "reconstructions", "--seed", "-1"],
        ["figure", "reconstructions", "--num", "0"],
        ["figure", "reconstructions", "--split", "tests"],
        ["figure", "reconstructions", "--data", "nothing"],
        ["eval", "--num", "0"],
        ["eval", "--metrics", "fid", "--offline"],
        ["eval", "--metrics", "fid", "--inception-weights", "missing.pth"],
        ["eval", "--metrics", "fid", "--features", "random", "--num", "1"],
        ["eval", "--metrics", "stack-fd", "--num", "1"],
        ["eval", "--metrics", "ari", "--features", "random"],
        ["eval", "--features", "random"],
        ["eval", "--metrics", "fid", "--inception-weights", "data/demo-towers-32.h5"],
        ["eval", "--recorded", "--num", "5"],
        ["eval", "--metrics", "aru"],
        ["eval", "--data", "missing.h5"],
        ["eval", "--metrics", "stack-fd", "--split", "tset"],
        ["eval", "--recorded"],
        ["eval", "--images", "pictures"],
        ["eval", "--images", "missing", "--data", "demo-towers"],
        ["eval", "--images", "data", "--data", "demo-towers"],
        ["eval", "--images", "data", "--data", "demo-towers", "--metrics", "ari"],
        ["eval", "--images", "data", "--recorded"],
        ["eval", "--run", "tiny", "--images", "data", "--data", "demo-towers"],
    ],
)
def test_bad_input_is_two_lines_and_exit_2(words: list[str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = sri(*words)
    assert result.exit_code == 2
    assert result.stdout == "" and result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_json_is_one_object_and_nothing_else() -> None:
    for words in (
        ["order", "--num", "4"],
        ["eval", "--num", "1"],
        ["eval", "--num", "3", "--metrics", "ari,elbo"],
    ):
        result = sri(*words, "--json")
        assert result.exit_code == 0, result.output
        assert isinstance(json.loads(result.stdout), dict)


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


def test_a_missing_run_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = sri("eval", "--run", "tiny", "--run", "tinny", "--num", "4")
    assert result.exit_code == 2 and "tinny" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cut_checkpoint_falls_back(write_run: Callable[..., None], tmp_path: Path) -> None:
    write_run(tmp_path / "run", step=1)
    write_run(tmp_path / "run", step=2)
    weights = tmp_path / "run" / "checkpoints" / "step-000000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = sri("sample", "--run", str(tmp_path / "run"), "--num", "1")
    assert result.exit_code == 0 and "step 1," in result.stdout
    assert "step-000000002" in result.stderr
