"""Curves of a training, drawn with Pillow alone: lines, axes, a goal.

Coordinates are in pixels of the finished picture; everything is drawn larger and scaled down,
so that lines are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from sri_cli.plotting.grid import INK, PAPER, Picture, font
from sri_cli.plotting.palette import slot_colours

OVERSAMPLING = 3
FRAME = (62, 30, 14, 34)  # left, top, right, bottom margins, px
FAINT = (225, 225, 225)
GOAL = (120, 120, 120)
LINE_ORDER = (4, 0, 2, 5, 6, 7, 8)  # slot colours that show well as lines on white

Series = Mapping[str, Sequence[tuple[float, float | None]]]


class Axis(NamedTuple):
    """A range of values and where they lie, in px; `log` in decades."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value; one beyond the range is drawn at its edge."""
        share = (self._scaled(value) - self.low) / (self.high - self.low)
        share = min(1.0, max(0.0, share))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the range."""
        if self.log:
            decades = range(math.ceil(self.low), math.floor(self.high) + 1)
            if len(decades) < 2:
                values = [
                    m * 10.0**e
                    for e in range(math.floor(self.low), decades.stop)
                    for m in (1, 2, 5)
                ]
                return [v for v in values if self.low <= math.log10(v) <= self.high]
            return [10.0**e for e in decades[:: max(1, math.ceil(len(decades) / 5))]]
        step = nice_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


def curve_picture(
    series: Series,
    title: str,
    *,
    goal: float | None = None,
    log_y: bool = False,
    width: int = 460,
    height: int = 250,
) -> Picture:
    """One chart: lines of (step, value), None or non-finite values leave a gap.

    `goal` is a dashed line with its value. Without any value the chart says so.
    """
    points = {name: [p for p in line if drawable(p[1], log_y)] for name, line in series.items()}
    points = {name: line for name, line in points.items() if line}
    canvas = Canvas(width, height)
    canvas.text((8, 6), title)
    if not points:
        canvas.text((FRAME[0], height / 2), "no values recorded yet")
        return canvas.picture()
    x, y = axes(points, goal, log_y, width, height)
    _draw_frame(canvas, x, y)
    colours = slot_colours(max(LINE_ORDER) + 1)
    legend = []
    for i, (name, line) in enumerate(points.items()):
        colour = tuple(int(c) for c in colours[LINE_ORDER[i % len(LINE_ORDER)]])
        canvas.line([(x.place(s), y.place(v)) for s, v in line if v is not None], colour)
        legend.append((name, colour))
    if goal is not None and drawable(goal, log_y):
        canvas.dashed((x.start, x.end), y.place(goal))
        legend.append((f"goal {goal:g}", GOAL))
    right = x.end
    for name, colour in reversed(legend):
        canvas.text((right, 8), name, colour, anchor="ra", px=12)
        right -= font(12).getlength(name) + 10
    return canvas.picture()


class Canvas:
    """A white sheet, drawn on in finished pixels, scaled down at the end."""

    def __init__(self, width: int, height: int) -> None:
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self.image = Image.new("RGB", size, PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def line(
        self, points: Sequence[tuple[float, float]], colour: tuple[int, ...], px: float = 1.7
    ) -> None:
        scaled = [(a * OVERSAMPLING, b * OVERSAMPLING) for a, b in points]
        if len(scaled) == 1:
            (a, b), r = scaled[0], 2 * OVERSAMPLING
            self.draw.ellipse((a - r, b - r, a + r, b + r), fill=colour)
            return
        self.draw.line(scaled, fill=colour, width=round(px * OVERSAMPLING), joint="curve")

    def dashed(self, across: tuple[float, float], y: float) -> None:
        for left in np.arange(across[0], across[1], 9):
            self.line([(left, y), (min(left + 5, across[1]), y)], GOAL, 1)

    def bar(
        self, foot: tuple[float, float], size: tuple[float, float], colour: tuple[int, ...]
    ) -> None:
        """A filled bar of (width, height) that stands with its middle on `foot`."""
        (x, y), (width, height) = foot, size
        box = (x - width / 2, y - height, x + width / 2, y)
        self.draw.rectangle([round(v * OVERSAMPLING) for v in box], fill=colour)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        colour: tuple[int, ...] = INK,
        anchor: str = "la",
        px: int = 13,
    ) -> None:
        place = (at[0] * OVERSAMPLING, at[1] * OVERSAMPLING)
        self.draw.text(place, text, fill=colour, font=font(px * OVERSAMPLING), anchor=anchor)

    def picture(self) -> Picture:
        size = (self.image.width // OVERSAMPLING, self.image.height // OVERSAMPLING)
        return np.asarray(self.image.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)


def nice_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not under `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def drawable(value: float | None, log_y: bool) -> bool:
    """Whether a value has a place in a chart."""
    return value is not None and math.isfinite(value) and (value > 0 or not log_y)


def axes(
    points: Series, goal: float | None, log_y: bool, width: int, height: int
) -> tuple[Axis, Axis]:
    """The ranges of drawable points, and their places in a chart of a size."""
    steps = [s for line in points.values() for s, _ in line]
    values = [v for line in points.values() for _, v in line if v is not None]
    if not log_y and len(values) > 20:
        # The first records tower over the rest: leave the top percent out of the range.
        values = sorted(values)[: max(2, math.ceil(0.97 * len(values)))]
    if goal is not None and drawable(goal, log_y):
        values.append(goal)
    scaled = [math.log10(v) for v in values] if log_y else values
    low, high = min(scaled), max(scaled)
    pad = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    left, top, right, bottom = FRAME
    x = Axis(min(0, *steps), max(*steps, 1), left, width - right)
    return x, Axis(low - pad, high + pad, height - bottom, top, log_y)


def _draw_frame(canvas: Canvas, x: Axis, y: Axis) -> None:
    for value in y.ticks():
        at = y.place(value)
        canvas.line([(x.start, at), (x.end, at)], FAINT, 1)
        canvas.text((x.start - 6, at), f"{value:g}", anchor="rm", px=11)
    for value in x.ticks():
        at = x.place(value)
        canvas.line([(at, y.start), (at, y.end)], FAINT, 1)
        canvas.text((at, y.start + 5), f"{value:g}", anchor="ma", px=11)
    canvas.text((x.end, y.start + 19), "step", anchor="ra", px=11)
