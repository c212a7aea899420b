"""Sound towers, some of which would fall, and the four ways in which a tower is no stack.

Flaws are sized for the camera that sees them, in pixels of a picture of 64: from LEAST_PX, just
visible, to MOST_PX, small ones oftener. At the distance of the axis a pixel is 0.12 to 0.13 m in
the original's pictures and 0.063 m in the demo's, so that the least gaps are 0.25 m and 0.13 m. To
a vertical gap comes what the far edge of the block below hides of it: up to 0.3 m where a camera
looks down by 15 degrees, 0.5 m by 20 (demo), 1.3 m by 45.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sri_cli.data.simulate.blocks import SPHERE, Block
from sri_cli.data.simulate.contact import bottom_m, connected, outline, overlap_m, top_m
from sri_cli.data.simulate.raycast import Camera
from sri_cli.data.simulate.stacking import Plan, draw_plan, stack
from sri_cli.data.simulate.stages import draw_demo_blocks

SEEN_PX = 64  # side of the picture that all sizes are meant for
LEAST_PX, MOST_PX = 2.0, 8.0
LEAST_SHARE, MOST_SHARE = 0.3, 0.6  # of the upper block's height, when it is sunk
MIN_OVERLAP_M = {"original": 0.2, "demo": 0.15}  # of two surfaces that touch: about 2 pixels
_PUSHED = {"original": 0.3, "demo": 0.6}  # share of towers; half of the original's fall anyway
_PUSH_M = (0.3, 0.9)
_SIDEWAYS_DEG = 40.0  # a block moves aside by at most so much out of the picture's plane
_OUT_M = 0.12  # both blocks of an interpenetrating pair stick out of each other so far


@dataclass(frozen=True)
class Spoilt:
    """What became of a tower: `blocks` from the bottom; `place` of the first of the sound tower's
    that is moved, or left; `size` of the flaw, in metres or a share."""

    blocks: list[Block]
    place: int
    size: float


def draw_plan_of(preset: str, flaw: str | None, rng: np.random.Generator) -> Plan:
    """What tower a scene has, drawn once, so that what is hard to show is no rarer. Without its
    base, there are two blocks left at least."""
    least = 3 if flaw == "missing-base" else 2
    if preset == "demo":
        return Plan(int(rng.integers(least, 4)))
    plan = draw_plan(rng)
    while plan.height < least:
        plan = draw_plan(rng)
    return plan


def draw_tower(preset: str, plan: Plan, rng: np.random.Generator) -> list[Block]:
    """A connected tower as its preset has them, or pushed aside at one place. Its overlaps are
    visible: it is drawn again until they are."""
    demo = preset == "demo"
    push = rng.random() < _PUSHED[preset]
    while True:
        blocks = draw_demo_blocks(plan.height, rng) if demo else stack(plan, rng)
        if push:
            place = int(rng.integers(1, plan.height))
            blocks = above_moved(blocks, place, *_sideways(rng.uniform(*_PUSH_M), rng))
        if connected(blocks, MIN_OVERLAP_M[preset]):
            return blocks


def _sideways(length: float, rng: np.random.Generator) -> tuple[float, float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return length * float(np.cos(angle)), length * float(np.sin(angle)), 0.0


def above_moved(blocks: list[Block], place: int, x: float, y: float, z: float) -> list[Block]:
    """The tower with blocks `place` (0 is the lowest) and all above it moved along."""
    return blocks[:place] + [block.moved(x, y, z) for block in blocks[place:]]


class Sight:
    """How `camera` sees one place: `away` and `right` [2] are horizontal, `slope` is the tangent
    of the angle at which it looks down there, `pixel_m` the size of a pixel of 64."""

    def __init__(self, camera: Camera, place: np.ndarray) -> None:
        way = place - camera.position
        level = float(np.hypot(way[0], way[1]))
        self.away = way[:2] / level
        self.right = np.array([self.away[1], -self.away[0]])
        self.slope = float(-way[2]) / level
        self.pixel_m = 2 * camera.half_width * float(camera.turn[2] @ way) / SEEN_PX


def _draw_place(
    blocks: list[Block], camera: Camera, rng: np.random.Generator
) -> tuple[int, Block, Block, Sight]:
    """One above the lowest, the block below it and its own, and how their border is seen."""
    place = int(rng.integers(1, len(blocks)))
    lower, upper = blocks[place - 1], blocks[place]
    border = np.array([*upper.position[:2], bottom_m(upper)])
    return place, lower, upper, Sight(camera, border)


def _pixels(rng: np.random.Generator) -> float:
    return LEAST_PX + (MOST_PX - LEAST_PX) * float(rng.random()) ** 2


def _floating(blocks: list[Block], camera: Camera, rng: np.random.Generator) -> Spoilt:
    """Lifted: the size is the vertical gap (m)."""
    place, lower, upper, sight = _draw_place(blocks, camera, rng)
    # Seen from above the lower block's far edge hides the gap, from below the upper's.
    far, near = (lower, upper) if sight.slope > 0 else (upper, lower)
    away = sight.away[None]
    hiding = np.subtract(far.position[:2], near.position[:2]) @ sight.away
    hiding += outline(far).reach(away)[0] + outline(near).reach(away)[0]
    steep = np.hypot(1, sight.slope)
    visible = _pixels(rng) * sight.pixel_m * steep
    gap = float(visible + max(0.0, hiding) * abs(sight.slope))
    return Spoilt(above_moved(blocks, place, 0, 0, gap), place, gap)


def _gapped(blocks: list[Block], camera: Camera, rng: np.random.Generator) -> Spoilt:
    """Moved aside, left or right in the picture: the size is the horizontal gap (m)."""
    place, lower, upper, sight = _draw_place(blocks, camera, rng)
    side = float(rng.choice([-1.0, 1.0])) * sight.right
    turn = np.deg2rad(rng.uniform(-_SIDEWAYS_DEG, _SIDEWAYS_DEG))
    reach = sum(float(outline(block).reach(side[None])[0]) for block in (lower, upper))
    offset = float(np.subtract(upper.position[:2], lower.position[:2]) @ side)
    visible = _pixels(rng) * sight.pixel_m
    x, y = (visible + reach - offset) * (side + np.tan(turn) * sight.away)
    moved = above_moved(blocks, place, float(x), float(y), 0)
    return Spoilt(moved, place, -overlap_m(outline(lower), outline(moved[place])))


def _interpenetrating(
    blocks: list[Block], camera: Camera, rng: np.random.Generator
) -> Spoilt | None:
    """Sunk: the size is the share of the upper block's height that is inside the lower.

    A block sunk whole looks like a lower block that rests: both must stick out of each other on the
    camera's side. Only of a ball on top is it plain that a part is missing."""
    place, lower, upper, sight = _draw_place(blocks, camera, rng)
    share = float(rng.uniform(LEAST_SHARE, MOST_SHARE))
    depth = share * upper.height_m
    if depth > 0.8 * lower.height_m:
        return None
    if upper.shape != SPHERE:
        angles = np.deg2rad(np.arange(-80, 81, 10))[:, None]
        facing = np.sin(angles) * sight.right - np.cos(angles) * sight.away
        offset = facing @ np.subtract(upper.position[:2], lower.position[:2])
        out = offset + outline(upper).reach(facing) - outline(lower).reach(facing)
        if out.max() < _OUT_M or -out.min() < _OUT_M:
            return None
    return Spoilt(above_moved(blocks, place, 0, 0, -depth), place, share)


def _missing_base(blocks: list[Block], camera: Camera, rng: np.random.Generator) -> Spoilt:
    """The lowest block away, or of four and more the lowest two, as often: the size is how high
    the others hang (m)."""
    count = int(rng.integers(1, 3)) if len(blocks) > 3 else 1
    return Spoilt(blocks[count:], count, top_m(blocks[count - 1]))


SPOIL: dict[str, Callable[[list[Block], Camera, np.random.Generator], Spoilt | None]] = {
    "floating": _floating,
    "gapped": _gapped,
    "interpenetrating": _interpenetrating,
    "missing-base": _missing_base,
}
