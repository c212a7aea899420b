"""A sheet to pictures, words, lines and boxes with their places.

Lengths are in units: 1/72 inch in print, a pixel at 1x. x grows to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sri_cli.plotting.sheet import Block, Chart, Grid, Legend, Panels, Sheet
from sri_cli.plotting.sheet_chart import CHART, key_width, place_chart, place_legend
from sri_cli.plotting.sheet_panels import (
    GAP,
    LABEL_GAP,
    LABEL_WIDTH,
    cell_side,
    place_panels,
    room_of_names,
)
from sri_cli.plotting.sheet_parts import Part, Text, moved
from sri_cli.plotting.sheet_table import place_table
from sri_cli.plotting.sheet_text import (
    CAPTION,
    LABEL,
    LEADING,
    NOTE,
    TITLE,
    width_of,
    wrapped,
)

MARGIN, BLOCK_GAP = 10, 22
WIDEST, HIGHEST = 1640, 2320  # of a sheet: in print its words are still read
FEW = 5  # blocks
NARROWEST = 360  # room for a title


class Placed(NamedTuple):
    """Everything that is drawn, and the size of the sheet."""

    parts: list[Part]
    width: float
    height: float


def columns_that_fit(side: int, labelled: bool = True) -> int:
    """How many pictures stand side by side on the widest sheet."""
    room = WIDEST - 2 * MARGIN - labelled * (LABEL_WIDTH + LABEL_GAP)
    return int((room + GAP) // (cell_side(side) + GAP))


def rows_that_fit(side: int, words: int = 0) -> int:
    """How many pictures, each with lines of words, stand below each other on the highest sheet."""
    step = cell_side(side) + GAP + words * LABEL * LEADING
    return int((HIGHEST - 120 - 2 * MARGIN) // step)


def side_by_side(blocks: int, most: int) -> int:
    """How many of a number of blocks stand in a row in which there is room for `most`.

    A few fill all rows alike, so that none stands alone.
    """
    alike = (n for n in range(most, 0, -1) if blocks % n == 0)
    return max(1, next(alike, 1) if blocks <= FEW else min(most, blocks))


def flowed(blocks: Sequence[Block]) -> list[list[Block | None]]:
    """Blocks in rows, as many side by side as the widest of them lets."""
    widest = max(_block(block, True).width for block in blocks)
    most = int((WIDEST - 2 * MARGIN + BLOCK_GAP) // (widest + BLOCK_GAP))
    across = side_by_side(len(blocks), most)
    return [list(blocks[i : i + across]) for i in range(0, len(blocks), across)]


def place(sheet: Sheet, captions: bool = True) -> Placed:
    """The places of a sheet's parts; without captions only of its pictures, charts and tables."""
    rooms = _rooms(sheet.rows) if captions else {}
    blocks = [
        [None if b is None else _block(b, captions, rooms.get(j, 0)) for j, b in enumerate(row)]
        for row in sheet.rows
    ]
    widths = _column_widths([row for row in blocks if len(row) > 1])
    alone = [row[0].width for row in blocks if len(row) == 1 and row[0] is not None]
    inner = max([sum(widths) + BLOCK_GAP * (len(widths) - 1), *alone])
    inner = max(inner, NARROWEST) if captions and (sheet.title or sheet.notes) else inner
    parts: list[Part] = []
    y = float(MARGIN)
    if captions and sheet.title:
        y = math.ceil(_lines(parts, sheet.title, MARGIN, y, TITLE, inner, "bold")) + 6
    for row in blocks:
        x = float(MARGIN)
        for width, block in zip(widths or [0], row, strict=False):
            if block is not None:
                parts += [moved(part, x, y) for part in block.parts]
            x += math.ceil(width) + BLOCK_GAP
        y += math.ceil(max(block.height for block in row if block is not None)) + BLOCK_GAP
    y -= BLOCK_GAP
    if captions and sheet.notes:
        y += 10
        for note in sheet.notes:
            y = _lines(parts, note, MARGIN, y, NOTE, inner)
    return Placed(parts, math.ceil(inner + 2 * MARGIN), math.ceil(y + MARGIN))


def _rooms(rows: Sequence[Sequence[Block | None]]) -> dict[int, int]:
    """The room for names of rows in each column of blocks: pictures stand below each other."""
    rooms: dict[int, int] = {}
    for row in rows:
        for j, block in enumerate(row):
            if isinstance(block, Panels) and any(block.rows):
                rooms[j] = max(rooms.get(j, 0), room_of_names(block))
    return rooms


def _column_widths(rows: Sequence[Sequence[Placed | None]]) -> list[float]:
    """The widest block of each column."""
    across = max((len(row) for row in rows), default=0)
    columns = [[row[j] for row in rows if j < len(row)] for j in range(across)]
    return [max(block.width for block in column if block is not None) for column in columns]


def _block(block: Block, captions: bool, room: int = 0) -> Placed:
    """A block with its caption above, its left upper corner at 0, 0; `room`: for names of rows."""
    inner = _inner(block, captions, room)
    parts: list[Part] = []
    if not captions or isinstance(block, Legend) or not block.caption:
        return inner
    bottom = _lines(parts, block.caption, 0, 0, CAPTION, max(inner.width, 150), "bold") + 3
    bottom = math.ceil(bottom)  # pictures lie on whole units
    parts += [moved(part, 0, bottom) for part in inner.parts]
    width = max([inner.width, *(_right_end(p) for p in parts if isinstance(p, Text))])
    return Placed(parts, math.ceil(width), inner.height + bottom)


def _inner(block: Block, captions: bool, room: int) -> Placed:
    if isinstance(block, Chart):
        return Placed(place_chart(block), *CHART)
    if isinstance(block, Legend):
        return Placed(place_legend(block), key_width(block), math.ceil(LABEL * LEADING))
    if isinstance(block, Grid):
        return Placed(*place_table(block, captions, WIDEST - 2 * MARGIN))
    return Placed(*place_panels(block, captions, room))


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
