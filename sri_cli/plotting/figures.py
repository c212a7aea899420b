"""Figures drawn with matplotlib: panels of images, charts and tables, as PNG or vector PDF.

`draw` gives every block axes of a fixed size, measures the text around them and moves them to whole
pixels. So image pixels stay squares of one size, and no text runs into another. Sizes are in points
(1/72 inch) unless a name says otherwise; a PNG has `scale` pixels to a point.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from sri_cli.atomic import write_atomic
from sri_cli.errors import SriError
from sri_cli.metrics.tabular import Table
from sri_cli.plotting.images import Pixels, slot_colours, wrap_text

Points = Sequence[tuple[float, float | None]]  # (step or another x, value)

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same on every machine
    "text.parse_math": False,  # a `$` in the name of a run is a `$`
    "pdf.fonttype": 42,  # text can be searched and copied
    "image.composite_image": False,
    "path.simplify": False,
}
TITLE, CAPTION, LABEL = 12.0, 10.5, 9.0  # font sizes; notes have that of labels
LEADING = 1.25  # line height over font size
INK, FAINT, GOAL = "#282828", "#e1e1e1", "#787878"

MARGIN, BLOCK_GAP = 10, 22
PAGE = (1640, 2320)  # the largest figure that is still readable in print, upright or turned
CELL = 64  # the least side of an image
GAP, BREAK = 2, 12  # between images
SWATCH = 4  # height of a bar in the colour of a slot
ROW_NAME_WIDTH = 108
LONGEST_LINE = 560  # of titles and notes, where all blocks together are narrower
LONGEST_CAPTION = 440  # the same, of a single block
CHART = (280, 150)
STEP = "step"  # the name of the x axis in training curves
LINE_SLOTS = (4, 0, 2, 5, 6, 7, 8)  # slot colours that show well as lines on white
DASHES = ("-", (0, (4, 1.6)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Panel:
    """Images of one size in rows and columns.

    Attributes:
        cells: rows of uint8 images [H,W,3]; None is an empty cell.
        caption: a heading above all.
        rows, columns: names of rows and columns.
        names: a line of text below each image.
        slots: for each column the slots that it is about, shown as a bar in their colours.
        breaks: columns with a wider gap before them.
        together: number of rows that are drawn close together, as images above their masks.
    """

    cells: Sequence[Sequence[Pixels | None]]
    caption: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    names: Sequence[Sequence[str]] = ()
    slots: Sequence[tuple[int, ...]] = ()
    breaks: frozenset[int] = frozenset()
    together: int = 1


@dataclass(frozen=True)
class Chart:
    """Lines over training steps, or another `x`; a value that is None or not finite leaves a gap.

    `goals` are dashed horizontal lines. A line has the colour of its index in `keys`, so that it
    is the same in every chart of a figure.
    """

    lines: Mapping[str, Points]
    keys: Sequence[str]
    caption: str = ""
    goals: Sequence[float] = ()
    log_y: bool = False
    x: str = STEP


@dataclass(frozen=True)
class Legend:
    """Which line is which, for all charts of a figure."""

    keys: Sequence[str]


Block = Panel | Chart | Legend | Table


def draw(
    rows: Sequence[Sequence[Block | None]],
    title: str = "",
    notes: Sequence[str] = (),
    scale: float = 2.0,
    captions: bool = True,
) -> Figure:
    """A figure of blocks in rows and columns; None is an empty cell.

    Images are enlarged by a whole factor, the nearest to `scale`. Without `captions` there is no
    text around images.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(1, 1), dpi=72 * scale, facecolor="white")
        FigureCanvasAgg(figure)
        axes = [
            [None if block is None else _axes_of(block, figure, scale, captions) for block in row]
            for row in rows
        ]
        _arrange(figure, axes, title if captions else "", notes if captions else (), scale)
    return figure


def figure_bytes(figure: Figure, kind: str = "png") -> bytes:
    """The PNG or PDF file; the same figure gives the same bytes.

    A PDF has text and lines as vectors, and images embedded pixel by pixel.
    """
    keys = ("Software",) if kind == "png" else ("Creator", "Producer", "CreationDate")
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi="figure", metadata=dict.fromkeys(keys))
    return buffer.getvalue()


