"""A chart as marks of an inline SVG: lines and words with classes, whose colours the page decides.

So that a chart is readable on white, on black and in print. Lengths are in units of its viewBox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sri_cli.plotting.curves import FAINT, GOAL, LINE_ORDER, drawable
from sri_cli.plotting.palette import slot_colours
from sri_cli.plotting.sheet import Chart, Legend, Points
from sri_cli.plotting.sheet_chart import CHART, place_chart, place_legend
from sri_cli.plotting.sheet_parts import Colour, Line, Text

MOST_POINTS = 300  # of a line: more cannot be told apart
LEFT = 18  # of the room before the axis stays empty
ANCHORS = {"left": "start", "center": "middle", "right": "end"}
# A text's place is the top of its line, SVG's is the foot of its letters.
FOOT = 1.05


@dataclass(frozen=True)
class LineMark:
    """A polyline: its points, class and dashes as SVG writes them."""

    points: str
    look: str
    width: float
    dashes: str


@dataclass(frozen=True)
class TextMark:
    """Words at a place."""

    x: str
    y: str
    anchor: str
    text: str


@dataclass(frozen=True)
class SvgChart:
    """A chart with its caption; `alt` says in words where every line begins and ends."""

    chart: Chart

    left, width, height = LEFT, *CHART

    @property
    def caption(self) -> str:
        return self.chart.caption

    @property
    def alt(self) -> str:
        said = [_said(name, line, self.chart.log_y) for name, line in self.chart.lines.items()]
        return f"{self.caption}. {'; '.join(said)}."

    @cached_property
    def lines(self) -> list[LineMark]:
        return [_line(part) for part in self._parts if isinstance(part, Line)]

    @cached_property
    def texts(self) -> list[TextMark]:
        return [_text(part) for part in self._parts if isinstance(part, Text)]

    @cached_property
    def _parts(self) -> Sequence[object]:
        lines = {name: thinned(line) for name, line in self.chart.lines.items()}
        return place_chart(replace(self.chart, lines=lines))


def legend_marks(keys: Sequence[str]) -> list[tuple[LineMark, str]]:
    """A piece of each key's line, from 0 to 26 across at a height of 5, and the key."""
    parts = place_legend(Legend([str(index) for index, _ in enumerate(keys)]))
    pieces = [part._replace(points=[(0, 5), (26, 5)]) for part in parts if isinstance(part, Line)]
    return list(zip(map(_line, pieces), keys, strict=True))


def thinned(line: Points, most: int = MOST_POINTS) -> Points:
    """At most about `most` points: of each stretch of a longer line the least and the largest."""
    if len(line) <= most:
        return line
    stretch = -(-2 * len(line) // most)
    found: list[tuple[float, float | None]] = []
    for start in range(0, len(line), stretch):
        part = line[start : start + stretch]
        known = [point for point in part if drawable(point[1], False)]
        ends = {min(known, key=_value), max(known, key=_value)} if known else {part[0]}
        found += sorted(ends, key=lambda point: point[0])
    return found


def _value(point: tuple[float, float | None]) -> float:
    assert point[1] is not None
    return point[1]


def _said(name: str, line: Points, log_y: bool) -> str:
    known = [(step, value) for step, value in line if drawable(value, log_y)]
    if not known:
        return f"{name}: no values recorded"
    (first, began), (last, ended) = known[0], known[-1]
    return f"{name}: {began:.4g} at step {first:,}, {ended:.4g} at step {last:,}"


def _line(part: Line) -> LineMark:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in part.points)
    return LineMark(points, _look(part.colour), part.width, " ".join(map(str, part.dashes)))


def _look(colour: Colour) -> str:
    """The class of a colour: faint, goal, axis, or line-0, line-1, ... in the order of lines."""
    kept = {FAINT: "faint", GOAL: "goal"}
    if colour in kept:
        return kept[colour]
    colours = [tuple(map(int, c)) for c in slot_colours(max(LINE_ORDER) + 1)[list(LINE_ORDER)]]
    return f"line-{colours.index(colour)}" if colour in colours else "axis"


def _text(part: Text) -> TextMark:
    x, y = f"{part.x:.1f}", f"{part.y + FOOT * part.size:.1f}"
    return TextMark(x, y, ANCHORS[part.across], part.text)
