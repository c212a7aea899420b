"""Grids keep every pixel where it belongs; captions only add."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sri_cli.plotting import grid as grids


def colours(n: int, h: int = 4, w: int = 5) -> np.ndarray:
    return np.stack([np.full((h, w, 3), i + 1, np.uint8) for i in range(n)])


def test_grid_places_row_by_row() -> None:
    sheet = grids.grid(colours(5), columns=3, gap=1)
    assert sheet.shape == (9, 17, 3)
    assert sheet[0, 0, 0] == 1 and sheet[0, 6, 0] == 2 and sheet[5, 0, 0] == 4
    assert (sheet[4] == 255).all() and (sheet[5:, 12:] == 255).all()


def test_grid_is_about_square_and_enlarges() -> None:
    assert grids.grid(colours(9), gap=0, scale=2).shape == (24, 30, 3)
    assert grids.grid(colours(1)).shape == (4, 5, 3)


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="N > 0"):
        grids.grid(np.zeros((0, 4, 4, 3), np.uint8))


def test_caption_keeps_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 200, 3), dtype=np.uint8)
    out = grids.caption(picture, "a long caption that needs more than a single line, simulated")
    assert np.array_equal(out[-66:-6, 6:206], picture)
    assert out[:-66].min() < 100  # some ink


def test_labelled_rows_have_one_width() -> None:
    rows = [("input", colours(3, 20, 20)), ("reconstruction", colours(3, 20, 20))]
    out = grids.labelled_rows(rows, headers=["1", "2", "3"])
    assert out.shape[0] == 18 + 2 + 20 + 2 + 20
    assert (out[20:40, -64:-44] == 1).all()


def test_png_round_trip() -> None:
    picture = grids.grid(colours(4))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(grids.png_bytes(picture)))), picture)
