"""Simulated ShapeStacks: towers of blocks, checked by physics and rendered from several cameras.

`original`: floor, two textured walls, 16 cameras and one of five lights with shadow, as in the data
set. `demo`: a plain floor, and near cameras all around. Mask labels: 0 background, 1 .. 6 the
blocks from the bottom. A tower that falls although it should stand, or the other way round, is
discarded and drawn again.
Axes: V views, P = 6 blocks of a tower from the bottom (-1 or 0 where there is none), H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import Camera
from sri_cli.data.simulate.render import (
    NUM_TEXTURES,
    Colour,
    Sunlight,
    Surfaces,
    render_tower,
    texture,
)
from sri_cli.data.simulate.stacking import (
    COLOURS,
    MAX_HEIGHT,
    Block,
    Preset,
    build_tower,
    draw_blocks,
    draw_plan,
    stands,
)
from sri_cli.data.source import Scenario, object_factor
from sri_cli.errors import SriFailure
from sri_cli.rng import stream

MAX_DRAWS = 1000

# Images of the data set are 224 px at a vertical field of view of 45 degrees, of which GENESIS-v2
# and SRI use the central 196.
FULL_HALF_WIDTH = np.tan(np.deg2rad(45 / 2))
HALF_WIDTH = FULL_HALF_WIDTH * 196 / 224

# Position in metres and pitch in degrees of the cameras, which look at the z axis: four in the
# corners, two beside each, and four from above.
_CORNERS = ((-1, -1), (-1, 1), (1, 1), (1, -1))
CAMERAS = (
    *((sx * x, sy * y, 5, 15) for sx, sy in _CORNERS for x, y in ((7, 7), (9, 2), (2, 9))),
    *((5 * sx, 5 * sy, 9, 45) for sx, sy in _CORNERS),
)

# The light that casts shadows comes from one of these. A shadowless one from the zenith and an
# ambient share go with it; their strengths are fitted by eye to images of the data set, where
# floors in shadow keep most of their light and walls have little.
LIGHTS = np.array([(0, 0, 20), *((9 * sx, 9 * sy, 20) for sx, sy in _CORNERS)], float)
ZENITH = np.array([0.0, 0.0, 1.0])
LIGHT_STRENGTH, AMBIENT = 0.65, 0.33
_SKY_TOP, _SKY_BOTTOM = (0.35, 0.47, 0.60), (0.12, 0.16, 0.22)

_ROOM = (  # floor and two walls, 20 m wide, facing inwards
    '<geom type="plane" size="10 10 1"/>'
    '<geom type="plane" size="10 10 1" pos="0 10 10" xyaxes="1 0 0 0 0 1"/>'
    '<geom type="plane" size="10 10 1" pos="10 0 10" xyaxes="0 -1 0 0 0 1"/>'
)

DEMO_DISTANCE_M, DEMO_LOOK_AT_M, DEMO_PITCH_DEG = 6.2, 1.5, 20.0
DEMO_HALF_WIDTH = np.tan(np.deg2rad(36 / 2))
_DEMO_FLOOR = '<geom type="plane" size="50 50 1"/>'
_DEMO_SKY = (0.62, 0.68, 0.75)


@dataclass(frozen=True)
class Stage:
    """The surroundings of a tower: planes (MJCF geoms), and a camera and light per view."""

    planes: str
    plane_colour: Colour
    num_planes: int
    cameras: list[Camera]
    camera_ids: list[int]
    lights: list[Sunlight]
    light_id: int = 0
    wall_texture: int = -1
    floor_texture: int = -1

    def render(
        self,
        data: mujoco.MjData,
        blocks: Sequence[Block],
        size_px: int,
        soft: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images [V, H, W, 3] and masks [V, H, W] of the blocks from all cameras."""
        textures = [self.floor_texture] + [self.wall_texture] * (self.num_planes - 1)
        planes = np.tile(self.plane_colour, (self.num_planes, 1))
        surfaces = Surfaces(
            colour=np.concatenate([planes, COLOURS[[block.colour for block in blocks]]]),
            label=np.array([0] * self.num_planes + list(range(1, len(blocks) + 1)), np.uint8),
            texture={plane: texture(t) for plane, t in enumerate(textures) if t >= 0},
        )
        views = [
            render_tower(data, camera, light, surfaces, size_px, soft)
            for camera, light in zip(self.cameras, self.lights, strict=True)
        ]
        return np.stack([image for image, _ in views]), np.stack([mask for _, mask in views])


def draw_stage(preset: Preset, rng: np.random.Generator, views: int) -> Stage:
    """Random surroundings; cameras of `original` are some of its 16, without repetition."""
    return _original_stage(rng, views) if preset == "original" else _demo_stage(rng, views)


