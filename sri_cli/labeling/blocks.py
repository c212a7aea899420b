"""Pictures in a terminal: two pixels in each character, the upper and the lower half of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

Picture = NDArray[np.uint8]


class Fitted(NamedTuple):
    """[H,W,3] for H / 2 rows and W columns; `reduced`: smaller than it is."""

    picture: Picture
    reduced: bool


def fit(picture: Picture, columns: int, rows: int, zoomed: bool = False) -> Fitted:
    """A square picture as large as whole factors allow in so many characters; `zoomed`: its
    middle, twice as large. Where not even the picture itself fits, means of squares of pixels."""
    room = max(1, min(columns, 2 * rows))
    size = picture.shape[0]
    if zoomed:
        part = max(1, min(size, room // max(1, 2 * (room // size))))
        first = (size - part) // 2
        picture = picture[first : first + part, first : first + part]
        size = part
    factor = room // size
    if factor:
        return Fitted(picture.repeat(factor, axis=0).repeat(factor, axis=1), False)
    smaller = Image.fromarray(np.ascontiguousarray(picture)).reduce(-(-size // room))
    return Fitted(np.asarray(smaller), True)


def half_blocks(picture: Picture) -> Text:
    """[H,W,3] as H / 2 lines (an odd last row is doubled)."""
    if len(picture) % 2:
        picture = np.concatenate([picture, picture[-1:]])
    lines = []
    for upper, lower in zip(picture[::2].tolist(), picture[1::2].tolist(), strict=True):
        line = Text(no_wrap=True)
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", _style(above, below))
        lines.append(line)
    return Text("\n").join(lines)


def _style(above: list[int], below: list[int]) -> Style:
    return Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below))
