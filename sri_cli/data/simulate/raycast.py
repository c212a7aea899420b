"""Rays cast by MuJoCo: from a camera through the pixels of an image, and from lights to its points.

Masks are exact, from the id of the geom that a ray hits; neither OpenGL nor a display is needed.
Axes: S image side in pixels, n = 2 S rays a side (2x2 supersampling), R = n^2 rays, N points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

SUPERSAMPLING = 2
SHADOW_MARGIN_M = 1e-3
# Far enough for parallel light (20 m of scene turn it by 1 degree), near enough for float64.
SUN_DISTANCE_M = 1000.0
# A pixel's ray samples one of 16 points of a lamp, its neighbours the others; the mean over a
# window of 4 x 4 rays is a soft shadow at the cost of a hard one.
TILE = 4


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a square image.

    `rotation` is [3, 3] with rows right, up and forward in the world; `half_width` is the tangent
    of half the field of view.
    """

    position: np.ndarray
    rotation: np.ndarray
    half_width: float

    @classmethod
    def at(
        cls, position: np.ndarray, azimuth_deg: float, pitch_deg: float, half_width: float
    ) -> Camera:
        """A camera that looks along `azimuth_deg` (0 = +x, 90 = +y), `pitch_deg` downwards."""
        a, p = np.deg2rad(azimuth_deg), np.deg2rad(pitch_deg)
        forward = np.array([np.cos(a) * np.cos(p), np.sin(a) * np.cos(p), -np.sin(p)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        rotation = np.stack([right, np.cross(right, forward), forward])
        return cls(np.asarray(position, float), rotation, half_width)

    @classmethod
    def facing(cls, position: np.ndarray, target: np.ndarray, half_width: float) -> Camera:
        """A camera at `position` that looks at `target`, both [3]."""
        x, y, z = target - position
        pitch = np.arctan2(-z, np.hypot(x, y))
        return cls.at(position, float(np.rad2deg(np.arctan2(y, x))), np.rad2deg(pitch), half_width)

    def project(self, points: np.ndarray, size_px: int) -> np.ndarray:
        """World points [N, 3] to image coordinates [N, 2] (column, row) in pixels."""
        right, up, forward = ((points - self.position) @ self.rotation.T).T
        scale = size_px / 2 / self.half_width
        return np.stack(
            [size_px / 2 + right / forward * scale, size_px / 2 - up / forward * scale], axis=1
        )


@dataclass(frozen=True)
class Hits:
    """What the rays of an image hit first, row by row: unit `rays` [R, 3], `geom` [R] (-1: none),
    `distance` [R] in metres, `points` and outward `normals` [R, 3] in the world."""

    rays: np.ndarray
    geom: np.ndarray
    distance: np.ndarray
    points: np.ndarray
    normals: np.ndarray


def trace(data: mujoco.MjData, camera: Camera, size_px: int) -> Hits:
    """Cast the rays of an image into the scene as `data` holds it."""
    rays = _screen(size_px, camera.half_width) @ camera.rotation
    geom, distance, normals = _cast(data, camera.position, rays, normals=True)
    return Hits(rays, geom, distance, camera.position + rays * distance[:, None], normals)


@lru_cache(maxsize=4)
def _screen(size_px: int, half_width: float) -> np.ndarray:
    """Unit ray directions [R, 3] (right, up, forward), row by row."""
    n = size_px * SUPERSAMPLING
    u = ((np.arange(n) + 0.5) / n * 2 - 1) * half_width
    right, down = np.meshgrid(u, u)
    rays = np.stack([right.ravel(), -down.ravel(), np.ones(n * n)], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _cast(
    data: mujoco.MjData, origin: np.ndarray, rays: np.ndarray, normals: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest hits of unit `rays` [R, 3]: geom ids [R], distances [R] (-1: none), and normals
    [R, 3] if `normals`, else [0, 3]."""
    n = len(rays)
    geom, distance = np.full(n, -1, np.int32), np.full(n, -1.0)
    normal = np.zeros(n * 3 if normals else 0)
    origin, rays = np.ascontiguousarray(origin), np.ascontiguousarray(rays)
    mujoco.mj_multiRay(
        data.model,
        data,
        origin.reshape(3, 1),
        rays.reshape(-1, 1),
        geomgroup=None,
        flg_static=1,
        bodyexclude=-1,
        geomid=geom,
        dist=distance,
        normal=normal if normals else None,
        nray=n,
        cutoff=1e9,
    )
    return geom, distance, normal.reshape(-1, 3)


def _is_lit(data: mujoco.MjData, origin: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether light at `origin` [3] reaches each of `points` [N, 3].

    Rays start at the light because MuJoCo casts all rays of a call from one point.
    """
    rays = points - origin
    length = np.sqrt(np.einsum("ij,ij->i", rays, rays))
    _, distance, _ = _cast(data, origin, rays / length[:, None])
    return (distance < 0) | (distance > length - SHADOW_MARGIN_M)


def _across(direction: np.ndarray) -> np.ndarray:
    """Two unit vectors [2, 3] at right angles to `direction` [3] and to each other."""
    return np.linalg.svd(direction[None])[2][1:]


def sunlit(data: mujoco.MjData, points: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Whether parallel light from direction `towards` [3] reaches each of `points` [N, 3].

    Rays are cast only for points near the shadow of a block's bounding sphere; no other point can
    be in shadow.
    """
    lit = np.ones(len(points), bool)
    moving = data.model.geom_bodyid > 0
    side = _across(towards)
    centre, across = data.geom_xpos[moving] @ side.T, points @ side.T
    radius = data.model.geom_rbound[moving, None] + 0.05
    low, high = (centre - radius).min(0), (centre + radius).max(0)
    near = np.flatnonzero(((across > low) & (across < high)).all(1))
    if len(near):
        lit[near] = _is_lit(data, towards * SUN_DISTANCE_M, points[near])
    return lit


@dataclass(frozen=True)
class Lamp:
    """A round lamp at `position` [3] that faces the origin.

    `strength` is the brightness of a white surface at the origin that faces the lamp; it falls
    with the square of the distance. A larger radius gives a softer shadow, radius 0 none.
    """

    position: np.ndarray
    strength: float
    radius_m: float = 0.0

    def sample_points(self) -> np.ndarray:
        """TILE * TILE points [16, 3] spread evenly over the disc."""
        k = np.arange(TILE * TILE) + 0.5
        radius, angle = self.radius_m * np.sqrt(k / len(k)), k * np.pi * (3 - np.sqrt(5))
        disc = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        return self.position + disc @ _across(self.position)


def lamp_visibility(data: mujoco.MjData, hits: Hits, facing: np.ndarray, lamp: Lamp) -> np.ndarray:
    """The share of the lamp that each point sees, [R] in 0..1; 1 where not `facing` [R]."""
    n = round(len(facing) ** 0.5)
    rays = np.arange(len(facing)).reshape(n, n)
    visible = np.ones(len(facing))
    for k, origin in enumerate(lamp.sample_points()):
        turn = rays[k // TILE :: TILE, k % TILE :: TILE].ravel()
        turn = turn[facing[turn]]
        visible[turn] = _is_lit(data, origin, hits.points[turn])
    return _window_mean(visible.reshape(n, n), hits.geom.reshape(n, n)).ravel()


def _window_mean(values: np.ndarray, geom: np.ndarray) -> np.ndarray:
    """Mean of `values` [n, n] over TILE rows, then TILE columns, within the same geom."""
    for _ in range(2):
        total, count = values.copy(), np.ones_like(values)
        for shift in (-1, 1, 2):
            there = slice(max(0, shift), len(values) + min(0, shift))
            here = slice(max(0, -shift), len(values) + min(0, -shift))
            same = geom[there] == geom[here]
            total[here] += values[there] * same
            count[here] += same
        values, geom = (total / count).T, geom.T
    return values


def sky_visibility(data: mujoco.MjData, points: np.ndarray, objects: range) -> np.ndarray:
    """The share of the sky that points of the floor [N, 3] see, 0..1.

    Each of `objects` (geom ids) counts as a ball of radius r that lies on the floor: at a distance
    d it covers (r / d)^2 of the sky, times its cosine.
    """
    covered = np.zeros(len(points))
    for geom in objects:
        x, y, radius = data.geom_xpos[geom]
        square = (points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2 + radius**2
        covered += radius**3 / (square * np.sqrt(square))
    return np.clip(1 - covered, 0, 1)


def to_pixels(
    colour: np.ndarray, label: np.ndarray, size_px: int, soft: bool = False, srgb: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [S, S, 3] and mask uint8 [S, S] from rays: `colour` [R, 3] in 0..1, `label` [R].

    `soft` filters as Pillow's antialiased bilinear resize of a larger image would; with `srgb`
    colours are linear light, to be encoded with the sRGB curve.
    """
    n = size_px * SUPERSAMPLING
    image = _downsample(np.clip(colour, 0, 1).reshape(n, n, 3), soft)
    if srgb:
        image = np.where(
            image <= 0.0031308, 12.92 * image, 1.055 * np.power(image, 1 / 2.4) - 0.055
        )
    return (image * 255 + 0.5).astype(np.uint8), _majority(label.reshape(n, n))


def _downsample(image: np.ndarray, soft: bool) -> np.ndarray:
    """Rays [2S, 2S, 3] to pixels [S, S, 3]: the mean of each pixel's four rays, or if `soft` a
    triangle filter that reaches half a pixel into the neighbours."""
    for _ in range(2):  # columns, then, transposed, rows
        low, high = image[:, 0::2], image[:, 1::2]
        mean = low + high
        if soft:
            mean *= 0.75
            mean[:, 1:] += 0.25 * high[:, :-1]
            mean[:, :-1] += 0.25 * low[:, 1:]
            mean[:, [0, -1]] *= 2 / 1.75  # no neighbour on one side
        image = (mean * 0.5).swapaxes(0, 1)
    return image


def _majority(labels: np.ndarray) -> np.ndarray:
    """The most frequent of the 4 labels of each pixel, [2S, 2S] -> [S, S].

    Of two pairs it is the larger label, of four different ones the smallest.
    """
    size = len(labels) // 2
    four = labels.reshape(size, 2, size, 2).swapaxes(1, 2).reshape(size, size, 4)
    a, b, c, d = np.moveaxis(np.sort(four), -1, 0)
    return np.where(b == c, b, np.where(c == d, d, a))
