"""A chart of a sheet: axes, lines, goals, placed. Lengths are in units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from sri_cli.plotting.curves import FAINT, GOAL, LINE_ORDER, Axis, axes, drawable
from sri_cli.plotting.palette import slot_colours
from sri_cli.plotting.sheet import Chart, Legend, Points
from sri_cli.plotting.sheet_parts import Colour, Line, Part, Text, moved
from sri_cli.plotting.sheet_text import LABEL, NOTE, width_of

CHART = (330, 190)
NO_TITLE = 18  # the room for a title that a chart of a sheet does not have inside
KEY_LINE, KEY_GAP = 26, 18  # of the legend
TICK = NOTE - 1
# A second mark beside the colour: solid, dashed, dotted, dash-dotted.
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (1.5, 1.5), (8, 2, 1.5, 2))


def place_chart(chart: Chart) -> list[Part]:
    """Its parts, the left upper corner at 0, 0."""
    width, height = CHART
    points = {
        name: [point for point in line if drawable(point[1], chart.log_y)]
        for name, line in chart.lines.items()
    }
    points = {name: line for name, line in points.items() if line}
    if not points:
        return [Text(width / 2, height / 2, "no values recorded", LABEL, "center")]
    x, y = axes(points, _goal(chart.goals), chart.log_y, width, height + NO_TITLE)
    parts = list(_frame(x, y))
    for goal in chart.goals:
        level = y.place(goal)
        parts.append(Line([(x.start, level), (x.end, level)], GOAL, 1.0, (4, 3)))
    for name in points:
        look = _look(list(chart.keys or chart.lines).index(name))
        for stretch in _stretches(chart.lines[name], chart.log_y):
            parts.append(Line([(x.place(s), y.place(v)) for s, v in stretch], *look))
    return [moved(part, 0, -NO_TITLE) for part in parts]


def _goal(goals: Sequence[float]) -> float | None:
    return goals[0] if goals else None


def _look(index: int) -> tuple[Colour, float, tuple[float, ...]]:
    """Colour, width and dashes of a line."""
    red, green, blue = slot_colours(max(LINE_ORDER) + 1)[LINE_ORDER[index % len(LINE_ORDER)]]
    dashes = DASHES[index // len(LINE_ORDER) % len(DASHES) or index % len(DASHES)]
    return (int(red), int(green), int(blue)), 1.6, dashes


def _stretches(line: Points, log_y: bool) -> Iterator[list[tuple[float, float]]]:
    """The parts of a line between its gaps; a lone point becomes a dot."""
    for there, points in groupby(line, lambda point: drawable(point[1], log_y)):
        found = [(step, value) for step, value in points if value is not None]
        if there:
            yield found if len(found) > 1 else found * 2


def _frame(x: Axis, y: Axis) -> Iterator[Part]:
    for value in y.ticks():
        level = y.place(value)
        yield Line([(x.start, level), (x.end, level)], FAINT, 0.6)
        yield Text(x.start - 5, level - 0.62 * TICK, f"{value:g}", TICK, "right")
    for value in x.ticks():
        at = x.place(value)
        yield Line([(at, y.start), (at, y.end)], FAINT, 0.6)
        yield Text(at, y.start + 3, f"{value:g}", TICK, "center")
    yield Line([(x.start, y.start), (x.end, y.start)], width=0.8)
    yield Line([(x.start, y.end), (x.start, y.start)], width=0.8)
    yield Text(x.end, y.start + 3 + 1.3 * TICK, "step", TICK, "right")


def key_width(legend: Legend) -> float:
    """How wide the legend is."""
    return sum(KEY_LINE + 5 + width_of(key, LABEL) + KEY_GAP for key in legend.keys)


def place_legend(legend: Legend) -> list[Part]:
    """A piece of each line and its name, side by side."""
    parts: list[Part] = []
    left = 0.0
    for index, key in enumerate(legend.keys):
        middle = 0.62 * LABEL
        parts.append(Line([(left, middle), (left + KEY_LINE, middle)], *_look(index)))
        parts.append(Text(left + KEY_LINE + 5, 0, key, LABEL))
        left += KEY_LINE + 5 + width_of(key, LABEL) + KEY_GAP
    return parts
