"""Where the blocks of a tower touch, and whether a tower would stand by statics.

Blocks are compared as flat shapes, seen from above. Lengths in metres, z up; towers are lists of
blocks from the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sri_cli.data.simulate.stacking import CYLINDER, LYING_CYLINDER, SPHERE, Block

TOUCH_M = 1e-3
_NO_OVERLAP_M = 1e-6  # two points on each other, within the rounding errors of a tower's sums
_EDGE_M = 0.05  # a ball touches the block below at least this far inside its edge
_TURNS = np.deg2rad(np.arange(0, 180, 5))
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


@dataclass(frozen=True)
class Footprint:
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


def contact_area(block: Block) -> Footprint:
    """The part of a block that touches its neighbours: its surface, line or point."""
    return Footprint(block.position[:2], block.half_surface, block.yaw_deg, block.shape == CYLINDER)


def outline(block: Block) -> Footprint:
    """The whole block, as seen from above."""
    x, y, length = (e / 2 for e in block.extent)
    half = (x, length) if block.shape == LYING_CYLINDER else (x, y)
    return Footprint(block.position[:2], half, block.yaw_deg, block.shape in (CYLINDER, SPHERE))


def overlap_m(one: Footprint, other: Footprint) -> float:
    """The shortest shift that would separate the two; below 0 the distance between them."""
    apart = np.subtract(other.centre, one.centre)
    length = float(np.hypot(*apart))
    between = [apart[None] / length] if length > 0 else []
    directions = np.concatenate([_CIRCLE, one.axes, other.axes, *between])
    depth = one.reach(directions) + other.reach(directions) - np.abs(directions @ apart)
    return float(depth.min())


def is_connected(blocks: Sequence[Block], min_overlap_m: float) -> bool:
    """Whether the lowest block rests on the floor and every other on the one below.

    Surfaces must overlap by `min_overlap_m`; a ball's point or a lying cylinder's line must be well
    inside a surface, or on another point or line.
    """
    if abs(blocks[0].bottom_m) > TOUCH_M:
        return False
    for lower, upper in zip(blocks, blocks[1:], strict=False):
        min_overlap = (-_NO_OVERLAP_M, _EDGE_M, min_overlap_m)[lower.is_flat + upper.is_flat]
        overlap = overlap_m(contact_area(lower), contact_area(upper))
        if abs(upper.bottom_m - lower.top_m) > TOUCH_M or overlap < min_overlap:
            return False
    return True


def is_balanced(blocks: Sequence[Block]) -> bool:
    """Whether a connected tower would stand, by statics.

    The centre of mass of everything above a block must lie inside the surface that carries it.
    Nothing stands on a ball or a lying cylinder; on top they stay where they are.
    """
    mass, com = 0.0, np.zeros(2)
    for lower, upper in zip(reversed(blocks[:-1]), reversed(blocks), strict=False):
        com = (com * mass + np.array(upper.position[:2]) * upper.volume_m3) / (
            mass + upper.volume_m3
        )
        mass += upper.volume_m3
        point = Footprint((float(com[0]), float(com[1])), (0.0, 0.0))
        surfaces = [contact_area(block) for block in (lower, upper) if block.is_flat]
        if not lower.is_flat or any(overlap_m(point, surface) <= 0 for surface in surfaces):
            return False
    return True
