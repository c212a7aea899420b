"""Pictures of solids under lamps: soft shadows, highlights and metal that mirrors its surroundings.

Axes: S picture side in pixels, R = (2 S)^2 rays, G geoms (0 is the floor, objects come last),
M rays that hit metal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import Camera, Hits, develop, trace
from sri_cli.data.simulate.shadows import Lamp, lamp_seen, sky_seen


@dataclass(frozen=True)
class Surfaces:
    """What each geom looks like, all [G]: `colour` [G, 3] in 0..1 and `label` in the mask;
    `gloss` and `sharpness` (a cosine's exponent) of its highlights, gloss 0 for none; `mirror`,
    the share of the light that is mirrored and not strewn."""

    colour: np.ndarray
    label: np.ndarray
    gloss: np.ndarray
    sharpness: np.ndarray
    mirror: np.ndarray


@dataclass(frozen=True)
class Studio:
    """A scene ready to be drawn: the model, its surfaces, lamps, light from everywhere, and the
    sky (colour, and label in the mask). The last `objects` geoms are objects."""

    model: mujoco.MjModel
    data: mujoco.MjData
    surfaces: Surfaces
    objects: int
    lamps: Sequence[Lamp]
    ambient: float
    sky: tuple[float, float, float]
    sky_label: int = 0

    @property
    def object_ids(self) -> range:
        """Geom ids of the objects."""
        return range(self.model.ngeom - self.objects, self.model.ngeom)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of rows: [N, 3] and [N, 3] to [N]."""
    return np.einsum("ij,ij->i", a, b)


def _ambient(studio: Studio, hits: Hits) -> np.ndarray:
    """Light from everywhere [R]: less from below, and little at the foot of an object."""
    light = studio.ambient * (0.75 + 0.25 * hits.normals[:, 2])
    floor = np.flatnonzero(hits.geom == 0)
    light[floor] *= sky_seen(studio.data, hits.points[floor], studio.object_ids)
    return light


def _lamplight(studio: Studio, hits: Hits, lamp: Lamp) -> tuple[np.ndarray, np.ndarray]:
    """What a white surface strews [R] and what its highlight adds [R]."""
    surfaces = studio.surfaces
    towards = lamp.position - hits.points
    distance = np.sqrt(_dot(towards, towards))
    towards /= distance[:, None]
    facing = _dot(hits.normals, towards)
    lit = (facing > 0) & (hits.geom >= 0)
    light = lit * lamp.strength * (np.linalg.norm(lamp.position) / distance) ** 2
    if lamp.radius_m > 0:
        light *= lamp_seen(studio.model, studio.data, hits, lit, lamp)
    highlight = np.zeros(len(light))
    shiny = np.flatnonzero(lit & (surfaces.gloss[hits.geom] > 0))
    geom = hits.geom[shiny]
    half = towards[shiny] - hits.rays[shiny]
    half /= np.sqrt(_dot(half, half))[:, None]
    along = np.clip(_dot(half, hits.normals[shiny]), 0, 1) ** surfaces.sharpness[geom]
    highlight[shiny] = light[shiny] * surfaces.gloss[geom] * along
    return light * facing, highlight


def _mirrored(studio: Studio, hits: Hits, at: np.ndarray) -> np.ndarray:
    """What metal mirrors [M, 3] at the rays `at` [M], not exactly: a floor that is darker at the
    metal's foot and far away, the sky, and the other objects as balls."""
    normal, point, geom = hits.normals[at], hits.points[at], hits.geom[at]
    ray = hits.rays[at] - 2 * _dot(hits.rays[at], normal)[:, None] * normal
    way = point[:, 2] / np.clip(-ray[:, 2], 1e-3, 1)
    floor = point + ray * way[:, None]
    fade = 1 / (1 + (floor[:, :2] ** 2).sum(1) / 8.0**2)
    below = (
        studio.surfaces.colour[0] * ((0.25 + 0.6 * fade) * (1 - 0.7 * np.exp(-1.2 * way)))[:, None]
    )
    level = np.clip(0.5 + 4 * ray[:, 2], 0, 1)[:, None]  # a rough metal blurs the horizon
    out = below * (1 - level) + np.array(studio.sky) * level
    for other in studio.object_ids:
        centre = studio.data.geom_xpos[other]
        along = _dot(centre - point, ray)
        miss = np.linalg.norm(centre - point - along[:, None] * ray, axis=1)
        cover = np.clip((1.1 - miss / centre[2]) * 4, 0, 1) * (along > 0) * (geom != other)
        out += cover[:, None] * (0.5 * studio.surfaces.colour[other] - out)
    return out


def render_studio(
    studio: Studio, camera: Camera, size_px: int, srgb: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Picture uint8 [S, S, 3] and mask uint8 [S, S]; `srgb`: see `develop`."""
    hits = trace(studio.model, studio.data, camera, size_px)
    strewn, highlights = _ambient(studio, hits), np.zeros(len(hits.geom))
    for lamp in studio.lamps:
        light, highlight = _lamplight(studio, hits, lamp)
        strewn += light
        highlights += highlight
    surfaces = studio.surfaces
    mirror, colour = surfaces.mirror[hits.geom], surfaces.colour[hits.geom]
    picture = colour * (strewn * (1 - mirror))[:, None] + highlights[:, None]
    metal = np.flatnonzero((mirror > 0) & (hits.geom >= 0))
    picture[metal] += mirror[metal, None] * colour[metal] * _mirrored(studio, hits, metal)
    picture[hits.geom < 0] = studio.sky
    label = np.append(surfaces.label, studio.sky_label).astype(np.uint8)[hits.geom]
    return develop(picture, label, size_px, srgb=srgb)