def original_camera(index: int) -> Camera:
    """Camera 0..15, the data set's cam_1 .. cam_16 in an order of our own.

    Cameras look at the axis in whole steps of 15 degrees: so the room's corner lies where images of
    the data set show it, 13 pixels of 224 from where exact aiming would put it.
    """
    x, y, z, pitch_deg = CAMERAS[index]
    azimuth_deg = 15.0 * round(float(np.rad2deg(np.arctan2(-y, -x))) / 15.0)
    return Camera.at(np.array([x, y, z], float), azimuth_deg, pitch_deg, HALF_WIDTH)


def _original_stage(rng: np.random.Generator, views: int) -> Stage:
    light_id, wall, floor = (int(rng.integers(n)) for n in (len(LIGHTS), *[NUM_TEXTURES] * 2))
    camera_ids = sorted(int(c) for c in rng.permutation(len(CAMERAS))[:views])
    key = LIGHTS[light_id] / np.linalg.norm(LIGHTS[light_id])
    light = Sunlight(np.stack([key, ZENITH]), LIGHT_STRENGTH, AMBIENT, _SKY_TOP, _SKY_BOTTOM)
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


def _demo_stage(rng: np.random.Generator, views: int) -> Stage:
    """The light comes always from the same side of a camera."""
    cameras, lights = [], []
    for azimuth in rng.uniform(0, 360, views):
        a, p = np.deg2rad(azimuth), np.deg2rad(DEMO_PITCH_DEG)
        back = np.array([np.cos(a) * np.cos(p), np.sin(a) * np.cos(p), np.sin(p)])
        eye = np.array([0, 0, DEMO_LOOK_AT_M]) + DEMO_DISTANCE_M * back
        cameras.append(Camera.at(eye, azimuth + 180, DEMO_PITCH_DEG, DEMO_HALF_WIDTH))
        towards = np.array([[2 * np.cos(a + 0.8), 2 * np.sin(a + 0.8), 8.0]])
        towards /= np.linalg.norm(towards)
        lights.append(Sunlight(towards, 0.6, 0.45, _DEMO_SKY, _DEMO_SKY))
    return Stage(_DEMO_FLOOR, (0.45, 0.45, 0.45), 1, cameras, list(range(views)), lights)


def tower_name(index: int, *, preset: Preset, seed: int) -> str:
    """The name of tower `index`, without simulating it."""
    return draw_plan(preset, stream(seed, index)).name(preset, index)


def simulate_tower(
    index: int, *, size_px: int, views: int, preset: Preset, seed: int, full_view: bool = False
) -> Scenario:
    """Draw tower `index` until physics agrees with its plan, and render every view (at most 16).

    `full_view` renders the whole image that the data set has, not the central 196 of its 224
    pixels. SriFailure when physics never agrees.
    """
    rng = stream(seed, index)
    plan = draw_plan(preset, rng)
    for discarded in range(MAX_DRAWS):
        blocks = draw_blocks(preset, plan, rng)
        stage = draw_stage(preset, rng, views)
        data = build_tower(blocks, stage.planes)
        if stands(data.model) != plan.stable:
            continue
        if full_view:
            wide = [replace(camera, half_width=FULL_HALF_WIDTH) for camera in stage.cameras]
            stage = replace(stage, cameras=wide)
        # The published images are resized from larger ones; a full view will still be resized.
        soft = preset == "original" and not full_view
        images, masks = stage.render(data, blocks, size_px, soft)
        return Scenario(
            name=plan.name(preset, index),
            images=images,
            masks=masks,
            factors=tower_factors(blocks, stage, int(plan.stable), plan.vcom, plan.vpsf),
            discarded=discarded,
        )
    raise SriFailure(f"physics disagreed with {MAX_DRAWS} towers of {plan}")


def tower_factors(
    blocks: list[Block], stage: Stage, stable: int, vcom: int, vpsf: int
) -> dict[str, np.ndarray]:
    """Scalars [V] and, per block, shapes and colours [V, P] (-1: none), positions [V, P, 3]
    (metres), sizes [V, P, 3] (full extents, metres), rotations [V, P, 4] (w, x, y, z)."""
    views = len(stage.cameras)
    scalars = {
        "height": len(blocks),
        "stable": stable,
        "vcom": vcom,
        "vpsf": vpsf,
        "light": stage.light_id,
        "wall_texture": stage.wall_texture,
        "floor_texture": stage.floor_texture,
    }

    def per_block(values: list, empty: float, dtype: type) -> np.ndarray:
        return object_factor(values, views, MAX_HEIGHT, empty, dtype)

    return {
        **{key: np.full(views, value, np.int16) for key, value in scalars.items()},
        "camera": np.asarray(stage.camera_ids, np.int16),
        "camera_position": np.stack([c.position for c in stage.cameras]).astype(np.float32),
        "shapes": per_block([b.shape for b in blocks], -1, np.int16),
        "colours": per_block([b.colour for b in blocks], -1, np.int16),
        "positions": per_block([b.position for b in blocks], 0, np.float32),
        "sizes": per_block([b.extent for b in blocks], 0, np.float32),
        "rotations": per_block([b.quaternion for b in blocks], 0, np.float32),
    }
