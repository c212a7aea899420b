"""Blocks of a tower as a MuJoCo model, and whether the tower stands.

Lengths in metres, angles in degrees, z up. A block's extents are full lengths along its own axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

CUBOID, CYLINDER, LYING_CYLINDER, SPHERE = range(4)
SHAPES = ("cuboid", "cylinder", "lying cylinder", "sphere")

# One check covers a tenth of a block: a tower that settles moves by millimetres, one that falls
# passes this within a second or two.
FALLEN_M = 0.1
# A block put exactly on top of a sphere would balance for ever; this push makes it fall, and a
# tower that stands does not mind it.
PUSH_M_PER_S = 0.02
STEPS_PER_CHECK = 50
NUM_CHECKS = 16  # 800 steps of 3 ms: 2.4 s

_OPTIONS = (
    '<option timestep="0.003" cone="elliptic" solver="Newton" iterations="50" tolerance="1e-10"/>'
    '<default><geom solimp=".9 .9 .01"/></default>'
)


@dataclass(frozen=True)
class Block:
    """One object. `extent`: cuboid (x, y, z); cylinders (2r, 2r, length); sphere (2r, 2r, 2r)."""

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
        px, py, pz = self.position
        return replace(self, position=(px + x, py + y, pz + z))


def _geom(block: Block) -> str:
    x, y, z = (e / 2 for e in block.extent)
    if block.shape == CUBOID:
        kind = f'type="box" size="{x!r} {y!r} {z!r}"'
    elif block.shape == SPHERE:
        kind = f'type="sphere" size="{x!r}"'
    else:
        kind = f'type="cylinder" size="{x!r} {z!r}" friction="1 0.01 0.01"'
    return f'<geom condim="6" {kind}/>'


def _body(block: Block) -> str:
    position = " ".join(repr(float(v)) for v in block.position)
    quaternion = " ".join(repr(float(v)) for v in block.quaternion)
    return f'<body pos="{position}" quat="{quaternion}"><freejoint/>{_geom(block)}</body>'


def build_model(blocks: Sequence[Block], planes: str) -> mujoco.MjModel:
    """The model of `planes` (MJCF geoms of the world) and the blocks, bottom first."""
    bodies = "".join(_body(block) for block in blocks)
    xml = f"<mujoco>{_OPTIONS}<worldbody>{planes}{bodies}</worldbody></mujoco>"
    return mujoco.MjModel.from_xml_string(xml)


def stands(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Whether, with a small push at the top block, no block's centre has moved by 10 cm after
    2.4 s. `data` is at frame 0 again after."""
    mujoco.mj_resetData(model, data)
    data.qvel[-6:-4] = PUSH_M_PER_S * np.sqrt(0.5)
    start = data.qpos.reshape(-1, 7)[:, :3].copy()
    standing = True
    for _ in range(NUM_CHECKS):
        mujoco.mj_step(model, data, nstep=STEPS_PER_CHECK)
        moved = np.linalg.norm(data.qpos.reshape(-1, 7)[:, :3] - start, axis=1)
        if not moved.max() < FALLEN_M:  # also true for a state that is no longer a number
            standing = False
            break
    mujoco.mj_resetData(model, data)
    mujoco.mj_forward(model, data)
    return standing
