"""Rays from a camera through the pixels of a picture, what they hit, and pixels made of them.

MuJoCo casts the rays: exact masks without OpenGL or a display.
Axes: S picture side in pixels, R = (2 S)^2 rays (2x2 supersampling), G geoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

SUPERSAMPLING = 2


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

    @classmethod
    def facing(cls, position: np.ndarray, target: np.ndarray, half_width: float) -> Camera:
        """Looking from `position` at `target`, both [3]."""
        x, y, z = target - position
        pitch = np.arctan2(-z, np.hypot(x, y))
        return cls.at(position, float(np.rad2deg(np.arctan2(y, x))), np.rad2deg(pitch), half_width)


@dataclass(frozen=True)
class Hits:
    """What the rays of a picture meet first: unit `rays` [R, 3], row by row; `geom` [R] (-1:
    nothing); `distance` [R] in metres; `points` and outward `normals` [R, 3] in the world."""

    rays: np.ndarray
    geom: np.ndarray
    distance: np.ndarray
    points: np.ndarray
    normals: np.ndarray


@lru_cache(maxsize=4)
def _screen(size_px: int, half_width: float) -> np.ndarray:
    """Unit ray directions [R, 3] (right, up, forward), row by row."""
    n = size_px * SUPERSAMPLING
    u = ((np.arange(n) + 0.5) / n * 2 - 1) * half_width
    right, down = np.meshgrid(u, u)
    rays = np.stack([right.ravel(), -down.ravel(), np.ones(n * n)], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def cast(
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


def trace(model: mujoco.MjModel, data: mujoco.MjData, camera: Camera, size_px: int) -> Hits:
    """The rays of a picture and what they hit in the scene as `data` holds it."""
    rays = _screen(size_px, camera.half_width) @ camera.turn
    geom, distance, normals = cast(model, data, camera.position, rays, normals=True)
    assert normals is not None
    points = camera.position + rays * distance[:, None]
    return Hits(rays, geom, distance, points, normals)


def develop(
    colour: np.ndarray, label: np.ndarray, size_px: int, soft: bool = False, srgb: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Picture uint8 [S, S, 3] and mask uint8 [S, S] from rays: `colour` [R, 3] in 0..1 and
    `label` [R].

    `soft` filters the picture as Pillow's bilinear resize of a larger one would; with `srgb`,
    colours are amounts of light, which a file stores by the sRGB curve.
    """
    n = size_px * SUPERSAMPLING
    picture = _shrink(np.clip(colour, 0, 1).reshape(n, n, 3), soft)
    if srgb:
        picture = np.where(
            picture <= 0.0031308, 12.92 * picture, 1.055 * np.power(picture, 1 / 2.4) - 0.055
        )
    cells = (size_px, SUPERSAMPLING, size_px, SUPERSAMPLING)
    return (picture * 255 + 0.5).astype(np.uint8), _majority(label.reshape(cells))


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
