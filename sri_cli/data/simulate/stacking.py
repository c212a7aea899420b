"""Towers by the stacking rules of ShapeStacks: how they are drawn, touch, and stand or fall.

Two presets. `original`: 2 to 6 blocks of all shapes, half of the towers unstable. `demo`: 2 or 3
blocks with a broad overlap, always stable.
Lengths in metres, angles in degrees, z up; towers are lists of blocks from the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np

Preset = Literal["original", "demo"]

CUBOID, CYLINDER, LYING_CYLINDER, SPHERE = range(4)
_FLAT, _ROUND = (CUBOID, CYLINDER), (LYING_CYLINDER, SPHERE)
COLOURS = np.array(  # red, green, blue, yellow, cyan, magenta
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)], float
)

MIN_HEIGHT, MAX_HEIGHT = 2, 6
MIN_DIM_M, MAX_DIM_M = 0.5, 1.0
MAX_OFFSET = 0.5  # of the top surface's half extent
BEYOND_EDGE_M = 0.05
MAX_SHIFT_M = 2.0
DEMO_MAX_HEIGHT_M = 3.3  # a taller tower would leave the image

# A tower that settles moves by millimetres; one that falls passes a tenth of a block within a
# second or two.
FALLEN_M = 0.1
# A block exactly on top of a sphere would balance for ever. This push makes it fall and does not
# harm a tower that stands.
PUSH_M_PER_S = 0.02
STEPS_PER_CHECK, NUM_CHECKS = 50, 16  # 800 steps of 3 ms: 2.4 s

TOUCH_M = 1e-3
_NO_OVERLAP_M = 1e-6  # two points on each other, within the rounding errors of a tower's sums
_EDGE_M = 0.05  # a ball touches the block below at least this far inside its edge
_TURNS = np.deg2rad(np.arange(0, 180, 5))
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


@dataclass(frozen=True)
class Block:
    """One object. `extent`: cuboid (x, y, z); cylinders (2r, 2r, length); sphere (2r, 2r, 2r), all
    along the block's own axes. `position` is that of the centre."""

    shape: int
    extent: tuple[float, float, float]
    yaw_deg: float = 0.0
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    colour: int = 0

    @property
    def height_m(self) -> float:
        """Vertical extent as it stands in the tower."""
        return self.extent[0] if self.shape == LYING_CYLINDER else self.extent[2]

    @property
    def top_m(self) -> float:
        """Height of its top above the floor."""
        return self.position[2] + self.height_m / 2

    @property
    def bottom_m(self) -> float:
        """Height of its bottom above the floor."""
        return self.position[2] - self.height_m / 2

    @property
    def is_flat(self) -> bool:
        """Whether it touches its neighbours with a surface, not along a line or at a point."""
        return self.shape in _FLAT

    @property
    def half_surface(self) -> tuple[float, float]:
        """Half extents of the surface that touches its neighbours, along the block's own axes: a
        line of a lying cylinder, a point of a sphere."""
        x, y, length = (e / 2 for e in self.extent)
        return {LYING_CYLINDER: (0.0, length), SPHERE: (0.0, 0.0)}.get(self.shape, (x, y))

    @property
    def volume_m3(self) -> float:
        """All blocks have the same density, so this is also the mass."""
        x, y, z = self.extent
        return x * y * z * {CUBOID: 1.0, SPHERE: np.pi / 6}.get(self.shape, np.pi / 4)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Orientation (w, x, y, z): a lying cylinder is tipped about x, then turned about z."""
        c, s = np.cos(np.deg2rad(self.yaw_deg) / 2), np.sin(np.deg2rad(self.yaw_deg) / 2)
        if self.shape == LYING_CYLINDER:
            h = np.sqrt(0.5)
            return (c * h, c * h, s * h, s * h)
        return (c, 0.0, 0.0, s)

    def moved(self, x: float, y: float, z: float) -> Block:
        """The block at another position."""
        px, py, pz = self.position
        return replace(self, position=(px + x, py + y, pz + z))


@dataclass(frozen=True)
class Plan:
    """A tower's kind. `vcom` / `vpsf`: the object (1 = bottom) that violates the centre-of-mass /
    planar-surface rule, 0 for none; the top object (= height) cannot violate either."""

    height: int
    vcom: int = 0
    vpsf: int = 0

    @property
    def stable(self) -> bool:
        """Whether the rules say that the tower stands."""
        return self.vcom == 0 and self.vpsf == 0

    def name(self, preset: Preset, index: int) -> str:
        """The original's scenario name, e.g. env_ccs-easy-h=5-vcom=2-vpsf=0-v=1."""
        kind = "easy" if preset == "original" else "demo"
        return f"env_ccs-{kind}-h={self.height}-vcom={self.vcom}-vpsf={self.vpsf}-v={index}"


def draw_plan(preset: Preset, rng: np.random.Generator) -> Plan:
    """Of `original`: heights uniform, half of the towers stable, each rule violated in half of the
    others."""
    if preset == "demo":
        return Plan(int(rng.integers(2, 4)))
    height = int(rng.integers(MIN_HEIGHT, MAX_HEIGHT + 1))
    stable, com = rng.random() < 0.5, rng.random() < 0.5
    violating = int(rng.integers(1, height))
    if stable:
        return Plan(height)
    return Plan(height, vcom=violating) if com else Plan(height, vpsf=violating)


def draw_blocks(preset: Preset, plan: Plan, rng: np.random.Generator) -> list[Block]:
    """A tower of this kind on the floor, near the origin."""
    return _stack(plan, rng) if preset == "original" else _stack_demo(plan.height, rng)


