"""Films: even sides, the right frames, rates and sizes when read back, GIFs that keep the time."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageSequence

from sri_cli.plotting.video import Film, Walks, even, gif_bytes, missing_encoder, mp4_bytes


def walks(frames: int = 12, count: int = 3, size: int = 32, title: str = "") -> Walks:
    """Squares of their own colour, each moving its own way; masks are the negative."""
    images = np.zeros((frames, count, size, size, 3), np.uint8)
    for frame in range(frames):
        for i in range(count):
            row, column = (frame + 5 * i) % (size - 8), (2 * frame) % (size - 8)
            images[frame, i, row : row + 8, column : column + 8] = (60 * i + 80, 200, 255 - 60 * i)
    return Walks(images, 255 - images, title)


def test_every_frame_shows_every_walk_beside_its_masks() -> None:
    made = walks()
    film = Film([made])
    assert len(film) == 12 and len(list(film)) == 12
    frame = film[5]
    assert frame.shape == (2 * 128 + 4, 2 * 2 * 128 + 4, 3)
    assert np.array_equal(frame[:128:4, :128:4], made.images[5, 0])
    assert np.array_equal(frame[132::4, 128:256:4], made.masks[5, 2])
    assert np.array_equal(film[-1], film[11])
    with pytest.raises(IndexError):
        film[12]


def test_one_walk_is_shown_larger_and_models_stand_beside_one_another() -> None:
    assert Film([Walks(walks(count=1).images)])[0].shape == (256, 256, 3)
    both = Film([walks(title="one"), walks(size=64, title="the other")])[0]
    assert both.shape[0] % 2 == 0 and both.shape[1] % 2 == 0
    assert both.shape[1] > 2 * 516


def test_odd_sides_become_even_and_nothing_else_changes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert even(picture).shape == (6, 8, 3)
    assert np.array_equal(even(picture)[:5, :7], picture)
    assert even(even(picture)).shape == (6, 8, 3)


def test_an_mp4_has_the_frames_rate_and_size_that_were_asked_for() -> None:
    assert missing_encoder() is None
    film = Film([walks()])
    content = mp4_bytes(film, 20)
    read = iio.imread(content, extension=".mp4", plugin="FFMPEG")
    assert read.shape == (12, *film[0].shape)
    facts = iio.immeta(content, extension=".mp4", plugin="FFMPEG")
    assert (facts["fps"], facts["codec"], facts["pix_fmt"].split("(")[0]) == (20, "h264", "yuv420p")
    differences = [np.abs(read[i].astype(int) - film[i]).mean() for i in range(12)]
    assert max(differences) < 6  # of 255: colours are halved in size, pictures are not


def test_an_mp4_that_ffmpeg_could_not_finish_is_an_error(
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    film = Film([walks()])
    whole = len(mp4_bytes(film, 20))
    for size in (1000, whole // 2, whole - 10):
        with largest_file(size), pytest.raises(OSError, match="ended early"):
            mp4_bytes(film, 20)


def test_a_gif_repeats_and_lasts_as_long_as_it_should() -> None:
    film = Film([walks()])
    gif = Image.open(io.BytesIO(gif_bytes(film, 24)))
    assert gif.info["loop"] == 0 and gif.n_frames == 12
    frames = [
        (np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(gif)
    ]
    assert sum(duration for _, duration in frames) == 500
    assert {duration for _, duration in frames} == {40, 50}
    for shown, wanted in zip(frames, film, strict=True):
        assert np.abs(shown[0].astype(int) - wanted).max() <= 8


def test_the_same_film_is_the_same_gif() -> None:
    assert gif_bytes(Film([walks()]), 25) == gif_bytes(Film([walks()]), 25)
