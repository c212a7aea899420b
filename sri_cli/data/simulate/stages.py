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

# The original renders 224 px at a vertical field of view of 45 degrees; GENESIS-v2 and SRI then
# use its central 196 px.
HALF_WIDTH = np.tan(np.deg2rad(45 / 2)) * 196 / 224
_AROUND = ((-7, -7), (-9, -2), (-2, -9), (-7, 7), (-9, 2), (-2, 9),
           (7, 7), (9, 2), (2, 9), (7, -7), (9, -2), (2, -9))  # fmt: skip
# Azimuth of the view: the side cameras are turned by round 15 degrees, so not quite at the axis.
_AROUND_AZIMUTH_DEG = (45, 15, 75, -45, -15, -75, 225, 195, 255, 135, 165, 105)
_ABOVE, _ABOVE_AZIMUTH_DEG = ((-5, -5), (-5, 5), (5, 5), (5, -5)), (45, -45, 225, 135)
NUM_CAMERAS = 16

LIGHTS = np.array([(0, 0, 20), (-9, -9, 20), (-9, 9, 20), (9, 9, 20), (9, -9, 20)], float)
LIGHT_STRENGTH = 0.7  # MuJoCo's default, as in the original's scenes

# Textures' upper edge: +z on the walls, -y on the floor, as in the original.
_ROOM = (
    '<geom type="plane" size="10 10 .5" xyaxes="-1 0 0 0 -1 0"/>'
    '<geom type="plane" size="10 10 .5" pos="0 10 10" xyaxes="1 0 0 0 0 1"/>'
    '<geom type="plane" size="10 10 .5" pos="10 0 10" xyaxes="0 -1 0 0 0 1"/>'
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
    """Camera 0..15: the original's cam_1 .. cam_16."""
    if camera < len(_AROUND):
        x, y = _AROUND[camera]
        return Camera.at(np.array([x, y, 5.0]), _AROUND_AZIMUTH_DEG[camera], 15, HALF_WIDTH)
    x, y = _ABOVE[camera - len(_AROUND)]
    azimuth = _ABOVE_AZIMUTH_DEG[camera - len(_AROUND)]
    return Camera.at(np.array([x, y, 9.0]), azimuth, 45, HALF_WIDTH)


def original_stage(rng: np.random.Generator, views: int) -> Stage:
    """Room with two walls. All five lights shine and one of them casts shadows; that one and
    the two textures are drawn per scenario, as in the original; all 16 cameras, or some."""
    light_id, wall, floor = (int(rng.integers(n)) for n in (len(LIGHTS), *[NUM_TEXTURES] * 2))
    camera_ids = sorted(int(c) for c in rng.permutation(NUM_CAMERAS)[:views])
    towards = LIGHTS / np.linalg.norm(LIGHTS, axis=1, keepdims=True)
    order = [light_id, *(i for i in range(len(LIGHTS)) if i != light_id)]
    light = Lighting(towards[order], LIGHT_STRENGTH, 0.0, (0.4, 0.6, 0.8), (0.0, 0.0, 0.0))
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