def _stack(plan: Plan, rng: np.random.Generator) -> list[Block]:
    """From the top down (number 1 is the lowest): each new block is placed so that the centre of
    mass of all above it lies at `_offset` on its top surface."""
    colours = rng.permutation(len(COLOURS))
    blocks: list[Block] = []
    com, mass, below = np.zeros(2), 0.0, 0.0
    for number in range(plan.height, 0, -1):
        top = number == plan.height
        shapes = _FLAT + _ROUND if top else _ROUND if number == plan.vpsf else _FLAT
        block = replace(_draw_block(shapes, rng), colour=int(colours[number - 1]))
        centre = com if top else com - _offset(block, number == plan.vcom, rng)
        blocks.append(block.moved(centre[0], centre[1], below - block.height_m / 2))
        com = (com * mass + centre * block.volume_m3) / (mass + block.volume_m3)
        mass += block.volume_m3
        below -= block.height_m
    shift = rng.uniform(-MAX_SHIFT_M, MAX_SHIFT_M, 2)
    return [block.moved(shift[0], shift[1], -below) for block in reversed(blocks)]


def _draw_block(shapes: tuple[int, ...], rng: np.random.Generator) -> Block:
    """A block of one of `shapes`; every dimension uniform, any turn about the vertical."""
    shape = int(rng.choice(shapes))
    a, b, c = (float(v) for v in rng.uniform(MIN_DIM_M, MAX_DIM_M, 3))
    return Block(shape, _extent(shape, a, b, c), yaw_deg=float(rng.integers(0, 360)))


def _extent(shape: int, a: float, b: float, c: float) -> tuple[float, float, float]:
    return {CUBOID: (a, b, c), SPHERE: (a, a, a)}.get(shape, (a, a, c))


def _offset(block: Block, violates_com: bool, rng: np.random.Generator) -> np.ndarray:
    """The centre of mass of everything above the block, relative to the block's centre [2]."""
    half = np.array(block.half_surface)
    if block.shape == CYLINDER:
        angle = rng.uniform(0, 2 * np.pi)
        if violates_com:
            radius = half[0] + BEYOND_EDGE_M
        else:
            radius = MAX_OFFSET * half[0] * rng.random() ** 0.5
        return radius * np.array([np.cos(angle), np.sin(angle)])
    if violates_com:
        beyond = np.array([(True, False), (False, True), (True, True)][rng.integers(3)])
        edge = rng.choice([-1.0, 1.0], 2) * (half + BEYOND_EDGE_M)
        offset = np.where(beyond, edge, rng.uniform(-1, 1, 2) * half)
    else:
        offset = rng.uniform(-MAX_OFFSET, MAX_OFFSET, 2) * half
    yaw = np.deg2rad(block.yaw_deg)
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return turn @ offset


def _stack_demo(height: int, rng: np.random.Generator) -> list[Block]:
    """Blocks of different colours from the bottom up; only the top may be a sphere."""
    while True:
        colours = rng.permutation(len(COLOURS))
        x, y = rng.uniform(-0.2, 0.2, 2)
        blocks, z = [], 0.0
        for level in range(height):
            shape = int(rng.choice((*_FLAT, SPHERE) if level == height - 1 else _FLAT))
            extent = _extent(shape, *(float(v) for v in rng.uniform(0.85, 1.2, 3)))
            dx, dy = rng.uniform(-0.15, 0.15, 2) * (level > 0)
            block = Block(shape, extent, float(rng.uniform(0, 180)), colour=int(colours[level]))
            blocks.append(block.moved(x + dx, y + dy, z + block.height_m / 2))
            z += block.height_m
        if z <= DEMO_MAX_HEIGHT_M:
            return blocks


_OPTIONS = (
    '<option timestep="0.003" cone="elliptic" solver="Newton" iterations="50" tolerance="1e-10"/>'
    '<default><geom solimp=".9 .9 .01"/></default>'
)


def build_tower(blocks: Sequence[Block], planes: str) -> mujoco.MjData:
    """The geoms of `planes` (MJCF geoms of the world), then the blocks at their positions."""
    bodies = "".join(_body(block) for block in blocks)
    xml = f"<mujoco>{_OPTIONS}<worldbody>{planes}{bodies}</worldbody></mujoco>"
    data = mujoco.MjData(mujoco.MjModel.from_xml_string(xml))
    mujoco.mj_kinematics(data.model, data)
    return data


def _body(block: Block) -> str:
    x, y, z = (e / 2 for e in block.extent)
    if block.shape == CUBOID:
        kind = f'type="box" size="{x!r} {y!r} {z!r}"'
    elif block.shape == SPHERE:
        kind = f'type="sphere" size="{x!r}"'
    else:
        kind = f'type="cylinder" size="{x!r} {z!r}" friction="1 0.01 0.01"'
    position = " ".join(repr(float(v)) for v in block.position)
    quaternion = " ".join(repr(float(v)) for v in block.quaternion)
    geom = f'<geom condim="6" {kind}/>'
    return f'<body pos="{position}" quat="{quaternion}"><freejoint/>{geom}</body>'


def stands(model: mujoco.MjModel) -> bool:
    """Whether no block's centre has moved by 10 cm within 2.4 s after a small push at the top."""
    data = mujoco.MjData(model)
    data.qvel[-6:-4] = PUSH_M_PER_S * np.sqrt(0.5)
    start = data.qpos.reshape(-1, 7)[:, :3].copy()
    for _ in range(NUM_CHECKS):
        mujoco.mj_step(model, data, nstep=STEPS_PER_CHECK)
        moved = np.linalg.norm(data.qpos.reshape(-1, 7)[:, :3] - start, axis=1)
        if not moved.max() < FALLEN_M:  # also true for a state that is no longer a number
            return False
    return True


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
