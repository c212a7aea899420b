"""Scenes of solid objects on a floor: soft shadows, highlights, and metal that mirrors.

Lengths in metres (of tables: the units of CLEVR), angles in degrees, z up, floor at z = 0.
Axes: S image side in pixels, R = (2 S)^2 rays, N some of them, G geoms, V views, P the largest
number of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import (
    Camera,
    Hits,
    Lamp,
    lamp_visibility,
    sky_visibility,
    to_pixels,
    trace,
)
from sri_cli.data.source import Scenario, object_factor
from sri_cli.errors import SriFailure

MAX_DRAWS = 1000
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


def build_scene(surroundings: str, solids: Sequence[Solid]) -> mujoco.MjData:
    """The geoms of `surroundings` (MJCF) and then one geom per solid."""
    geoms = surroundings + "".join(solid.geom for solid in solids)
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{geoms}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return data


@dataclass(frozen=True)
class Materials:
    """What the geoms of a studio look like: `colour` [G, 3] in 0..1, `label` [G] for the mask,
    `gloss` [G] (0: none) and `sharpness` [G] (exponent of a cosine) of highlights, and `mirror`
    [G], the share of light that is mirrored, not diffused."""

    colour: np.ndarray
    label: np.ndarray
    gloss: np.ndarray
    sharpness: np.ndarray
    mirror: np.ndarray


@dataclass(frozen=True)
class Studio:
    """A scene under lamps, ready to render.

    Geom 0 is the floor, the last `objects` geoms are the objects; `ambient` light comes from all
    sides.
    """

    data: mujoco.MjData = field(repr=False)
    materials: Materials
    objects: int
    lamps: Sequence[Lamp]
    ambient: float
    sky: tuple[float, float, float]
    sky_label: int = 0

    @property
    def object_ids(self) -> range:
        """Geom ids of the objects."""
        return range(self.data.model.ngeom - self.objects, self.data.model.ngeom)

    def rays_on_objects(self, camera: Camera, size_px: int) -> np.ndarray:
        """How many rays of an image hit each object."""
        geom = trace(self.data, camera, size_px).geom
        return np.array([np.count_nonzero(geom == i) for i in self.object_ids])


def render_studio(
    studio: Studio, camera: Camera, size_px: int, srgb: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [S, S, 3] and mask uint8 [S, S]; `srgb`: see `to_pixels`."""
    hits = trace(studio.data, camera, size_px)
    diffuse, highlights = _ambient_light(studio, hits), np.zeros(len(hits.geom))
    for lamp in studio.lamps:
        light, highlight = _lamp_light(studio, hits, lamp)
        diffuse += light
        highlights += highlight
    materials = studio.materials
    mirror, colour = materials.mirror[hits.geom], materials.colour[hits.geom]
    image = colour * (diffuse * (1 - mirror))[:, None] + highlights[:, None]
    metal = np.flatnonzero((mirror > 0) & (hits.geom >= 0))
    image[metal] += mirror[metal, None] * colour[metal] * _reflections(studio, hits, metal)
    image[hits.geom < 0] = studio.sky
    label = np.append(materials.label, studio.sky_label).astype(np.uint8)[hits.geom]
    return to_pixels(image, label, size_px, srgb=srgb)


def _ambient_light(studio: Studio, hits: Hits) -> np.ndarray:
    """Light from all sides [R]: less from below, and little at the foot of an object."""
    light = studio.ambient * (0.75 + 0.25 * hits.normals[:, 2])
    floor = np.flatnonzero(hits.geom == 0)
    light[floor] *= sky_visibility(studio.data, hits.points[floor], studio.object_ids)
    return light


