"""A sheet drawn: PNG at any scale, or PDF in which words and lines are vectors.

Pictures are never smoothed: in a PNG every pixel becomes a square, in a PDF they are embedded as
they are. The same sheet gives the same bytes.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text as Words

from sri_cli.errors import SriError
from sri_cli.plotting.sheet import Sheet
from sri_cli.plotting.sheet_layout import Placed, place
from sri_cli.plotting.sheet_parts import Box, Colour, Image, Line, Part, Text
from sri_cli.plotting.sheet_text import letters

UNITS_PER_INCH = 72
MOST_PX = 20_000  # of a side
# Letters stay letters, to be found and copied; the name of a font's part must not depend on the
# process.
STYLE: Any = {"pdf.fonttype": 42, "image.composite_image": False, "path.simplify": False}


def draw(sheet: Sheet, kind: str = "png", scale: float = 1.0, captions: bool = True) -> bytes:
    """The file's content; `scale` is the pixels of a PNG per unit (1/72 inch).

    SriError for a PNG too large to be a picture.
    """
    placed = place(sheet, captions)
    if kind == "png":
        _check_size(placed, scale)
    with rc_context(STYLE):
        figure = _figure(placed, UNITS_PER_INCH * scale)
        buffer = io.BytesIO()
        if kind == "pdf":
            nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
            FigureCanvasPdf(figure).print_pdf(buffer, metadata=nothing)
        else:
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _check_size(placed: Placed, scale: float) -> None:
    longest = max(placed.width, placed.height)
    if longest * scale > MOST_PX:
        raise SriError(
            f"--scale: a PNG of {placed.width * scale:.0f} x {placed.height * scale:.0f} px is too"
            f" large ({MOST_PX} px a side at most)",
            f"--scale {int(10 * MOST_PX / longest) / 10:g}x, or --format pdf, which has no pixels",
        )


def _figure(placed: Placed, dpi: float) -> Figure:
    """One pair of axes over the whole sheet, measured in its units."""
    size = (placed.width / UNITS_PER_INCH, placed.height / UNITS_PER_INCH)
    figure = Figure(figsize=size, dpi=dpi, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False)
    axes.set_axis_off()
    axes.set_xlim(0, placed.width)
    axes.set_ylim(placed.height, 0)
    for order, part in enumerate(placed.parts):
        artist = _artist(part, axes)
        artist.set_zorder(order + 1)
        if isinstance(artist, AxesImage):
            axes.add_image(artist)
        else:
            axes.add_artist(artist)
        artist.set_clip_on(False)
    return figure


def _artist(part: Part, axes: object) -> AxesImage | Line2D | Rectangle | Words:
    if isinstance(part, Image):
        # Twice upside down, as y runs downwards here: a PDF then holds the picture upright.
        extent = (part.x, part.x + part.width, part.y + part.height, part.y)
        image = AxesImage(axes, extent=extent, origin="lower", interpolation="none")  # type: ignore[arg-type]
        image.set_data(part.picture[::-1])
        return image
    if isinstance(part, Box):
        corner = (part.x, part.y)
        return Rectangle(corner, part.width, part.height, color=_colour(part.colour), linewidth=0)
    if isinstance(part, Line):
        return _line(part)
    return _words(part)


def _line(part: Line) -> Line2D:
    across, down = zip(*part.points, strict=True)
    line = Line2D(across, down, color=_colour(part.colour), linewidth=part.width)
    line.set_solid_joinstyle("round")
    if part.dashes:
        line.set_linestyle((0, tuple(length / part.width for length in part.dashes)))
    return line


def _words(part: Text) -> Words:
    # The baseline lies where the font's capitals end in a line of 1.25 sizes.
    return Words(
        part.x,
        part.y + part.size,
        part.text,
        fontproperties=letters(part.size, part.weight),
        color=_colour(part.colour),
        horizontalalignment=part.across,
        verticalalignment="baseline",
        parse_math=False,
    )


def _colour(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = (level / 255 for level in colour)
    return red, green, blue
