"""Solid objects that rest on the floor, and their scenes as MuJoCo models.

Lengths in metres (of tables: the units of CLEVR), angles in degrees, z up, floor at z = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

SPHERE, BOX, CYLINDER, CAPSULE = range(4)
SHAPES = ("sphere", "box", "cylinder", "capsule")


@dataclass(frozen=True)
class Solid:
    """One object. `extent`: full lengths (x, y, z) along its own axes, z upwards; `floor_xy`: the
    point of the floor below its centre."""

    shape: int
    extent: tuple[float, float, float]
    floor_xy: tuple[float, float]
    yaw_deg: float = 0.0

    @property
    def position(self) -> tuple[float, float, float]:
        """Its centre."""
        return (*self.floor_xy, self.extent[2] / 2)

    @property
    def reach(self) -> float:
        """Radius of the circle on the floor that it stays within."""
        x, y, _ = self.extent
        return float(np.hypot(x, y)) / 2 if self.shape == BOX else x / 2

    @property
    def geom(self) -> str:
        """The object as MJCF."""
        x, y, z = (float(e) / 2 for e in self.extent)
        size = {SPHERE: f"{x!r}", BOX: f"{x!r} {y!r} {z!r}", CYLINDER: f"{x!r} {z!r}"}
        half = size.get(self.shape, f"{x!r} {z - x!r}")  # a capsule's excludes its round ends
        at = " ".join(repr(float(v)) for v in self.position)
        return (
            f'<geom type="{SHAPES[self.shape]}" size="{half}" pos="{at}" '
            f'euler="0 0 {float(self.yaw_deg)!r}"/>'
        )


def gap(one: Solid, other: Solid) -> float:
    """Distance between the two circles on the floor; below 0 the objects may touch."""
    (ax, ay), (bx, by) = one.floor_xy, other.floor_xy
    return float(np.hypot(ax - bx, ay - by)) - one.reach - other.reach


def build_scene(surroundings: str, solids: Sequence[Solid]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """A model of the geoms of `surroundings` (MJCF) and then one geom per solid."""
    geoms = surroundings + "".join(solid.geom for solid in solids)
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{geoms}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return model, data
