"""A table of a sheet, typeset as in print: rules above, under the header and below. In units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from sri_cli.plotting.sheet import Grid
from sri_cli.plotting.sheet_parts import Box, Line, Part, Text
from sri_cli.plotting.sheet_text import LABEL, LEADING, NOTE, width_of, wrapped

CELL_WIDTH, WORDS_WIDTH = 132.0, 190.0  # of a column, at most
PADDING, ROW_GAP = 14, 5  # between columns and between rows
HEAVY, LIGHT = 1.2, 0.6  # rules
TINT = (232, 241, 250)
NOTES_WIDTH = 420  # of the notes, at least

Cells = list[list[list[str]]]  # rows of columns of lines


def place_table(table: Grid, captions: bool, widest: float) -> tuple[list[Part], float, float]:
    """Its parts, the left upper corner at 0, 0; width and height."""
    cells, widths = _cells(table)
    width = sum(widths) + PADDING * len(widths)
    parts: list[Part] = [Line([(0, 0), (width, 0)], width=HEAVY)]
    y = float(ROW_GAP)
    if any(table.spans):
        parts += _spans(table.spans, widths, y)
        y += LABEL * LEADING + ROW_GAP
    for i, row in enumerate(cells):
        height = max(len(lines) for lines in row) * LABEL * LEADING
        if i in table.marked:
            parts.append(Box(0, y - ROW_GAP / 2, width, height + ROW_GAP, TINT))
        parts += _row(row, widths, y, table.words, i == 0)
        y += height + ROW_GAP
        if i == 0:
            parts.append(Line([(0, y - ROW_GAP / 2), (width, y - ROW_GAP / 2)], width=LIGHT))
    parts.append(Line([(0, y), (width, y)], width=HEAVY))
    y += 8
    for note in table.notes if captions else ():
        for line in wrapped(note, NOTE, min(widest, max(width, NOTES_WIDTH))):
            parts.append(Text(0, y, line, NOTE))
            width = max(width, width_of(line, NOTE))
            y += NOTE * LEADING
        y += 2
    return parts, math.ceil(width), math.ceil(y)


def _cells(table: Grid) -> tuple[Cells, list[float]]:
    """Every cell in lines, and the widths of the columns."""
    cells: Cells = []
    for i, row in enumerate(table.rows):
        cells.append([])
        for j, text in enumerate(row):
            room = WORDS_WIDTH if j < table.words else CELL_WIDTH
            cells[-1].append(wrapped(text, LABEL, room, _weight(i == 0)) or [""])
    widths = [
        max(
            width_of(line, LABEL, _weight(i == 0)) for i, row in enumerate(cells) for line in row[j]
        )
        for j in range(len(table.rows[0]))
    ]
    for name in set(filter(None, table.spans)):
        columns = [j for j, span in enumerate(table.spans) if span == name]
        lacking = width_of(name, LABEL, "bold") - sum(widths[j] + PADDING for j in columns)
        for j in columns:
            widths[j] += max(0.0, lacking) / len(columns)
    return cells, widths


def _row(
    row: Sequence[Sequence[str]], widths: Sequence[float], y: float, words: int, header: bool
) -> list[Part]:
    """Words at the left, numbers at the right of their columns."""
    parts: list[Part] = []
    left = PADDING / 2
    for j, (lines, width) in enumerate(zip(row, widths, strict=True)):
        for k, line in enumerate(lines):
            at = y + k * LABEL * LEADING
            if j < words:
                parts.append(Text(left, at, line, LABEL, weight=_weight(header)))
            else:
                parts.append(Text(left + width, at, line, LABEL, "right", weight=_weight(header)))
        left += width + PADDING
    return parts


def _spans(spans: Sequence[str], widths: Sequence[float], y: float) -> list[Part]:
    """A heading over neighbouring columns, with a rule under it."""
    parts: list[Part] = []
    left = 0.0
    for name, columns in groupby(zip(spans, widths, strict=True), lambda pair: pair[0]):
        width = sum(own + PADDING for _, own in columns)
        if name:
            parts.append(Text(left + width / 2, y, name, LABEL, "center", weight="bold"))
            level = y + LABEL * LEADING + 1
            ends = (left + PADDING / 2, left + width - PADDING / 2)
            parts.append(Line([(end, level) for end in ends], width=LIGHT))
        left += width
    return parts


def _weight(header: bool) -> str:
    return "bold" if header else "normal"