def cell_side(side_px: int) -> int:
    """The side at which images of `side_px` pixels are drawn at scale 1: a whole multiple."""
    return side_px * math.ceil(CELL / side_px)


def images_that_fit(side_px: int, page: tuple[int, int] = PAGE) -> tuple[int, int]:
    """How many images stand side by side, and how many below each other, on one page."""
    step = cell_side(side_px) + GAP
    return (page[0] - ROW_NAME_WIDTH - 2 * MARGIN) // step, (page[1] - 120 - 2 * MARGIN) // step


def check_page(side_px: int, columns: int, rows: int) -> None:
    """SriError unless so many images of `side_px` pixels fit on one page, upright or turned."""
    upright, turned = images_that_fit(side_px), images_that_fit(side_px, PAGE[::-1])
    if all(columns > across or rows > down for across, down in (upright, turned)):
        across, down = upright
        raise SriError(
            f"{columns} x {rows} images of {side_px} px do not fit on a page of {across} x {down}",
            "use a smaller --num, fewer --slots, --variants or runs, or a single --slot",
        )


def check_file(path: Path | None, suffixes: Sequence[str] = (".png", ".pdf")) -> None:
    """SriError unless `path` can be a file with one of the suffixes; None: it is not given."""
    if path is not None and (path.is_dir() or path.suffix.lower() not in suffixes):
        known = " or ".join(filter(None, suffixes))
        what = "is a folder" if path.is_dir() else f"does not end in {known}"
        raise SriError(f"--out {path} {what}", f"name a file that ends in {known}")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the suffix of the file."""
    write_atomic(path, figure_bytes(figure, path.suffix.lower()[1:]))


def flowed(groups: Sequence[Sequence[Block]], most: int) -> list[list[Block | None]]:
    """Rows of at most `most` groups of blocks; a few groups fill all rows evenly."""
    even = next(n for n in range(min(most, len(groups)), 0, -1) if len(groups) % n == 0)
    across = even if len(groups) <= 5 else most
    starts = range(0, len(groups), across)
    return [[block for own in groups[i : i + across] for block in own] for i in starts]


# Blocks to axes. Until `_arrange` moves them, all axes have their lower left corner at 0, 0.


def _axes_of(block: Block, figure: Figure, scale: float, captions: bool) -> Axes:
    if isinstance(block, Panel):
        return _panel(block, figure, scale, captions)
    if isinstance(block, Chart):
        return _chart(block, figure)
    if isinstance(block, Legend):
        return _legend(block, figure)
    return _table(block, figure, captions)


def _new_axes(figure: Figure, width: float, height: float) -> Axes:
    """Axes of a size, while the figure measures one inch."""
    return figure.add_axes((0, 0, width / 72, height / 72))


def _panel(panel: Panel, figure: Figure, scale: float, captions: bool) -> Axes:
    height, width = next(c for row in panel.cells for c in row if c is not None).shape[:2]
    times = max(1, round(cell_side(width) / width * scale))  # px of the PNG for a pixel
    points = times / scale
    step_x = width + max(1, round(GAP / points))
    step_y = height + max(1, round(GAP / points))
    wider = round((BREAK - GAP) / points)
    names = math.ceil(LABEL * LEADING / points) if captions and panel.names else 0

    columns = max(len(row) for row in panel.cells)
    lefts = [j * step_x + wider * sum(b <= j for b in panel.breaks) for j in range(columns)]
    tops = [
        i * (step_y + names) + (i // panel.together) * wider * (panel.together > 1)
        for i in range(len(panel.cells))
    ]
    mosaic = np.full((tops[-1] + height, lefts[-1] + width, 3), 255, np.uint8)
    for top, row in zip(tops, panel.cells, strict=True):
        for left, cell in zip(lefts, row, strict=False):
            if cell is not None:
                mosaic[top : top + height, left : left + width] = cell

    axes = _new_axes(figure, mosaic.shape[1] * points, mosaic.shape[0] * points)
    axes.set_axis_off()
    # Row 0 is at the top; flipped twice, so that a PDF embeds the image upright.
    axes.imshow(
        mosaic[::-1],
        interpolation="none",
        aspect="auto",
        origin="lower",
        extent=(0, mosaic.shape[1], mosaic.shape[0], 0),
    )
    above = _slot_bars(axes, panel.slots, lefts, width, points)
    if not captions:
        return axes
    above += _headings(
        axes, panel.columns, [left + width / 2 for left in lefts], width * points, above
    )
    row_lines = [_wrapped(name, LABEL, ROW_NAME_WIDTH) for name in panel.rows]
    beside = max((_width(line, LABEL) + 7 for lines in row_lines for line in lines), default=0.0)
    _caption(axes, panel.caption, above + 5, -beside)
    for lines, top in zip(row_lines, tops, strict=False):
        _note(axes, "\n".join(lines), (0, top + height / 2), (-7, 0), ha="right", va="center")
    for row_names, top in zip(panel.names, tops, strict=False):
        for name, left in zip(row_names, lefts, strict=False):
            _note(axes, name, (left + width / 2, top + height), (0, -1.5), ha="center", va="top")
    return axes


def _slot_bars(
    axes: Axes, slots: Sequence[tuple[int, ...]], lefts: Sequence[int], width: int, points: float
) -> float:
    """Bars in the colours of slots above the columns; the height that they take."""
    if not any(slots):
        return 0
    bottom, height = -(SWATCH + GAP) / points, SWATCH / points
    for own, left in zip(slots, lefts, strict=False):
        for i, slot in enumerate(own):
            corner = (left + i * width / len(own), bottom)
            colour = slot_colours(slot + 1)[slot] / 255
            bar = Rectangle(corner, width / len(own), height, color=colour, lw=0, clip_on=False)
            axes.add_patch(bar)
    return SWATCH + GAP


def _headings(
    axes: Axes, names: Sequence[str], centres: Sequence[float], width: float, above: float
) -> float:
    """Names above the columns; the height that they take."""
    lines = [_wrapped(name, LABEL, width + 2 * GAP) for name in names]
    for own, centre in zip(lines, centres, strict=False):
        for k, line in enumerate(reversed(own)):
            offset = (0, above + 4 + k * LABEL * LEADING)
            _note(axes, line, (centre, 0), offset, ha="center")
    return max((len(own) for own in lines), default=0) * LABEL * LEADING + 2 * bool(lines)


def _caption(
    axes: Axes, text: str, above: float, left: float = 0.0, least: float = LONGEST_CAPTION
) -> None:
    """A bold heading above the axes, `left` right of their left side. It has the width of the axes,
    or `least` points."""
    width = max(axes.get_position().width * 72, least)
    lines = "\n".join(_wrapped(text, CAPTION, width, "bold"))
    _note(axes, lines, (0, 1), (left, above), "axes fraction", size=CAPTION, weight="bold")


def _note(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    coordinates: str = "data",
    **style: Any,
) -> None:
    """Text at data coordinates, moved by points."""
    default: Any = {"size": LABEL, "color": INK, "linespacing": LEADING, "va": "baseline"}
    default |= {"textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, at, offset, coordinates, **default | style)


def _chart(chart: Chart, figure: Figure) -> Axes:
    axes = _new_axes(figure, *CHART)
    values = []
    for name, line in chart.lines.items():
        steps, drawn = np.array([(s, np.nan if v is None else v) for s, v in line], float).T
        drawn[~np.isfinite(drawn) | (chart.log_y & (drawn <= 0))] = np.nan
        values.append(drawn[np.isfinite(drawn)])
        marker = "." if len(values[-1]) == 1 else ""
        axes.plot(steps, drawn, marker=marker, **_line_style(chart.keys.index(name)))
    for goal in chart.goals:
        axes.axhline(goal, color=GOAL, lw=1, ls=(0, (4, 3)))
    if chart.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(*_y_range(np.concatenate(values), chart))
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=LABEL, labelcolor=INK, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(chart.x, size=LABEL, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if chart.log_y:
        low, high = axes.get_ylim()
        subs = (1.0,) if high / low > 30 else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
        axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _caption(axes, chart.caption, 6, least=0)  # charts stand beside each other
    return axes


def _y_range(values: NDArray[np.float64], chart: Chart) -> tuple[float, float]:
    """The range of a linear axis; of many steps the top 3 % may leave it, as the first do."""
    if chart.x == STEP and len(values) > 20:
        values = np.sort(values)[: math.ceil(0.97 * len(values))]
    shown = [*values.tolist(), *chart.goals] or [0.0, 1.0]
    margin = 0.06 * (max(shown) - min(shown)) or 0.5 * abs(max(shown)) or 0.5
    return min(shown) - margin, max(shown) + margin


def _line_style(index: int) -> dict[str, Any]:
    """Colour, dashes and width of line number `index`; lines differ in dashes too, not in colour
    alone."""
    slot = LINE_SLOTS[index % len(LINE_SLOTS)]
    dashes = DASHES[index % len(DASHES)]
    return {"color": slot_colours(slot + 1)[slot] / 255, "ls": dashes, "lw": 1.5}


def _legend(legend: Legend, figure: Figure) -> Axes:
    axes = _new_axes(figure, 1, 1)
    axes.set_axis_off()
    lines = [Line2D([], [], **_line_style(i)) for i in range(len(legend.keys))]
    axes.legend(
        lines,
        legend.keys,
        loc="lower left",
        bbox_to_anchor=(0, 0),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        ncols=min(len(lines), 4),
        fontsize=LABEL,
        handlelength=3,
    )
    return axes


PADDING, ROW_GAP = 14.0, 5.0  # between columns and between rows of a table
NUMBERS_WIDTH, WORDS_WIDTH = 90.0, 110.0  # of a column, at most
TINT = "#e8f1fa"


def _table(table: Table, figure: Figure, captions: bool) -> Axes:
    """As in print: rules above, under the header and below."""
    cells = [
        [_cell_lines(text, j < table.left, _weight(i)) for j, text in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    widths = [
        max(_width(line, LABEL, _weight(i)) for i, row in enumerate(cells) for line in row[j])
        for j in range(len(cells[0]))
    ]
    lefts = np.cumsum([0.0, *(width + PADDING for width in widths)])
    heights = [max(len(lines) for lines in row) * LABEL * LEADING + ROW_GAP for row in cells]
    bottoms = ROW_GAP / 2 + np.cumsum(heights)

    axes = _new_axes(figure, lefts[-1], bottoms[-1])
    axes.set_axis_off()
    axes.set(xlim=(0, lefts[-1]), ylim=(bottoms[-1], 0))
    for level, weight in ((0.0, 1.2), (bottoms[0], 0.6), (bottoms[-1], 1.2)):
        axes.plot((0, lefts[-1]), (level, level), color=INK, lw=weight, clip_on=False)
    for i, (row, bottom, height) in enumerate(zip(cells, bottoms, heights, strict=True)):
        top = bottom - height
        if i in table.marked:
            axes.add_patch(Rectangle((0, top), lefts[-1], height, color=TINT, lw=0))
        for j, lines in enumerate(row):
            x = lefts[j] + PADDING / 2 + widths[j] * (j >= table.left)
            style: Any = {"ha": "left" if j < table.left else "right", "weight": _weight(i)}
            for k, line in enumerate(lines):
                baseline = top + ROW_GAP / 2 + (k * LEADING + 1) * LABEL
                _note(axes, line, (x, baseline), (0, 0), **style)
    if captions:
        _caption(axes, table.caption, 6)
        notes = [
            line
            for note in table.notes
            for line in _wrapped(note, LABEL, max(lefts[-1], LONGEST_LINE))
        ]
        _note(axes, "\n".join(notes), (0, bottoms[-1]), (0, -8), va="top")
    return axes


def _cell_lines(text: str, is_name: bool, weight: str) -> list[str]:
    """A value, its interval and its remarks stand below each other, as do the parts of long names:
    tables are narrow, so that their text is large on a page."""
    breaks = {"; ": ";\n", " [": "\n[", " (": "\n("}
    if is_name:
        breaks = {" (": "\n("} if " (" in text else {", ": ",\n"}
    for before, after in breaks.items():
        text = text.replace(before, after)
    lines: list[str] = []
    for part in text.split("\n"):
        longer = f"{lines[-1]} {part}" if lines else part
        if is_name and lines and _width(longer, LABEL, weight) <= WORDS_WIDTH:
            lines[-1] = longer
        else:
            lines += _wrapped(part, LABEL, WORDS_WIDTH if is_name else NUMBERS_WIDTH, weight)
    return lines


def _weight(row: int) -> str:
    return "bold" if row == 0 else "normal"


# Text


def _width(text: str, size: float, weight: str = "normal") -> float:
    font = FontProperties(family=STYLE["font.family"], size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def _wrapped(text: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """Lines no wider than `width`, as far as single words allow."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return wrap_text(printable, width, lambda line: _width(line, size, weight))


