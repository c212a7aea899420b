"""Crop and resize, as in the published preprocessing of the data sets.

Images are resized by Pillow's filters, which average over what they shrink (antialiasing); masks by
the nearest pixel, so that they stay labels. Axes: H, W rows and columns before, S the side after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]  # first row, first column, rows, columns
Filter = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Resizing:
    """A crop, then a resize to `size` px.

    The crop is `box`, or a centred square of `centre` px, or the largest centred square.
    """

    size: int
    filter: Filter = "bilinear"
    box: Box | None = None
    centre: int | None = None

    def box_in(self, height: int, width: int) -> Box:
        """The crop of an image; ValueError when it is larger than the image."""
        side = self.centre or min(height, width)
        centred = (round((height - side) / 2), round((width - side) / 2), side, side)
        top, left, rows, columns = self.box or centred
        if min(top, left) < 0 or top + rows > height or left + columns > width:
            raise ValueError(f"{width}x{height} px is smaller than the crop of {columns}x{rows}")
        return top, left, rows, columns

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """[H,W,...] to [rows,columns,...]; ValueError when the crop is larger than the image."""
        top, left, rows, columns = self.box_in(*array.shape[:2])
        return array[top : top + rows, left : left + columns]

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H,W,3] to [S,S,3]."""
        return self._resize(self.crop(image), Image.Resampling[self.filter.upper()])

    def labels(self, mask: NDArray[Any]) -> NDArray[Any]:
        """uint8 or int32 [H,W] to [S,S]; every value is one of the mask's."""
        return self._resize(self.crop(mask), Image.Resampling.NEAREST)

    def restore(
        self, masks: NDArray[np.float32], height: int, width: int, outside: int
    ) -> NDArray[np.uint8]:
        """The strongest of masks [K,S,S] of a resized image, at the pixels of the image itself.

        Returns labels [H,W] from 0 to K-1, and `outside` where the crop left pixels out. The masks
        are enlarged before they are compared: borders are smooth.
        """
        top, left, rows, columns = self.box_in(height, width)
        labels = np.zeros((rows, columns), np.uint8)
        strongest = np.full((rows, columns), -np.inf, np.float32)
        for label, mask in enumerate(masks):
            if mask.shape != labels.shape:
                resized = Image.fromarray(mask).resize((columns, rows), Image.Resampling.BILINEAR)
                mask = np.asarray(resized)
            labels[mask > strongest] = label
            np.maximum(strongest, mask, out=strongest)
        whole = np.full((height, width), outside, np.uint8)
        whole[top : top + rows, left : left + columns] = labels
        return whole

    def _resize(self, array: NDArray[Any], how: Image.Resampling) -> NDArray[Any]:
        array = np.ascontiguousarray(array)
        if array.shape[:2] == (self.size, self.size):
            return array
        return np.asarray(Image.fromarray(array).resize((self.size, self.size), how))

    def describe(self) -> str:
        """What it does, for the attributes of the data file."""
        if self.box:
            top, left, rows, columns = self.box
            crop = f"crop rows {top} to {top + rows}, columns {left} to {left + columns}"
        else:
            crop = f"centre crop {self.centre}" if self.centre else "largest centred square"
        return f"{crop}; resize to {self.size} (Pillow {self.filter}); masks nearest"
