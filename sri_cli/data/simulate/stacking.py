"""ShapeStacks' stacking rules: which towers there are, and how one is built from the top down."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sri_cli.data.simulate.blocks import CUBOID, CYLINDER, LYING_CYLINDER, SPHERE, Block

MIN_HEIGHT, MAX_HEIGHT = 2, 6
MIN_DIM_M, MAX_DIM_M = 0.5, 1.0
MAX_OFFSET = 0.5  # of the top surface's half extent
BEYOND_EDGE_M = 0.05
MAX_SHIFT_M = 2.0
NUM_COLOURS = 6

_FLAT, _ROUND = (CUBOID, CYLINDER), (LYING_CYLINDER, SPHERE)


@dataclass(frozen=True)
class Plan:
    """A tower's kind. `vcom` / `vpsf`: the object (1 = bottom) that breaks the centre-of-mass /
    planar-surface rule, 0 for none; the top object (= height) cannot break either."""

    height: int
    vcom: int = 0
    vpsf: int = 0

    @property
    def stable(self) -> bool:
        return self.vcom == 0 and self.vpsf == 0

    def name(self, kind: str, index: int) -> str:
        """The original's scenario name, e.g. env_ccs-easy-h=5-vcom=2-vpsf=0-v=1."""
        return f"env_{kind}-h={self.height}-vcom={self.vcom}-vpsf={self.vpsf}-v={index}"


def draw_plan(rng: np.random.Generator) -> Plan:
    """Heights evenly, half of the towers stable, each rule broken in half of the others."""
    height = int(rng.integers(MIN_HEIGHT, MAX_HEIGHT + 1))
    stable, com = rng.random() < 0.5, rng.random() < 0.5
    broken = int(rng.integers(1, height))
    if stable:
        return Plan(height)
    return Plan(height, vcom=broken) if com else Plan(height, vpsf=broken)


def draw_block(kinds: tuple[int, ...], rng: np.random.Generator) -> Block:
    """A block of one of `kinds`; every dimension uniform, any turn about the vertical."""
    shape = int(rng.choice(kinds))
    a, b, c = (float(v) for v in rng.uniform(MIN_DIM_M, MAX_DIM_M, 3))
    extent = {CUBOID: (a, b, c), SPHERE: (a, a, a)}.get(shape, (a, a, c))
    return Block(shape, extent, yaw_deg=float(rng.integers(0, 360)))


def _half_surface(block: Block) -> tuple[float, float]:
    """Half extents of the surface that carries the blocks above, along the block's own axes."""
    x, y, length = (e / 2 for e in block.extent)
    return {LYING_CYLINDER: (0.0, length), SPHERE: (0.0, 0.0)}.get(block.shape, (x, y))


def _offset(block: Block, breaks_com: bool, rng: np.random.Generator) -> np.ndarray:
    """Where the centre of mass of everything above lies, seen from the block's centre [2]."""
    half = np.array(_half_surface(block))
    if block.shape == CYLINDER:
        angle = rng.uniform(0, 2 * np.pi)
        radius = (
            half[0] + BEYOND_EDGE_M if breaks_com else MAX_OFFSET * half[0] * rng.random() ** 0.5
        )
        return radius * np.array([np.cos(angle), np.sin(angle)])
    if not breaks_com:
        offset = rng.uniform(-MAX_OFFSET, MAX_OFFSET, 2) * half
    else:
        beyond = np.array([(True, False), (False, True), (True, True)][rng.integers(3)])
        edge = rng.choice([-1.0, 1.0], 2) * (half + BEYOND_EDGE_M)
        offset = np.where(beyond, edge, rng.uniform(-1, 1, 2) * half)
    yaw = np.deg2rad(block.yaw_deg)
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return turn @ offset


def stack(plan: Plan, rng: np.random.Generator) -> list[Block]:
    """A tower of this kind, bottom first, standing on z = 0 somewhere near the origin.

    From the top down: each new block is put so that the centre of mass of all above it lies at
    `_offset` on its top surface.
    """
    colours = rng.permutation(NUM_COLOURS)
    blocks: list[Block] = []
    com, mass, below = np.zeros(2), 0.0, 0.0
    for place in range(plan.height, 0, -1):
        top = place == plan.height
        kinds = _FLAT + _ROUND if top else _ROUND if place == plan.vpsf else _FLAT
        block = replace(draw_block(kinds, rng), colour=int(colours[place - 1]))
        centre = com if top else com - _offset(block, place == plan.vcom, rng)
        blocks.append(block.moved(centre[0], centre[1], below - block.height_m / 2))
        com = (com * mass + centre * block.volume_m3) / (mass + block.volume_m3)
        mass += block.volume_m3
        below -= block.height_m
    shift = rng.uniform(-MAX_SHIFT_M, MAX_SHIFT_M, 2)
    return [block.moved(shift[0], shift[1], -below) for block in reversed(blocks)]
