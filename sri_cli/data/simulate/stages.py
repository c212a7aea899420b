"""Where towers stand: ground and walls, cameras, lights and colours of the two presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sri_cli.data.simulate.blocks import CUBOID, CYLINDER, SPHERE, Block
from sri_cli.data.simulate.render import Camera, Lighting, Look
from sri_cli.data.simulate.textures import NUM_TEXTURES, texture

COLOUR_NAMES = ("red", "green", "blue", "yellow", "cyan", "magenta")
COLOURS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)], float)

# The data set's pictures are 224 px at a vertical field of view of 45 degrees, of which GENESIS-v2
# and SRI use the central 196.
FULL_HALF_WIDTH = np.tan(np.deg2rad(45 / 2))
HALF_WIDTH = FULL_HALF_WIDTH * 196 / 224

# Cameras look at the z axis, in metres: four corners and eight beside them, then four from above.
_CORNERS = ((-1, -1), (-1, 1), (1, 1), (1, -1))
_AROUND = tuple((sx * x, sy * y) for sx, sy in _CORNERS for x, y in ((7, 7), (9, 2), (2, 9)))
_ABOVE = tuple((5 * sx, 5 * sy) for sx, sy in _CORNERS)
_AROUND_HEIGHT_M, _AROUND_PITCH_DEG = 5.0, 15.0
_ABOVE_HEIGHT_M, _ABOVE_PITCH_DEG = 9.0, 45.0
NUM_CAMERAS = len(_AROUND) + len(_ABOVE)

# The light that casts shadows comes from one of these. A shadowless one from the zenith and an
# ambient share go with it; their strengths are fitted by eye to pictures of the data set, where
# floors in shadow keep most of their light and walls have little.
LIGHTS = np.array([(0, 0, 20), *((9 * sx, 9 * sy, 20) for sx, sy in _CORNERS)], float)
ZENITH = np.array([0.0, 0.0, 1.0])
LIGHT_STRENGTH = 0.65
AMBIENT = 0.33
_SKY_TOP, _SKY_BOTTOM = (0.35, 0.47, 0.60), (0.12, 0.16, 0.22)

# Floor and two walls, 20 m wide, facing inwards.
_ROOM = (
    '<geom type="plane" size="10 10 1"/>'
    '<geom type="plane" size="10 10 1" pos="0 10 10" xyaxes="1 0 0 0 0 1"/>'
    '<geom type="plane" size="10 10 1" pos="10 0 10" xyaxes="0 -1 0 0 0 1"/>'
)


@dataclass(frozen=True)
class Stage:
    """Surroundings of one tower: MJCF planes, one camera and lighting per view, their ids."""

    planes: str
    plane_colour: tuple[float, float, float]
    num_planes: int
    cameras: list[Camera]
    camera_ids: list[int]
    lights: list[Lighting]
    light_id: int = 0
    wall_texture: int = -1
    floor_texture: int = -1

    def look(self, colours: Sequence[int]) -> Look:
        """Colours, mask labels and textures of all geoms: the planes, then the blocks."""
        textures = [self.floor_texture] + [self.wall_texture] * (self.num_planes - 1)
        planes = np.tile(self.plane_colour, (self.num_planes, 1))
        return Look(
            colour=np.concatenate([planes, COLOURS[list(colours)]]),
            label=np.array([0] * self.num_planes + list(range(1, len(colours) + 1)), np.uint8),
            texture={plane: texture(t) for plane, t in enumerate(textures) if t >= 0},
        )


def original_camera(camera: int) -> Camera:
    """Camera 0..15, the data set's cam_1 .. cam_16 in an order of our own."""
    if camera < len(_AROUND):
        return _aimed_camera(*_AROUND[camera], _AROUND_HEIGHT_M, _AROUND_PITCH_DEG)
    return _aimed_camera(*_ABOVE[camera - len(_AROUND)], _ABOVE_HEIGHT_M, _ABOVE_PITCH_DEG)


