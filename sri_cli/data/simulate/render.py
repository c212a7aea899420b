"""Pictures of towers: parallel light with hard shadows, textured planes, a gradient sky.

Axes: S picture side in pixels, R = (2 S)^2 rays (2x2 supersampling), G geoms, L lights.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import SUPERSAMPLING, Camera, cast, develop, trace
from sri_cli.data.simulate.textures import Mipmap, sample

# Far enough for parallel light (20 m of scene turn it by 1 degree), near enough for float64.
LIGHT_DISTANCE_M = 1000.0
SHADOW_MARGIN_M = 1e-3


@dataclass(frozen=True)
class Lighting:
    """Parallel lights; `towards` [L, 3] are unit vectors to them, and the first casts shadows.

    Light of the others (and `ambient`) saturates at 1 before the first is added, so that floors
    in full light are as white as they are in pictures of the data set.
    """

    towards: np.ndarray
    strength: float
    ambient: float
    sky_top: tuple[float, float, float]
    sky_bottom: tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """What each geom looks like: `colour` [G, 3] in 0..1, `texture` over it for textured planes,
    and `label` [G], the value written into the mask."""

    colour: np.ndarray
    label: np.ndarray
    texture: dict[int, Mipmap]


def _lit(
    model: mujoco.MjModel, data: mujoco.MjData, points: np.ndarray, towards: np.ndarray
) -> np.ndarray:
    """Whether the parallel light reaches each of `points` [N, 3].

    Rays start at the light, because one call casts from one point; only points whose way to the
    light passes a block's bounding sphere are asked for, the others cannot be in shadow.
    """
    lit = np.ones(len(points), bool)
    moving = model.geom_bodyid > 0
    side = np.linalg.svd(towards[None])[2][1:]  # [2, 3] axes across the light
    centre, across = data.geom_xpos[moving] @ side.T, points @ side.T
    radius = model.geom_rbound[moving, None] + 0.05
    low, high = (centre - radius).min(0), (centre + radius).max(0)
    near = (across > low) & (across < high)
    ask = np.flatnonzero(near[:, 0] & near[:, 1])
    if len(ask):
        origin = towards * LIGHT_DISTANCE_M
        rays = points[ask] - origin
        length = np.linalg.norm(rays, axis=1)
        _, distance, _ = cast(model, data, origin, rays / length[:, None])
        lit[ask] = (distance < 0) | (distance > length - SHADOW_MARGIN_M)
    return lit


def _shade(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    points: np.ndarray,
    normals: np.ndarray,
    light: Lighting,
) -> np.ndarray:
    """Brightness [N] of a white surface."""
    facing = np.clip(normals @ light.towards.T, 0, None) * light.strength
    shade = np.minimum(1.0, light.ambient + facing[:, 1:] @ np.ones(len(light.towards) - 1))
    bright = np.flatnonzero(facing[:, 0] > 0)
    visible = _lit(model, data, points[bright], light.towards[0])
    shade[bright] += facing[bright, 0] * visible
    return shade


def _sky(up: np.ndarray, light: Lighting) -> np.ndarray:
    """MuJoCo's gradient sky; `up` [N] is the rays' z component."""
    height = np.arcsin(up) / (np.pi / 2)
    top = np.clip(0.5 * (1 + height / np.sqrt(1 + height**2) * np.sqrt(2)), 0, 1)[:, None]
    return top * np.array(light.sky_top) + (1 - top) * np.array(light.sky_bottom)


def render(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: Camera,
    light: Lighting,
    look: Look,
    size_px: int,
    soft: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Picture uint8 [S, S, 3] and mask uint8 [S, S] of the scene as `data` holds it.

    `soft` filters the picture as Pillow's bilinear resize of a larger one would.
    """
    hits = trace(model, data, camera, size_px)
    geom, rays = hits.geom, hits.rays

    picture = look.colour.take(geom, axis=0, mode="wrap")
    ray_width = 2 * camera.half_width / (size_px * SUPERSAMPLING)
    for plane, mipmap in look.texture.items():
        on = np.flatnonzero(geom == plane)
        axes = data.geom_xmat[plane].reshape(3, 3)
        local = (hits.points[on] - data.geom_xpos[plane]) @ axes[:, :2]
        slant = np.maximum(np.abs(rays[on] @ axes[:, 2]), 0.1)
        footprint = hits.distance[on] * ray_width / slant
        picture[on] = sample(mipmap, local, model.geom_size[plane, :2], footprint)

    picture *= _shade(model, data, hits.points, hits.normals, light)[:, None]
    sky = np.flatnonzero(geom < 0)
    picture[sky] = _sky(rays[sky, 2], light)
    label = np.append(look.label, 0).astype(np.uint8)[geom]  # geom -1: the sky's 0
    return develop(picture, label, size_px, soft)
