"""Simulated Objects Room: floor, two walls, sky, and one to three objects on the floor.

Mask labels: 0 floor, 1 sky, 2 and 3 the two walls (left and right of their corner), 4 .. 6 the
objects. A room is discarded when no object is clearly visible in its first view.
Axes: V views, P = 3 objects (-1 or 0 where there is none).
"""

from __future__ import annotations

import colorsys

import numpy as np

from sri_cli.data.simulate.raycast import SUPERSAMPLING, Camera, Lamp
from sri_cli.data.simulate.studio import (
    BOX,
    CAPSULE,
    SHAPES,
    SPHERE,
    Materials,
    Solid,
    SolidScene,
    Studio,
    build_scene,
    gap,
    simulate_solids,
)
from sri_cli.data.source import Scenario, object_factor
from sri_cli.rng import stream

FLOOR, SKY, LEFT_WALL, RIGHT_WALL = range(4)
FIRST_OBJECT = 4
MAX_OBJECTS = 3
PROBE_PX = 32  # visibility is measured at this size whatever the size of the images
MIN_VISIBLE_RAYS = 0.004 * (PROBE_PX * SUPERSAMPLING) ** 2

WALL_M = 4.5  # distance of the walls from the centre
WALL_HEIGHT_M = 3.0
FLOOR_M = 1.7  # objects stay within this circle
_FAR = 60.0  # the walls extend beyond what a camera sees
_SURROUNDINGS = (
    '<geom type="plane" size="100 100 1"/>'
    f'<geom type="box" size="{_FAR} .1 {WALL_HEIGHT_M / 2}" '
    f'pos="{WALL_M + 0.2 - _FAR} {WALL_M + 0.1} {WALL_HEIGHT_M / 2}"/>'
    f'<geom type="box" size=".1 {_FAR} {WALL_HEIGHT_M / 2}" '
    f'pos="{WALL_M + 0.1} {WALL_M - _FAR} {WALL_HEIGHT_M / 2}"/>'
)
HALF_WIDTH = float(np.tan(np.deg2rad(30)))
_SATURATION, _VALUE = 0.8, 0.92
# A large lamp above, and two without shadows that make the walls differ.
_LAMPS = (
    Lamp(np.array([-3.5, -1.0, 8.0]), 0.31, 0.9),
    Lamp(np.array([1.5, -9.0, 6.0]), 0.27),
    Lamp(np.array([-9.0, -4.0, 4.0]), 0.18),
)
_AMBIENT = 0.38


def simulate_room(index: int, *, size_px: int = 64, views: int = 1, seed: int = 0) -> Scenario:
    """Room `index` of a seed, a function of these two alone; SriFailure when none is visible."""
    rng = stream(seed, index)
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    name = f"room-objects={count}-v={index}"
    return simulate_solids(name, lambda: _draw_room(rng, count, views), _is_visible, size_px)


def _draw_room(rng: np.random.Generator, count: int, views: int) -> SolidScene:
    """Geoms: floor, left wall, right wall, then the objects. Hues are in 0..1."""
    floor, sky, left, right, *hues = (float(hue) for hue in rng.random(4 + count))
    cameras = [_draw_camera(rng) for _ in range(views)]
    solids = _draw_solids(rng, count)
    objects = range(FIRST_OBJECT, FIRST_OBJECT + count)
    materials = Materials(
        colour=np.array([_rgb(hue) for hue in (floor, left, right, *hues)]),
        label=np.array([FLOOR, LEFT_WALL, RIGHT_WALL, *objects]),
        gloss=np.array([0.0] * 3 + [0.25] * count),
        sharpness=np.full(3 + count, 20.0),
        mirror=np.zeros(3 + count),
    )
    data = build_scene(_SURROUNDINGS, solids)
    studio = Studio(data, materials, count, _LAMPS, _AMBIENT, _rgb(sky), SKY)
    own_factors = {
        "floor_hue": np.full(views, floor, np.float32),
        "sky_hue": np.full(views, sky, np.float32),
        "wall_hues": np.tile(np.array([left, right], np.float32), (views, 1)),
        "hues": object_factor(hues, views, MAX_OBJECTS, -1, np.float32),
    }
    return SolidScene(solids, MAX_OBJECTS, cameras, studio, own_factors)


def _is_visible(room: SolidScene) -> bool:
    """Whether the first camera clearly sees an object."""
    rays = room.studio.rays_on_objects(room.cameras[0], PROBE_PX)
    return bool(rays.max() >= MIN_VISIBLE_RAYS)


def _draw_camera(rng: np.random.Generator) -> Camera:
    """On a ring, on the side away from the corner, looking roughly at the centre."""
    around = np.deg2rad(225 + rng.uniform(-32, 32))
    height = rng.uniform(2.1, 2.9)
    eye = np.array([5.2 * np.cos(around), 5.2 * np.sin(around), height])
    azimuth = float(np.rad2deg(around)) - 180 + rng.uniform(-4, 4)
    return Camera.at(eye, azimuth, 14 + rng.uniform(-2, 2), HALF_WIDTH)


def _draw_solids(rng: np.random.Generator, count: int) -> list[Solid]:
    """`count` objects that do not touch."""
    while True:
        solids = [_draw_solid(rng) for _ in range(count)]
        pairs = [(a, b) for i, a in enumerate(solids) for b in solids[:i]]
        if all(gap(a, b) > 0.05 for a, b in pairs):
            return solids


def _draw_solid(rng: np.random.Generator) -> Solid:
    """Of medium size, anywhere on the floor."""
    shape = int(rng.integers(len(SHAPES)))
    width = float(rng.uniform(1.1, 1.75))
    height = width * float(rng.uniform(0.8, 1.25))
    if shape == SPHERE:
        height = width
    elif shape == CAPSULE:
        width, height = 0.85 * width, 1.2 * height
    elif shape == BOX:
        width *= 0.85  # its diagonal counts too
    radius, angle = FLOOR_M * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    floor_xy = (float(radius * np.cos(angle)), float(radius * np.sin(angle)))
    return Solid(shape, (width, width, height), floor_xy, float(rng.uniform(0, 90)))


def _rgb(hue: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue, _SATURATION, _VALUE)
