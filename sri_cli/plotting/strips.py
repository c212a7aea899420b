"""Scenes before and after an edit: rows of images, each above its masks in slot colours.

Axis legend: S picture side; pictures are uint8 [S,S,3].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sri_cli.plotting.grid import Picture, below, beside, caption, draw_text, enlarge, font
from sri_cli.plotting.palette import slot_colours

CELL_PX = 80  # at least
SWATCH_PX = 5
ROW_GAP = 12
LABEL_GAP = 12


@dataclass(frozen=True)
class Tile:
    """An image and its masks, or an image alone."""

    image: Picture
    masks: Picture | None = None


@dataclass(frozen=True)
class TileColumn:
    """A headed column: one tile per row (None: nothing there), and the slots it is about."""

    text: str
    tiles: Sequence[Tile | None]
    slots: tuple[int, ...] = ()


def strip_figure(
    labels: Sequence[Sequence[str]], columns: Sequence[TileColumn], text: str = ""
) -> Picture:
    """Columns from left to right; `labels` (lines of text) stand before the rows."""
    tile = next(t for column in columns for t in column.tiles if t is not None)
    size = tile.image.shape[0]
    scale = max(1, -(-CELL_PX // size))
    height = 2 * size * scale + 1
    width = LABEL_GAP + math.ceil(max(font().getlength(line) for label in labels for line in label))
    names = [_fit(draw_text(lines, width), height, width) for lines in labels]
    drawn = [below([_header("", width, ()), below(names, ROW_GAP)], gap=0)]
    for column in columns:
        cells = [_cell(t, size * scale, scale) for t in column.tiles]
        drawn.append(
            below([_header(column.text, size * scale, column.slots), below(cells, ROW_GAP)], gap=0)
        )
    return caption(beside(drawn, gap=3), text)


def _cell(tile: Tile | None, px: int, scale: int) -> Picture:
    """An image above its masks; white where there is none."""
    parts = (tile.image, tile.masks) if tile is not None else (None, None)
    return below([_blank(px, px) if p is None else enlarge(p, scale) for p in parts], gap=1)


def _header(text: str, width: int, slots: Sequence[int]) -> Picture:
    """Words, and under them a bar in the slots' colours."""
    bar = _blank(SWATCH_PX + 2, width)
    if slots:
        colours = slot_colours(max(slots) + 1)[list(slots)]
        bar[:SWATCH_PX] = colours[np.arange(width) * len(slots) // width]
    return np.concatenate([_fit(draw_text([text], width), 18, width), bar], axis=0)


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 255, np.uint8)


def _fit(picture: Picture, height: int, width: int) -> Picture:
    """The picture in the top left corner of a sheet of that size, cut where it is larger."""
    sheet = _blank(height, width)
    part = picture[:height, :width]
    sheet[: part.shape[0], : part.shape[1]] = part
    return sheet
