"""What keeps light from a point: soft shadows of lamps, and the dark foot of an object.

Axes: n = 2 S rays a side, R = n^2 rays, G geoms; geom 0 is the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import Hits, cast

# A ray asks one of 16 points of a lamp, its neighbours the others; the mean over a window of
# 4 x 4 rays is a soft shadow at the price of a hard one.
TILE = 4
SHADOW_MARGIN_M = 1e-3


@dataclass(frozen=True)
class Lamp:
    """A round lamp at `position` [3]. `strength`: brightness of a white surface that faces it, at
    the origin; it falls with the square of the distance. The larger the radius, the softer the
    shadow; a lamp of radius 0 throws none."""

    position: np.ndarray
    strength: float
    radius_m: float = 0.0


def _points_of(lamp: Lamp) -> np.ndarray:
    """16 points [16, 3] evenly over the disc of a lamp, which faces the origin."""
    k = np.arange(TILE * TILE) + 0.5
    radius, angle = lamp.radius_m * np.sqrt(k / len(k)), k * np.pi * (3 - np.sqrt(5))
    across = np.linalg.svd(lamp.position[None])[2][1:]  # [2, 3]
    return lamp.position + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) @ across


def _window_mean(seen: np.ndarray, geom: np.ndarray) -> np.ndarray:
    """Mean of `seen` [n, n] over 4 rows, then 4 columns, of what lies on the same geom."""
    for _ in range(2):
        total, count = seen.copy(), np.ones_like(seen)
        for shift in (-1, 1, 2):
            there = slice(max(0, shift), len(seen) + min(0, shift))
            here = slice(max(0, -shift), len(seen) + min(0, -shift))
            same = geom[there] == geom[here]
            total[here] += seen[there] * same
            count[here] += same
        seen, geom = (total / count).T, geom.T
    return seen


def lamp_seen(
    model: mujoco.MjModel, data: mujoco.MjData, hits: Hits, ask: np.ndarray, lamp: Lamp
) -> np.ndarray:
    """How much of the lamp each point sees [R], 0..1; where not `ask` [R], it is taken for 1.

    Rays start at the lamp, because one call casts from one point.
    """
    n = round(len(ask) ** 0.5)
    rays = np.arange(len(ask)).reshape(n, n)
    seen = np.ones(len(ask))
    for k, origin in enumerate(_points_of(lamp)):
        turn = rays[k // TILE :: TILE, k % TILE :: TILE].ravel()
        some = turn[ask[turn]]
        way = hits.points[some] - origin
        length = np.sqrt(np.einsum("ij,ij->i", way, way))
        _, distance, _ = cast(model, data, origin, way / length[:, None])
        seen[some] = (distance < 0) | (distance > length - SHADOW_MARGIN_M)
    return _window_mean(seen.reshape(n, n), hits.geom.reshape(n, n)).ravel()


def sky_seen(data: mujoco.MjData, points: np.ndarray, objects: range) -> np.ndarray:
    """How much of the sky points of the floor [N, 3] see, 0..1, each of `objects` (geom ids) taken
    for a ball that lies on the floor: it covers (r / d)^2 of the sky, times its cosine."""
    covered = np.zeros(len(points))
    for geom in objects:
        x, y, radius = data.geom_xpos[geom]
        square = (points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2 + radius**2
        covered += radius**3 / (square * np.sqrt(square))
    return np.clip(1 - covered, 0, 1)
