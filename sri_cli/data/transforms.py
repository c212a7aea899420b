"""Crop, then resize, as the data sets' published preprocessing does: pictures by Pillow's own
filters, which average over what they shrink, and masks by the nearest pixel, so that they stay
integers.

Axes: H, W rows and columns before, S the side after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]  # first row, first column, rows, columns
Filter = Literal["bilinear", "bicubic"]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Resizing:
    """A crop (`box`, or a centred square of `centre` pixels, or the largest centred square), then
    a resize to `size` px."""

    size: int
    filter: Filter = "bilinear"
    box: Box | None = None
    centre: int | None = None

    def crop(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H,W,...] to [rows,columns,...]; ValueError when the picture is smaller than the crop."""
        height, width = array.shape[:2]
        top, left, rows, columns = self.box or centred(height, width, self.centre)
        if min(top, left) < 0 or top + rows > height or left + columns > width:
            raise ValueError(f"{width}x{height} px is smaller than the crop of {columns}x{rows}")
        return array[top : top + rows, left : left + columns]

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H,W,3] to [S,S,3]."""
        return self._resize(self.crop(image), FILTERS[self.filter])

    def labels(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H,W] to [S,S]; every value is one that was there."""
        return self._resize(self.crop(mask), Image.Resampling.NEAREST)

    def _resize(self, array: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
        if array.shape[:2] == (self.size, self.size):
            return np.ascontiguousarray(array)
        picture = Image.fromarray(np.ascontiguousarray(array))
        return np.asarray(picture.resize((self.size, self.size), how))

    def words(self) -> str:
        """What it does, for the data file's record."""
        if self.box:
            top, left, rows, columns = self.box
            crop = f"crop rows {top} to {top + rows}, columns {left} to {left + columns}"
        else:
            crop = f"centre crop {self.centre}" if self.centre else "largest centred square"
        return f"{crop}; resize to {self.size} (Pillow {self.filter}); masks nearest"


def centred(height: int, width: int, side: int | None) -> Box:
    """A centred square of `side` pixels (None: as large as it fits)."""
    side = side or min(height, width)
    return round((height - side) / 2), round((width - side) / 2), side, side
