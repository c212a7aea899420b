"""Pictures and exact instance masks by casting MuJoCo rays; no OpenGL, no display.

Axes: S picture side in pixels, R = (2 S)^2 rays (2x2 supersampling), G geoms, L lights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

from sri_cli.data.simulate.textures import Mipmap, sample

SUPERSAMPLING = 2
# Far enough for parallel light (20 m of scene turn it by 1 degree), near enough for float64.
LIGHT_DISTANCE_M = 1000.0
SHADOW_MARGIN_M = 1e-3


@dataclass(frozen=True)
class Camera:
    """`turn` is [3, 3]: rows are right, up and forward in the world; the picture is square."""

    position: np.ndarray
    turn: np.ndarray
    half_width: float  # tangent of half the field of view

    @classmethod
    def at(
        cls, position: np.ndarray, azimuth_deg: float, pitch_deg: float, half_width: float
    ) -> Camera:
        """Looking along `azimuth_deg` (0 = +x, 90 = +y) and `pitch_deg` below the horizon."""
        a, p = np.deg2rad(azimuth_deg), np.deg2rad(pitch_deg)
        forward = np.array([np.cos(a) * np.cos(p), np.sin(a) * np.cos(p), -np.sin(p)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        turn = np.stack([right, np.cross(right, forward), forward])
        return cls(np.asarray(position, float), turn, half_width)

    def project(self, points: np.ndarray, size_px: int) -> np.ndarray:
        """World points [N, 3] to picture coordinates [N, 2] (column, row) in pixels."""
        right, up, forward = ((points - self.position) @ self.turn.T).T
        scale = size_px / 2 / self.half_width
        return np.stack(
            [size_px / 2 + right / forward * scale, size_px / 2 - up / forward * scale], axis=1
        )


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


@lru_cache(maxsize=4)
def _screen(size_px: int, half_width: float) -> np.ndarray:
    """Unit ray directions [R, 3] (right, up, forward), row by row."""
    n = size_px * SUPERSAMPLING
    u = ((np.arange(n) + 0.5) / n * 2 - 1) * half_width
    right, down = np.meshgrid(u, u)
    rays = np.stack([right.ravel(), -down.ravel(), np.ones(n * n)], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _cast(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    origin: np.ndarray,
    rays: np.ndarray,
    normals: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Nearest hits of unit `rays` [R, 3]: geom ids [R], distances [R] (-1: none), normals."""
    n = len(rays)
    geom, distance = np.full(n, -1, np.int32), np.full(n, -1.0)
    normal = np.zeros(n * 3) if normals else None
    mujoco.mj_multiRay(
        model,
        data,
        np.ascontiguousarray(origin).reshape(3, 1),
        np.ascontiguousarray(rays).reshape(-1, 1),
        None,
        1,
        -1,
        geom,
        distance,
        normal,
        n,
        1e9,
    )
    return geom, distance, None if normal is None else normal.reshape(n, 3)


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
        _, distance, _ = _cast(model, data, origin, rays / length[:, None])
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


def _shrink(picture: np.ndarray, soft: bool) -> np.ndarray:
    """Rays [2S, 2S, 3] to pixels [S, S, 3]: the mean of each pixel's four, or `soft`, Pillow's
    antialiased bilinear filter, which reaches half a pixel into the neighbours."""
    for _ in range(2):  # columns, then, turned, rows
        low, high = picture[:, 0::2], picture[:, 1::2]
        mean = low + high
        if soft:
            mean *= 0.75
            mean[:, 1:] += 0.25 * high[:, :-1]
            mean[:, :-1] += 0.25 * low[:, 1:]
            mean[:, [0, -1]] *= 2 / 1.75  # no neighbour on one side
        else:
            mean *= 0.5
        picture = (mean * (0.5 if soft else 1)).swapaxes(0, 1)
    return picture


def _majority(labels: np.ndarray) -> np.ndarray:
    """Most frequent of the 4 labels of each pixel, [S, 2, S, 2] -> [S, S]; ties to the larger."""
    size = labels.shape[0]
    a, b, c, d = np.moveaxis(np.sort(labels.swapaxes(1, 2).reshape(size, size, 4)), -1, 0)
    return np.where(b == c, b, np.where(c == d, d, a))


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
    rays = _screen(size_px, camera.half_width) @ camera.turn
    geom, distance, normal = _cast(model, data, camera.position, rays, normals=True)
    assert normal is not None
    points = camera.position + rays * distance[:, None]

    picture = look.colour.take(geom, axis=0, mode="wrap")
    ray_width = 2 * camera.half_width / (size_px * SUPERSAMPLING)
    for plane, mipmap in look.texture.items():
        on = np.flatnonzero(geom == plane)
        axes = data.geom_xmat[plane].reshape(3, 3)
        local = (points[on] - data.geom_xpos[plane]) @ axes[:, :2]
        slant = np.maximum(np.abs(rays[on] @ axes[:, 2]), 0.1)
        footprint = distance[on] * ray_width / slant
        picture[on] = sample(mipmap, local, model.geom_size[plane, :2], footprint)

    picture *= _shade(model, data, points, normal, light)[:, None]
    sky = np.flatnonzero(geom < 0)
    picture[sky] = _sky(rays[sky, 2], light)
    label = np.append(look.label, 0).astype(np.uint8)[geom]  # geom -1: the sky's 0
    n = size_px * SUPERSAMPLING
    picture = _shrink(np.clip(picture, 0, 1).reshape(n, n, 3), soft)
    cells = (size_px, SUPERSAMPLING, size_px, SUPERSAMPLING)
    return (picture * 255 + 0.5).astype(np.uint8), _majority(label.reshape(cells))
