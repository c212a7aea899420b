"""`sri walk` and its films: even sides, frames, rates and sizes when read back, what is refused."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageSequence

from sri_cli.plotting.video import Film, gif_bytes, mp4_bytes
from sri_cli.run import Workspace
from tests import small_cli
from tests.damage import largest_file

SHORT = ["--frames", "6", "--num", "2"]
sri = partial(small_cli.sri, "walk")


def walks(frames: int = 12, count: int = 3, size: int = 32) -> np.ndarray:
    """Squares of their own colour, each moving its own way."""
    images = np.zeros((frames, count, size, size, 3), np.uint8)
    for frame in range(frames):
        for i in range(count):
            row, column = (frame + 5 * i) % (size - 8), (2 * frame) % (size - 8)
            images[frame, i, row : row + 8, column : column + 8] = (60 * i + 80, 200, 255 - 60 * i)
    return images


def film() -> Film:
    images = walks()
    return Film([(images, 255 - images)])


def test_every_frame_shows_every_walk_beside_its_masks() -> None:
    assert len(film()) == 12 and len(list(film())) == 12
    frame = film()[5]
    assert frame.shape == (2 * 128 + 4, 2 * 2 * 128 + 4, 3)
    assert np.array_equal(frame[:128:4, :128:4], walks()[5, 0])
    assert np.array_equal(frame[132::4, 128:256:4], 255 - walks()[5, 2])
    assert np.array_equal(film()[-1], film()[11])


def test_one_walk_is_shown_larger_and_models_stand_side_by_side() -> None:
    assert Film([(walks(count=1), None)])[0].shape == (256, 256, 3)
    blocks = [(walks(), None), (walks(size=33), None)]
    both = Film(blocks, ["one", "the other"])[0]
    assert both.shape[0] % 2 == 0 and both.shape[1] % 2 == 0
    assert both.shape[1] > 2 * 260 and (both[:30] < 100).any()
    both = Film([(walks(), None)] * 2, ["one", "the other model, " * 6])[0]
    assert np.array_equal(both[-280:, :670], both[-280:, 682:])


def test_an_mp4_has_the_frames_rate_and_size_of_the_film() -> None:
    content = mp4_bytes(film(), 20)
    read = iio.imread(content, extension=".mp4", plugin="FFMPEG")
    assert read.shape == (12, *film()[0].shape)
    facts = iio.immeta(content, extension=".mp4", plugin="FFMPEG")
    assert (facts["fps"], facts["codec"], facts["pix_fmt"].split("(")[0]) == (20, "h264", "yuv420p")
    differences = [np.abs(read[i].astype(int) - film()[i]).mean() for i in range(12)]
    assert max(differences) < 6  # of 255: colours have half the resolution


def test_an_mp4_that_ffmpeg_could_not_finish_is_an_error() -> None:
    whole = len(mp4_bytes(film(), 20))
    for size in (1000, whole // 2, whole - 10):
        with largest_file(size), pytest.raises(OSError, match="ended early"):
            mp4_bytes(film(), 20)


def test_a_gif_repeats_and_lasts_as_long_as_it_should() -> None:
    content = gif_bytes(film(), 24)
    assert gif_bytes(film(), 24) == content
    gif = Image.open(io.BytesIO(content))
    assert gif.info["loop"] == 0 and gif.n_frames == 12
    frames = [
        (np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(gif)
    ]
    assert sum(duration for _, duration in frames) == 500
    assert {duration for _, duration in frames} == {40, 50}
    for shown, drawn in zip(frames, film(), strict=True):
        assert np.abs(shown[0].astype(int) - drawn).max() <= 8


# As a command


@pytest.fixture
def here(here: Path, workspace: Workspace) -> Path:
    return here


def test_both_files_hold_the_walks(here: Path) -> None:
    # GENESIS-v2: the scene variable of an untrained SRI moves nothing yet, and GIFs join what is
    # the same.
    result = sri("--run", "other", *SHORT, "--fps", "10", "--masks", code=0)
    files = [f"runs/other/figures/walk-001.{kind}" for kind in ("mp4", "gif")]
    assert result.stdout.splitlines()[-2:] == files
    shown = iio.imread(files[0], plugin="FFMPEG")
    assert shown.shape == (6, 128, 2 * 2 * 128 + 4, 3)
    assert iio.immeta(files[0], plugin="FFMPEG")["fps"] == 10
    gif = Image.open(files[1])
    assert (gif.size, gif.info["duration"]) == (shown.shape[2:0:-1], 100)


def test_an_encoder_that_fails_or_is_missing_is_one_error(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise RuntimeError("no ffmpeg for this machine")

    for change in (
        lambda: monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "false"),
        lambda: monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", none),
    ):
        change()
        result = sri("--frames", "2", "--num", "1", "--out", "film.mp4")
        assert result.exit_code == 1 and "--out walk.gif" in result.stderr.splitlines()[-1]
        assert not Path("film.mp4").exists()


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--out", "a.GIF"], ["a.GIF"]),
        (["--out", "new/a", "--slot", "2"], ["new/a.mp4", "new/a.gif"]),
        (["--out", "a.b.mp4", "--run", "tiny", "--run", "other"], ["a.b.mp4"]),
        (["--slot", "2"], [f"runs/tiny/figures/walk-slot-2-001.{kind}" for kind in ("mp4", "gif")]),
        (
            ["--between", "4", "9"],
            [f"runs/tiny/figures/walk-between-4-9-001.{kind}" for kind in ("mp4", "gif")],
        ),
    ],
)
def test_out_names_the_files(here: Path, words: list[str], files: list[str]) -> None:
    result = sri("--frames", "2", "--num", "1", *words, code=0)
    assert result.stdout.splitlines()[-len(files) :] == files
    assert all(Path(file).is_file() for file in files)
