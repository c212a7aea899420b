"""Images of simulated scenes: towers under parallel light, and solids under lamps.

Towers have textured planes, hard shadows and a gradient sky, as MuJoCo draws ShapeStacks. Rooms and
tables have soft shadows, highlights, and metal that mirrors its surroundings.
Axes: S image side in pixels, R = (2 S)^2 rays, N some of them, G geoms, L lights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import (
    SUPERSAMPLING,
    Camera,
    Hits,
    Lamp,
    lamp_visibility,
    sky_visibility,
    sunlit,
    to_pixels,
    trace,
)
from sri_cli.data.simulate.textures import Colour, Mipmap, sample


@dataclass(frozen=True)
class Sunlight:
    """Parallel lights and the sky of a tower's scene.

    `towards` [L, 3] are unit vectors to the lights; only the first casts shadows. Light of the
    others and `ambient` saturates at 1 before the first is added: floors in full light are as white
    as in images of ShapeStacks.
    """

    towards: np.ndarray
    strength: float
    ambient: float
    sky_top: Colour
    sky_bottom: Colour


@dataclass(frozen=True)
class Surfaces:
    """What the geoms of a tower's scene look like: `colour` [G, 3] in 0..1, `label` [G] for the
    mask, and the texture of planes that have one instead of a colour, by geom id."""

    colour: np.ndarray
    label: np.ndarray
    texture: dict[int, Mipmap]


def render_tower(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: Camera,
    light: Sunlight,
    surfaces: Surfaces,
    size_px: int,
    soft: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [S, S, 3] and mask uint8 [S, S] of the scene as `data` holds it.

    `soft`: see `to_pixels`.
    """
    hits = trace(model, data, camera, size_px)
    image = surfaces.colour.take(hits.geom, axis=0, mode="wrap")
    ray_width = 2 * camera.half_width / (size_px * SUPERSAMPLING)
    for plane, mipmap in surfaces.texture.items():
        on = np.flatnonzero(hits.geom == plane)
        axes = data.geom_xmat[plane].reshape(3, 3)
        local = (hits.points[on] - data.geom_xpos[plane]) @ axes[:, :2]
        slant = np.maximum(np.abs(hits.rays[on] @ axes[:, 2]), 0.1)
        footprint = hits.distance[on] * ray_width / slant
        image[on] = sample(mipmap, local, model.geom_size[plane, :2], footprint)
    image *= _sun_shade(model, data, hits, light)[:, None]
    sky = np.flatnonzero(hits.geom < 0)
    image[sky] = _gradient_sky(hits.rays[sky, 2], light)
    label = np.append(surfaces.label, 0).astype(np.uint8)[hits.geom]  # geom -1: the sky's 0
    return to_pixels(image, label, size_px, soft)


def _sun_shade(
    model: mujoco.MjModel, data: mujoco.MjData, hits: Hits, light: Sunlight
) -> np.ndarray:
    """Brightness [R] of white surfaces."""
    facing = np.clip(hits.normals @ light.towards.T, 0, None) * light.strength
    shade = np.minimum(1.0, light.ambient + facing[:, 1:] @ np.ones(len(light.towards) - 1))
    bright = np.flatnonzero(facing[:, 0] > 0)
    shade[bright] += facing[bright, 0] * sunlit(model, data, hits.points[bright], light.towards[0])
    return shade


def _gradient_sky(up: np.ndarray, light: Sunlight) -> np.ndarray:
    """MuJoCo's gradient sky [N, 3] for the z components `up` [N] of rays."""
    height = np.arcsin(up) / (np.pi / 2)
    top = np.clip(0.5 * (1 + height / np.sqrt(1 + height**2) * np.sqrt(2)), 0, 1)[:, None]
    return top * np.array(light.sky_top) + (1 - top) * np.array(light.sky_bottom)


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

    model: mujoco.MjModel = field(repr=False)
    data: mujoco.MjData = field(repr=False)
    materials: Materials
    objects: int
    lamps: Sequence[Lamp]
    ambient: float
    sky: Colour
    sky_label: int = 0

    @property
    def object_ids(self) -> range:
        """Geom ids of the objects."""
        return range(self.model.ngeom - self.objects, self.model.ngeom)

    def rays_on_objects(self, camera: Camera, size_px: int) -> np.ndarray:
        """How many rays of an image hit each object."""
        geom = trace(self.model, self.data, camera, size_px).geom
        return np.array([np.count_nonzero(geom == i) for i in self.object_ids])


def render_studio(
    studio: Studio, camera: Camera, size_px: int, srgb: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [S, S, 3] and mask uint8 [S, S]; `srgb`: see `to_pixels`."""
    hits = trace(studio.model, studio.data, camera, size_px)
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
        light *= lamp_visibility(studio.model, studio.data, hits, facing, lamp)
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
