"""Where blocks touch: the flat figures they show from above, how far two of them overlap, whether
a tower touches throughout and whether it would stand.

Lengths in metres, z up; towers are lists of blocks from the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sri_cli.data.simulate.blocks import CUBOID, CYLINDER, LYING_CYLINDER, SPHERE, Block

TOUCH_M = 1e-3
_NO_OVERLAP_M = 1e-6  # two points on each other, to what float64 keeps of a tower's sums
_EDGE_M = 0.05  # a ball touches this far inside the edge of what carries it
_TURNS = np.deg2rad(np.arange(0, 180, 5))
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


@dataclass(frozen=True)
class Figure:
    """A rectangle, disc, line or point on the floor: `half` extents along its own axes, the first
    of which points along `yaw_deg`."""

    centre: tuple[float, float]
    half: tuple[float, float]
    yaw_deg: float = 0.0
    disc: bool = False

    @property
    def axes(self) -> np.ndarray:
        """[2, 2], unit rows."""
        c, s = np.cos(np.deg2rad(self.yaw_deg)), np.sin(np.deg2rad(self.yaw_deg))
        return np.array([[c, s], [-s, c]])

    def reach(self, directions: np.ndarray) -> np.ndarray:
        """How far it extends from its centre along unit `directions` [N, 2]: [N]."""
        if self.disc:
            return np.full(len(directions), self.half[0])
        return np.abs(directions @ self.axes.T) @ np.array(self.half)


def is_flat(block: Block) -> bool:
    """Whether it touches what is above and below with a surface, not along a line or at a point."""
    return block.shape in (CUBOID, CYLINDER)


def face(block: Block) -> Figure:
    """What it touches others with, above or below: a line of a lying cylinder, a sphere's point."""
    x, y, length = (e / 2 for e in block.extent)
    half = {LYING_CYLINDER: (0.0, length), SPHERE: (0.0, 0.0)}.get(block.shape, (x, y))
    return Figure(block.position[:2], half, block.yaw_deg, block.shape == CYLINDER)


def outline(block: Block) -> Figure:
    """All of it, as seen from above."""
    x, y, length = (e / 2 for e in block.extent)
    half = (x, length) if block.shape == LYING_CYLINDER else (x, y)
    return Figure(block.position[:2], half, block.yaw_deg, block.shape in (CYLINDER, SPHERE))


def overlap_m(one: Figure, other: Figure) -> float:
    """The shortest way that would part the two; below 0 the distance between them."""
    apart = np.subtract(other.centre, one.centre)
    length = float(np.hypot(*apart))
    between = [apart[None] / length] if length > 0 else []
    directions = np.concatenate([_CIRCLE, one.axes, other.axes, *between])
    depth = one.reach(directions) + other.reach(directions) - np.abs(directions @ apart)
    return float(depth.min())


def top_m(block: Block) -> float:
    return block.position[2] + block.height_m / 2


def bottom_m(block: Block) -> float:
    return block.position[2] - block.height_m / 2


def touches(lower: Block, upper: Block, least_m: float) -> bool:
    """Whether `upper` rests on `lower`: no vertical distance, surfaces that overlap by `least_m`;
    a ball's point or a lying cylinder's line well inside a surface, or on another such."""
    if abs(bottom_m(upper) - top_m(lower)) > TOUCH_M:
        return False
    flat = is_flat(lower) + is_flat(upper)
    least = (-_NO_OVERLAP_M, _EDGE_M, least_m)[flat]
    return overlap_m(face(lower), face(upper)) >= least


def connected(blocks: Sequence[Block], least_m: float) -> bool:
    """Whether the lowest block rests on the floor and every other on the one below."""
    pairs = zip(blocks, blocks[1:], strict=False)
    return abs(bottom_m(blocks[0])) <= TOUCH_M and all(touches(*pair, least_m) for pair in pairs)


def balanced(blocks: Sequence[Block]) -> bool:
    """Whether a connected tower would stand, by statics: the centre of mass of all that a block
    carries lies inside the surface it carries it with. Nothing stands on a ball or on a lying
    cylinder; on top they stay where they are."""
    mass, com = 0.0, np.zeros(2)
    for place in range(len(blocks) - 1, 0, -1):
        upper, lower = blocks[place], blocks[place - 1]
        com = (com * mass + np.array(upper.position[:2]) * upper.volume_m3) / (
            mass + upper.volume_m3
        )
        mass += upper.volume_m3
        point = Figure((float(com[0]), float(com[1])), (0.0, 0.0))
        surfaces = [face(block) for block in (lower, upper) if is_flat(block)]
        if not is_flat(lower) or any(overlap_m(point, surface) <= 0 for surface in surfaces):
            return False
    return True