def _aimed_camera(x: float, y: float, z: float, pitch_deg: float) -> Camera:
    # To the axis, in whole steps of 15 degrees: so the room's corner falls where pictures of the
    # data set show it, 13 pixels of 224 from where exact aiming would put it.
    azimuth = 15.0 * round(float(np.rad2deg(np.arctan2(-y, -x))) / 15.0)
    return Camera.at(np.array([x, y, z], float), azimuth, pitch_deg, HALF_WIDTH)


def original_stage(rng: np.random.Generator, views: int) -> Stage:
    """Room with two walls. The shadow-casting light and the two textures are drawn per scenario;
    all 16 cameras, or some."""
    light_id, wall, floor = (int(rng.integers(n)) for n in (len(LIGHTS), *[NUM_TEXTURES] * 2))
    camera_ids = sorted(int(c) for c in rng.permutation(NUM_CAMERAS)[:views])
    key = LIGHTS[light_id] / np.linalg.norm(LIGHTS[light_id])
    light = Lighting(np.stack([key, ZENITH]), LIGHT_STRENGTH, AMBIENT, _SKY_TOP, _SKY_BOTTOM)
    return Stage(
        planes=_ROOM,
        plane_colour=(0.5, 0.5, 0.5),
        num_planes=3,
        cameras=[original_camera(c) for c in camera_ids],
        camera_ids=camera_ids,
        lights=[light] * views,
        light_id=light_id,
        wall_texture=wall,
        floor_texture=floor,
    )


DEMO_DISTANCE_M = 6.2
DEMO_LOOK_AT_M = 1.5
DEMO_PITCH_DEG = 20.0
DEMO_HALF_WIDTH = np.tan(np.deg2rad(36 / 2))
DEMO_MAX_HEIGHT_M = 3.3  # a taller tower would leave the picture
_DEMO_FLOOR = '<geom type="plane" size="50 50 1"/>'


def demo_stage(rng: np.random.Generator, views: int) -> Stage:
    """Plain floor and sky; near cameras all round, the light always from the same side of them."""
    cameras, lights = [], []
    for azimuth in rng.uniform(0, 360, views):
        a, p = np.deg2rad(azimuth), np.deg2rad(DEMO_PITCH_DEG)
        back = np.array([np.cos(a) * np.cos(p), np.sin(a) * np.cos(p), np.sin(p)])
        eye = np.array([0, 0, DEMO_LOOK_AT_M]) + DEMO_DISTANCE_M * back
        cameras.append(Camera.at(eye, azimuth + 180, DEMO_PITCH_DEG, DEMO_HALF_WIDTH))
        towards = np.array([[2 * np.cos(a + 0.8), 2 * np.sin(a + 0.8), 8.0]])
        sky = (0.62, 0.68, 0.75)
        lights.append(Lighting(towards / np.linalg.norm(towards), 0.6, 0.45, sky, sky))
    return Stage(_DEMO_FLOOR, (0.45, 0.45, 0.45), 1, cameras, list(range(views)), lights)


def draw_demo_blocks(height: int, rng: np.random.Generator) -> list[Block]:
    """`height` blocks with broad overlap, each of its own colour; only the top may be a sphere."""
    while True:
        colours = rng.permutation(len(COLOURS))
        x, y = rng.uniform(-0.2, 0.2, 2)
        blocks, z = [], 0.0
        for place in range(height):
            flat = (CUBOID, CYLINDER)
            shape = int(rng.choice((*flat, SPHERE) if place == height - 1 else flat))
            a, b, c = (float(v) for v in rng.uniform(0.85, 1.2, 3))
            extent = {CUBOID: (a, b, c), SPHERE: (a, a, a)}.get(shape, (a, a, c))
            dx, dy = rng.uniform(-0.15, 0.15, 2) * (place > 0)
            block = Block(shape, extent, float(rng.uniform(0, 180)), colour=int(colours[place]))
            blocks.append(block.moved(x + dx, y + dy, z + block.height_m / 2))
            z += block.height_m
        if z <= DEMO_MAX_HEIGHT_M:
            return blocks
