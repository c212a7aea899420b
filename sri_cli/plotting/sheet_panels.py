"""Pictures of a sheet in rows and columns, with their names, placed. Lengths are in units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sri_cli.plotting.palette import slot_colours
from sri_cli.plotting.sheet import Panels
from sri_cli.plotting.sheet_parts import Box, Colour, Image, Part, Text
from sri_cli.plotting.sheet_text import LABEL, LEADING, fitting_size, width_of, wrapped

CELL = 64  # a picture's side, at least
GAP, BREAK = 2, 12  # between pictures
LABEL_WIDTH = 108.0  # of a row's name, at most
LABEL_GAP = 8
SWATCH = 4


def cell_side(side: int) -> int:
    """The side of a picture of `side` pixels in units: a whole multiple."""
    return side * max(1, math.ceil(CELL / side))


def place_panels(block: Panels, captions: bool, room: int) -> tuple[list[Part], int, int]:
    """Pictures row by row; whole units everywhere, so that a pixel at 1x is a pixel."""
    side = block.picture.shape[0]
    height, width = (cell_side(side) * edge // side for edge in block.picture.shape[:2])
    parts: list[Part] = []
    left = max(room, room_of_names(block)) if captions and any(block.rows) else 0
    lefts = _lefts(block, left, width)
    top = _headings(parts, block, captions, lefts, width)
    names = math.ceil(LABEL * LEADING) if captions and block.names else 0
    step = height + GAP + names
    for i, row in enumerate(block.cells):
        y = top + i * step
        if captions and i < len(block.rows):
            _centred(parts, block.rows[i], y, height)
        for j, cell in enumerate(row):
            if cell is None:
                continue
            parts.append(Image(lefts[j], y, width, height, cell))
            if names and block.names[i][j]:
                middle = lefts[j] + width / 2
                parts.append(Text(middle, y + height + 1, block.names[i][j], LABEL, "center"))
    right = lefts[block.across - 1] + width
    return parts, right, top + len(block.cells) * step - GAP


def room_of_names(block: Panels) -> int:
    """The room that the names of the rows take."""
    lines = [line for name in block.rows for line in wrapped(name, LABEL, LABEL_WIDTH)]
    return math.ceil(max(width_of(line, LABEL) for line in lines)) + LABEL_GAP


def _lefts(block: Panels, left: int, width: int) -> list[int]:
    places = []
    for j in range(block.across):
        left += (BREAK - GAP) * (j in block.breaks)
        places.append(left)
        left += width + GAP
    return places


def _headings(
    parts: list[Part], block: Panels, captions: bool, lefts: Sequence[int], width: int
) -> int:
    """Names of the columns, and under them the colours of their slots; where the pictures begin."""
    bottom = 0.0
    if captions and any(block.columns):
        size = fitting_size(list(block.columns), LABEL, width)
        lines = [wrapped(name, size, width) for name in block.columns]
        most = max(len(each) for each in lines)
        for x, each in zip(lefts, lines, strict=False):
            for k, line in enumerate(each, start=most - len(each)):
                parts.append(Text(x + width / 2, k * size * LEADING, line, size, "center"))
        bottom = most * size * LEADING + 2
    top = math.ceil(bottom)
    if not any(slot is not None for slot in block.slots):
        return top
    for x, slot in zip(lefts, block.slots, strict=False):
        if slot is not None:
            parts.append(Box(x, top, width, SWATCH, slot_colour(slot)))
    return top + SWATCH + GAP


def slot_colour(slot: int) -> Colour:
    """The palette's colour of a slot, from 0."""
    red, green, blue = np.asarray(slot_colours(slot + 1))[slot].tolist()
    return red, green, blue


def _centred(parts: list[Part], name: str, y: float, height: float) -> None:
    lines = wrapped(name, LABEL, LABEL_WIDTH)
    first = y + (height - len(lines) * LABEL * LEADING) / 2
    for k, line in enumerate(lines):
        parts.append(Text(0, first + k * LABEL * LEADING, line, LABEL))
