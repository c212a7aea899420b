"""What is drawn: pictures, words, lines, boxes, with their places in units.

x grows to the right, y downwards; a part's place is its left upper corner unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sri_cli.plotting.grid import INK, Picture

Colour = tuple[int, int, int]


class Image(NamedTuple):
    """A picture uint8 [H,W,3], enlarged or reduced to width x height."""

    x: float
    y: float
    width: float
    height: float
    picture: Picture


class Text(NamedTuple):
    """A line of words; x is its left end, middle or right end, y the top of its line."""

    x: float
    y: float
    text: str
    size: float
    across: Literal["left", "center", "right"] = "left"
    colour: Colour = INK
    weight: str = "normal"


class Line(NamedTuple):
    """Straight from point to point; `dashes`: lengths drawn and left out, none for a solid line."""

    points: Sequence[tuple[float, float]]
    colour: Colour = INK
    width: float = 0.8
    dashes: tuple[float, ...] = ()


class Box(NamedTuple):
    """A filled box."""

    x: float
    y: float
    width: float
    height: float
    colour: Colour


Part = Image | Text | Line | Box


def moved(part: Part, right: float, down: float) -> Part:
    """The same somewhere else."""
    if isinstance(part, Line):
        return part._replace(points=[(x + right, y + down) for x, y in part.points])
    return part._replace(x=part.x + right, y=part.y + down)