# Layout


def _arrange(
    figure: Figure,
    rows: Sequence[Sequence[Axes | None]],
    title: str,
    notes: Sequence[str],
    scale: float,
) -> None:
    """Move axes to whole pixels, and set the size of the figure.

    Axes of one column share their left edge, axes of one row their upper edge. A row of a single
    block does not widen the column of the others.
    """
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    margin, gap = round(MARGIN * scale), round(BLOCK_GAP * scale)
    room = {  # px left of, right of, below and above the left upper corner
        axes: [math.ceil(max(0.0, v - 0.01)) for v in _extent(axes, renderer)]
        for axes in (axes for row in rows for axes in row if axes is not None)
    }

    def most(axes: Sequence[Axes | None], side: int) -> int:
        return max((room[a][side] for a in axes if a is not None), default=0)

    several = max(len(row) for row in rows) > 1
    columns = [
        [row[j] for row in rows if j < len(row) and (len(row) > 1 or not several)]
        for j in range(max(len(row) for row in rows))
    ]
    lefts, x = [], margin
    for column in columns:
        lefts.append(x + most(column, 0))
        x = lefts[-1] + most(column, 1) + gap
    alone = [lefts[0] + room[row[0]][1] for row in rows if len(row) == 1 and row[0] is not None]
    needed = [_width(title, TITLE, "bold"), *(_width(note, LABEL) for note in notes)]
    longest = max((_width(word, TITLE, "bold") for word in title.split()), default=0.0)
    wanted = max(longest, min(max(needed), LONGEST_LINE))  # a run's name is not broken
    width = max([x - gap, *alone, margin + math.ceil(wanted * scale)])

    texts, y = [], margin  # y: px from the top
    if title:
        lines = _wrapped(title, TITLE, (width - margin) / scale, "bold")
        texts.append((y, "\n".join(lines), TITLE, "bold"))
        y += math.ceil((len(lines) * TITLE * LEADING + 6) * scale)
    corners: dict[Axes, tuple[int, int]] = {}  # left upper, in px
    for row in rows:
        y += most(row, 3)
        corners |= {axes: (left, y) for axes, left in zip(row, lefts, strict=False) if axes}
        y += most(row, 2) + gap
    y -= gap
    lines = [line for note in notes for line in _wrapped(note, LABEL, (width - margin) / scale)]
    if lines:
        texts.append((y + round(10 * scale), "\n".join(lines), LABEL, "normal"))
        y += math.ceil((10 + len(lines) * LABEL * LEADING) * scale)

    # Pages show a PNG at 1 / scale: whole points keep its pixels whole.
    width, height = (side + margin for side in (width, y))
    width, height = (side + -side % max(1, round(scale)) for side in (width, height))
    sizes = {axes: (round(axes.bbox.width), round(axes.bbox.height)) for axes in corners}
    figure.set_size_inches(width / figure.dpi, height / figure.dpi)
    for axes, (left, top) in corners.items():
        w, h = sizes[axes]
        axes.set_position((left / width, 1 - (top + h) / height, w / width, h / height))
    for top, text, size, weight in texts:
        at = (margin / width, 1 - top / height)
        style: Any = {"size": size, "weight": weight, "linespacing": LEADING}
        figure.text(*at, text, va="top", color=INK, **style)


def _extent(axes: Axes, renderer: Any) -> tuple[float, float, float, float]:
    """How far axes and the text around them reach from the left upper corner of the axes."""
    box, height = axes.get_tightbbox(renderer), round(axes.bbox.height)
    assert box is not None
    return -box.x0, box.x1, height - box.y0, box.y1 - height
