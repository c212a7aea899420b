"""Crop and resize on pictures small enough to know the answer by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sri_cli.data.transforms import Resizing


def grey(*rows: list[int]) -> np.ndarray:
    """[H,W,3] with three equal channels."""
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)


def test_bilinear_averages_over_what_it_shrinks() -> None:
    # Halving, the triangle reaches a pixel beyond: weights 3, 3, 1 of 7 at the border.
    shrunk = Resizing(2).image(grey(*[[0, 0, 70, 70]] * 4))
    assert shrunk[0, :, 0].tolist() == [10, 60]
    assert (shrunk == shrunk[0]).all()


def test_bicubic_is_not_bilinear() -> None:
    shrunk = Resizing(2, "bicubic").image(grey(*[[0, 0, 70, 70]] * 4))
    assert 0 <= shrunk[0, 0, 0] < 10 and 60 < shrunk[0, 1, 0] <= 70


def test_masks_take_the_nearest_and_stay_labels() -> None:
    mask = np.array([[0, 9, 0, 2], [3, 5, 0, 7], [0, 0, 0, 0], [1, 4, 0, 6]], np.uint8)
    assert Resizing(2).labels(mask).tolist() == [[5, 7], [4, 6]]


def test_centre_crop_drops_as_much_on_every_side() -> None:
    mask = np.arange(25, dtype=np.uint8).reshape(5, 5)
    assert Resizing(3, centre=3).labels(mask).tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
    wide = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert Resizing(2).labels(wide).tolist() == [[1, 2], [5, 6]]


def test_box_is_rows_then_columns() -> None:
    mask = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert Resizing(2, box=(1, 3, 2, 2)).labels(mask).tolist() == [[8, 9], [13, 14]]


@pytest.mark.parametrize("how", [Resizing(2, centre=6), Resizing(2, box=(3, 0, 3, 3))])
def test_a_picture_smaller_than_the_crop(how: Resizing) -> None:
    with pytest.raises(ValueError, match="5x5 px is smaller than the crop"):
        how.crop(np.zeros((5, 5), np.uint8))
