"""A sheet to pictures, words, lines and boxes with their places.

Lengths are in units: 1/72 inch in print, a pixel at 1x. x grows to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sri_cli.figures.palette import slot_colours
from sri_cli.figures.sheet import Block, Chart, Grid, Legend, Panels, Sheet
from sri_cli.figures.sheet_chart import CHART, key_width, place_chart, place_legend
from sri_cli.figures.sheet_parts import Box, Colour, Image, Part, Text, moved
from sri_cli.figures.sheet_table import place_table
from sri_cli.figures.sheet_text import (
    CAPTION,
    LABEL,
    LEADING,
    NOTE,
    TITLE,
    fitting_size,
    width_of,
    wrapped,
)

CELL = 64  # a picture's side, at least
GAP, BREAK = 2, 12  # between pictures
MARGIN, BLOCK_GAP = 10, 22
LABEL_WIDTH = 108.0  # of a row's name, at most
SWATCH = 4
WIDEST, HIGHEST = 1640, 2320  # of a sheet: in print its words are still read
NARROWEST = 360  # room for a title


class Placed(NamedTuple):
    """Everything that is drawn, and the size of the sheet."""

    parts: list[Part]
    width: float
    height: float


def cell_side(side: int) -> int:
    """The side of a picture of `side` pixels in units: a whole multiple."""
    return side * max(1, math.ceil(CELL / side))


def columns_that_fit(side: int, labelled: bool = True) -> int:
    """How many pictures stand side by side on the widest sheet."""
    room = WIDEST - 2 * MARGIN - labelled * (LABEL_WIDTH + 8)
    return int((room + GAP) // (cell_side(side) + GAP))


def rows_that_fit(side: int, words: int = 0) -> int:
    """How many pictures, each with lines of words, stand below each other on the highest sheet."""
    step = cell_side(side) + GAP + words * LABEL * LEADING
    return int((HIGHEST - 120 - 2 * MARGIN) // step)


def flowed(blocks: Sequence[Block]) -> list[list[Block | None]]:
    """Blocks in rows, as many side by side as the widest of them lets."""
    widest = max(_block(block, True).width for block in blocks)
    across = max(1, int((WIDEST - 2 * MARGIN + BLOCK_GAP) // (widest + BLOCK_GAP)))
    return [list(blocks[i : i + across]) for i in range(0, len(blocks), across)]


def place(sheet: Sheet, captions: bool = True) -> Placed:
    """The places of a sheet's parts; without captions only of its pictures, charts and tables."""
    blocks = [[None if b is None else _block(b, captions) for b in row] for row in sheet.rows]
    widths = _column_widths([row for row in blocks if len(row) > 1])
    alone = [row[0].width for row in blocks if len(row) == 1 and row[0] is not None]
    inner = max([sum(widths) + BLOCK_GAP * (len(widths) - 1), *alone])
    inner = max(inner, NARROWEST) if captions and (sheet.title or sheet.notes) else inner
    parts: list[Part] = []
    y = float(MARGIN)
    if captions and sheet.title:
        y = _lines(parts, sheet.title, MARGIN, y, TITLE, inner, "bold") + 6
    for row in blocks:
        x = float(MARGIN)
        for width, block in zip(widths or [0], row, strict=False):
            if block is not None:
                parts += [moved(part, x, y) for part in block.parts]
            x += width + BLOCK_GAP
        y += max(block.height for block in row if block is not None) + BLOCK_GAP
    y -= BLOCK_GAP
    if captions and sheet.notes:
        y += 10
        for note in sheet.notes:
            y = _lines(parts, note, MARGIN, y, NOTE, inner)
    return Placed(parts, math.ceil(inner + 2 * MARGIN), math.ceil(y + MARGIN))


def _column_widths(rows: Sequence[Sequence[Placed | None]]) -> list[float]:
    """The widest block of each column."""
    across = max((len(row) for row in rows), default=0)
    columns = [[row[j] for row in rows if j < len(row)] for j in range(across)]
    return [max(block.width for block in column if block is not None) for column in columns]


def _block(block: Block, captions: bool) -> Placed:
    """A block with its caption above, its left upper corner at 0, 0."""
    inner = _inner(block, captions)
    parts: list[Part] = []
    if not captions or isinstance(block, Legend) or not block.caption:
        return inner
    bottom = _lines(parts, block.caption, 0, 0, CAPTION, max(inner.width, 150), "bold") + 3
    bottom = math.ceil(bottom)  # pictures lie on whole units
    parts += [moved(part, 0, bottom) for part in inner.parts]
    width = max([inner.width, *(_right_end(p) for p in parts if isinstance(p, Text))])
    return Placed(parts, math.ceil(width), inner.height + bottom)


def _inner(block: Block, captions: bool) -> Placed:
    if isinstance(block, Chart):
        return Placed(place_chart(block), *CHART)
    if isinstance(block, Legend):
        return Placed(place_legend(block), key_width(block), math.ceil(LABEL * LEADING))
    if isinstance(block, Grid):
        return Placed(*place_table(block, captions, WIDEST - 2 * MARGIN))
    return _panels(block, captions)


def _panels(block: Panels, captions: bool) -> Placed:
    """Pictures row by row; whole units everywhere, so that a pixel at 1x is a pixel."""
    side = block.picture.shape[0]
    height, width = (cell_side(side) * edge // side for edge in block.picture.shape[:2])
    parts: list[Part] = []
    left = _row_names(block, captions, height)
    lefts = _lefts(block, left, width)
    top = _headings(parts, block, captions, lefts, width)
    names = LABEL * LEADING if captions and block.names else 0
    step = height + GAP + math.ceil(names)
    for i, row in enumerate(block.cells):
        y = top + i * step
        if captions and i < len(block.rows):
            _centred(parts, block.rows[i], y, height, left - 8)
        for j, cell in enumerate(row):
            if cell is None:
                continue
            parts.append(Image(lefts[j], y, width, height, cell))
            if names and block.names[i][j]:
                middle = lefts[j] + width / 2
                parts.append(Text(middle, y + height + 1, block.names[i][j], LABEL, "center"))
    right = lefts[block.across - 1] + width
    return Placed(parts, right, top + len(block.cells) * step - GAP)


def _row_names(block: Panels, captions: bool, height: int) -> int:
    """The room that the names of the rows take."""
    if not captions or not any(block.rows):
        return 0
    lines = [line for name in block.rows for line in wrapped(name, LABEL, LABEL_WIDTH)]
    return math.ceil(max(width_of(line, LABEL) for line in lines)) + 8


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


def _centred(parts: list[Part], name: str, y: float, height: float, width: float) -> None:
    lines = wrapped(name, LABEL, LABEL_WIDTH)
    first = y + (height - len(lines) * LABEL * LEADING) / 2
    for k, line in enumerate(lines):
        parts.append(Text(0, first + k * LABEL * LEADING, line, LABEL))


def _lines(
    parts: list[Part],
    text: str,
    x: float,
    y: float,
    size: float,
    width: float,
    weight: str = "normal",
) -> float:
    """Words wrapped to a width; where they end."""
    for line in wrapped(text, size, width, weight):
        parts.append(Text(x, y, line, size, weight=weight))
        y += size * LEADING
    return y


def _right_end(text: Text) -> float:
    return text.x + width_of(text.text, text.size, text.weight) if text.across == "left" else 0
