"""`sri walk` as a user meets it: files of the right kind, size and length, messages, no encoder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import imageio.v3 as iio
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from tests.small_workspace import write_workspace

ROOT = Path(__file__).parent.parent.parent
SHORT = ["--frames", "6", "--num", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_both_files_are_written_and_hold_what_was_asked_for() -> None:
    # GENESIS-v2: the scene variable of an untrained SRI moves nothing yet, and GIFs join what is
    # the same.
    result = sri("walk", "--run", "other", *SHORT, "--fps", "10", "--masks")
    assert result.exit_code == 0, result.output
    mp4, gif = (Path(f"runs/other/figures/walk.{kind}") for kind in ("mp4", "gif"))
    assert result.stdout.splitlines()[-2:] == [f"look: {mp4}", f"look: {gif}"]
    assert "% between unrelated scenes" in result.stdout
    assert "no scene variable: the noise of all its slots moves instead" in result.stderr
    film = iio.imread(mp4, plugin="FFMPEG")
    assert film.shape == (6, 128, 2 * 2 * 128 + 4, 3)
    assert iio.immeta(mp4, plugin="FFMPEG")["fps"] == 10
    picture = Image.open(gif)
    assert (picture.size, picture.info["duration"]) == (film.shape[2:0:-1], 100)


def test_without_an_encoder_the_gif_is_written_and_the_way_out_told(tmp_path: Path) -> None:
    """In a Python in which imageio-ffmpeg cannot be imported."""
    (tmp_path / "without" / "imageio_ffmpeg").mkdir(parents=True)
    (tmp_path / "without" / "imageio_ffmpeg" / "__init__.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path / "without"), str(ROOT)])
    words = ["walk", "--run", "other", *SHORT, "--format", "mp4", "--out", "film.mp4"]
    told = subprocess.run(
        [sys.executable, "-m", "sri_cli", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "pip install imageio-ffmpeg" in told.stderr
    assert told.stdout.splitlines()[-1] == "look: film.gif"
    assert Image.open("film.gif").n_frames == 6 and not Path("film.mp4").exists()


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--out", "a.mp4"], ["a.mp4"]),
        (["--out", "a.gif"], ["a.gif"]),
        (["--out", "a", "--format", "gif"], ["a.gif"]),
        (["--out", "a.b.mp4", "--format", "both"], ["a.b.gif", "a.b.mp4"]),
        (["--out", "new/a.gif"], ["new/a.gif"]),
    ],
)
def test_out_names_the_files(words: list[str], files: list[str]) -> None:
    result = sri("walk", "--frames", "2", "--num", "1", *words)
    assert result.exit_code == 0, result.output
    assert sorted(line[6:] for line in result.stdout.splitlines() if "look: " in line) == files
    assert all(Path(file).is_file() for file in files)


def test_slot_and_between_have_files_of_their_own() -> None:
    for words in (["--slot", "2"], ["--between", "4", "9"]):
        result = sri("walk", *SHORT, "--format", "gif", *words)
        assert result.exit_code == 0, result.output
    names = sorted(path.name for path in Path("runs/tiny/figures").iterdir())
    assert names == ["walk-between-4-9.gif", "walk-slot-2.gif"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slot", "9"], "the slots 1 to 3"),
        (["--between", "0", "0"], "nothing lies between"),
        (["--run", "other", "--between", "0", "1"], "no scene variable"),
        (["--out", "a.avi"], "neither .mp4 nor .gif"),
        (["--out", "runs"], "is a folder"),
        (["--out", "a.mp4", "--format", "gif"], "is no gif"),
        (["--fps", "100"], "--fps 100: 1 to 50"),
        (["--run", "tinny"], "did you mean tiny?"),
        (["--between", "1"], "--between"),
    ],
)
def test_a_mistake_is_two_lines_and_writes_nothing(words: list[str], said: str) -> None:
    result = sri("walk", *SHORT, *words)
    assert result.exit_code == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 2 and said in result.stderr
    assert not list(Path("runs").glob("*/figures"))


def test_a_full_disk_leaves_nothing_half_written(
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    for name in ("a.gif", "a.mp4"):
        with largest_file(1000):
            result = sri("walk", *SHORT, "--out", f"films/{name}")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-2].startswith("Error: could not")
    assert list(Path("films").iterdir()) == []