def _lamp_light(studio: Studio, hits: Hits, lamp: Lamp) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse light of a white surface [R] and the highlight's light [R] (Blinn-Phong)."""
    materials = studio.materials
    towards = lamp.position - hits.points
    distance = np.sqrt(_dot(towards, towards))
    towards /= distance[:, None]
    cosine = _dot(hits.normals, towards)
    facing = (cosine > 0) & (hits.geom >= 0)
    light = facing * lamp.strength * (np.linalg.norm(lamp.position) / distance) ** 2
    if lamp.radius_m > 0:
        light *= lamp_visibility(studio.data, hits, facing, lamp)
    highlight = np.zeros(len(light))
    shiny = np.flatnonzero(facing & (materials.gloss[hits.geom] > 0))
    geom = hits.geom[shiny]
    half = towards[shiny] - hits.rays[shiny]
    half /= np.sqrt(_dot(half, half))[:, None]
    along = np.clip(_dot(half, hits.normals[shiny]), 0, 1) ** materials.sharpness[geom]
    highlight[shiny] = light[shiny] * materials.gloss[geom] * along
    return light * cosine, highlight


def _reflections(studio: Studio, hits: Hits, at: np.ndarray) -> np.ndarray:
    """What metal mirrors [N, 3] at the rays `at` [N], approximately: a floor that is darker at the
    metal's foot and far away, the sky, and the other objects as balls."""
    normal, point, geom = hits.normals[at], hits.points[at], hits.geom[at]
    ray = hits.rays[at] - 2 * _dot(hits.rays[at], normal)[:, None] * normal
    length = point[:, 2] / np.clip(-ray[:, 2], 1e-3, 1)
    floor = point + ray * length[:, None]
    fade = 1 / (1 + (floor[:, :2] ** 2).sum(1) / 8.0**2)
    shade = (0.25 + 0.6 * fade) * (1 - 0.7 * np.exp(-1.2 * length))
    below = studio.materials.colour[0] * shade[:, None]
    level = np.clip(0.5 + 4 * ray[:, 2], 0, 1)[:, None]  # rough metal blurs the horizon
    out = below * (1 - level) + np.array(studio.sky) * level
    for other in studio.object_ids:
        centre = studio.data.geom_xpos[other]
        along = _dot(centre - point, ray)
        miss = np.linalg.norm(centre - point - along[:, None] * ray, axis=1)
        cover = np.clip((1.1 - miss / centre[2]) * 4, 0, 1) * (along > 0) * (geom != other)
        out += cover[:, None] * (0.5 * studio.materials.colour[other] - out)
    return out


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products of rows: [N, 3] and [N, 3] to [N]."""
    return np.einsum("ij,ij->i", a, b)


@dataclass(frozen=True)
class SolidScene:
    """A room or a table: objects, at `most` so many, the cameras that see them, the scene to
    render, and the factors that are its own, each with leading axis V."""

    solids: list[Solid]
    most: int
    cameras: list[Camera]
    studio: Studio
    own_factors: dict[str, np.ndarray]

    def factors(self) -> dict[str, np.ndarray]:
        """Count [V]; shapes and yaw (degrees) [V, P], positions and sizes [V, P, 3] (sizes are full
        extents) of the objects; camera position [V, 3]; and its own."""
        views, solids = len(self.cameras), self.solids

        def per_object(values: list[Any], empty: float, dtype: type = np.float32) -> np.ndarray:
            return object_factor(values, views, self.most, empty, dtype)

        return {
            "objects": np.full(views, len(solids), np.int16),
            "shapes": per_object([s.shape for s in solids], -1, np.int16),
            "positions": per_object([s.position for s in solids], 0),
            "sizes": per_object([s.extent for s in solids], 0),
            "rotations": per_object([s.yaw_deg for s in solids], 0),
            "camera_position": np.stack([c.position for c in self.cameras]).astype(np.float32),
        } | self.own_factors


def simulate_solids(
    name: str,
    draw: Callable[[], SolidScene],
    is_visible: Callable[[SolidScene], bool],
    size_px: int,
    srgb: bool = False,
) -> Scenario:
    """Draw a scene until its objects are visible, and render every view.

    SriFailure when they never are.
    """
    for discarded in range(MAX_DRAWS):
        scene = draw()
        if is_visible(scene):
            views = [render_studio(scene.studio, camera, size_px, srgb) for camera in scene.cameras]
            images, masks = map(np.stack, zip(*views, strict=True))
            return Scenario(name, images, masks, scene.factors(), discarded)
    raise SriFailure(f"{name}: the objects were not visible in {MAX_DRAWS} scenes")
