"""Simulated CLEVR6 and CLEVR10: 3 to 6 or 10 objects of rubber or metal on a grey ground.

Mask labels: 0 ground, then the objects. A scene is discarded when an object is hidden or outside
the image in one of its views. Lengths in CLEVR's units.
Axes: V views, P the most objects (-1 or 0 where there is none).
"""

from __future__ import annotations

import numpy as np

from sri_cli.data.simulate.raycast import Camera, Lamp
from sri_cli.data.simulate.studio import (
    BOX,
    CYLINDER,
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

MIN_OBJECTS, MAX_OBJECTS = 3, 6  # of CLEVR6

COLOURS = np.array(  # gray, red, blue, green, brown, purple, cyan, yellow
    [(87, 87, 87), (173, 35, 35), (42, 75, 215), (29, 105, 20),
     (129, 74, 25), (129, 38, 192), (41, 208, 208), (255, 238, 51)]
) / 255.0  # fmt: skip
MATERIALS = RUBBER, METAL = (0, 1)
LARGE, SMALL = 0.7, 0.35  # half the width; a cube's is that over the root of 2

GROUND_REACH = 3.0
MIN_GAP = 0.25  # between the circles on the ground that objects stay within
MIN_MARGIN = 0.4  # between centres along the camera's right and its forward
# CLEVR asks for 100 visible pixels of its 240 x 320, of which CLEVR6 crops the central 192. The
# probe has a quarter of the crop's pixels, times 2 x 2 rays, whatever the size of the images.
PROBE_PX = 48
MIN_VISIBLE_RAYS = 28
CAMERA = np.array([7.5, -6.5, 5.4])
CAMERA_JITTER = 0.5
HALF_WIDTH = 16 / 35 * 192 / 320  # half the sensor over the focal length, cropped

_GROUND = '<geom type="plane" size="200 200 1"/>'
_GROUND_COLOUR = (0.42, 0.415, 0.41)
_SKY = (0.06, 0.06, 0.065)  # seen in metal only
_AMBIENT = 0.17


def simulate_table(
    index: int, *, size_px: int = 96, views: int = 1, seed: int = 0, most: int = MAX_OBJECTS
) -> Scenario:
    """Scene `index` of a seed, a function of these and of `most` objects alone; SriFailure when an
    object is always hidden."""
    rng = stream(seed, index)
    count = int(rng.integers(MIN_OBJECTS, most + 1))  # once, or full scenes would be rare
    name = f"table-objects={count}-v={index}"
    return simulate_solids(
        name, lambda: _draw_table(rng, count, views, most), _is_visible, size_px, srgb=True
    )


def _draw_table(rng: np.random.Generator, count: int, views: int, most: int) -> SolidScene:
    colours = [int(c) for c in rng.integers(len(COLOURS), size=count)]
    materials = [int(m) for m in rng.integers(len(MATERIALS), size=count)]
    cameras = [_draw_camera(rng) for _ in range(views)]
    lamps = _draw_lamps(rng)
    solids = _draw_solids(rng, count, cameras[0])
    return _build(solids, cameras, colours, materials, lamps, most)


def _build(
    solids: list[Solid],
    cameras: list[Camera],
    colours: list[int],
    materials: list[int],
    lamps: list[Lamp],
    most: int,
) -> SolidScene:
    """The ground, then the objects, each with a colour and a material."""
    metal = np.array([False, *(m == METAL for m in materials)])
    rubber = np.array([False, *(m == RUBBER for m in materials)])
    looks = Materials(
        colour=np.concatenate([[_GROUND_COLOUR], COLOURS[colours]]),
        label=np.arange(len(metal)),
        gloss=3.0 * metal + 0.10 * rubber,
        sharpness=np.where(metal, 140.0, 14.0),
        mirror=np.where(metal, 0.65, 0.0),
    )
    data = build_scene(_GROUND, solids)
    studio = Studio(data, looks, len(solids), lamps, _AMBIENT, _SKY)
    of_objects = {"colours": colours, "materials": materials}
    own_factors = {
        key: object_factor(values, len(cameras), most, -1, np.int16)
        for key, values in of_objects.items()
    }
    return SolidScene(solids, most, cameras, studio, own_factors)


def _is_visible(table: SolidScene) -> bool:
    """Whether every camera sees every object."""
    rays = (table.studio.rays_on_objects(camera, PROBE_PX) for camera in table.cameras)
    return all(visible.min() >= MIN_VISIBLE_RAYS for visible in rays)


def _draw_camera(rng: np.random.Generator) -> Camera:
    eye = CAMERA + rng.uniform(-CAMERA_JITTER, CAMERA_JITTER, 3)
    return Camera.facing(eye, np.zeros(3), HALF_WIDTH)


def _draw_lamps(rng: np.random.Generator) -> list[Lamp]:
    """Key light from the right of the camera, fill light from the left, a third from behind."""
    key, fill, back = rng.uniform(-1, 1, (3, 3))
    return [
        Lamp(np.array([6.5, -2.5, 6.5]) + key, 0.46, 0.8),
        Lamp(np.array([-5.0, -5.5, 6.0]) + fill, 0.12, 1.2),
        Lamp(np.array([-2.0, 5.0, 7.5]) + back, 0.24, 0.8),
    ]


def _draw_solids(rng: np.random.Generator, count: int, camera: Camera) -> list[Solid]:
    """`count` objects, each drawn until it stands apart from those before it."""
    right, forward = camera.rotation[0, :2], camera.rotation[2, :2]
    axes = [right.tolist(), (forward / np.linalg.norm(forward)).tolist()]
    solids: list[Solid] = []
    misses = 0
    while len(solids) < count:
        solid = _draw_solid(rng)
        if all(_apart(solid, other, axes) for other in solids):
            solids.append(solid)
        elif (misses := misses + 1) % 50 == 0:
            solids = []  # no room left: begin again
    return solids


def _draw_solid(rng: np.random.Generator) -> Solid:
    shape = (SPHERE, BOX, CYLINDER)[rng.integers(3)]
    half = LARGE if rng.random() < 0.5 else SMALL
    width = 2 * half / (float(np.sqrt(2)) if shape == BOX else 1.0)
    x, y = (float(v) for v in rng.uniform(-GROUND_REACH, GROUND_REACH, 2))
    return Solid(shape, (width, width, width), (x, y), float(rng.uniform(0, 360)))


def _apart(one: Solid, other: Solid, axes: list[list[float]]) -> bool:
    """Whether they keep the gap, and are clearly left or right, in front or behind.

    `axes`: the camera's directions on the ground. Most tries end here, hence floats alone.
    """
    (x, y), (other_x, other_y) = one.floor_xy, other.floor_xy
    clear = all(abs((x - other_x) * u + (y - other_y) * v) >= MIN_MARGIN for u, v in axes)
    return clear and gap(one, other) >= MIN_GAP
