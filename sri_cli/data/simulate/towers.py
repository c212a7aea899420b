"""Towers of blocks by the rules of ShapeStacks, drawn, checked by physics and rendered.

Two presets. `original`: floor, two textured walls, 16 cameras, one of five lights with shadow,
heights 2 to 6, half of the towers unstable. `demo`: 2 or 3 stable blocks on a plain floor, near
camera at any azimuth. Everything of scenario `index` comes from (seed, index).

Mask labels: 0 background, 1 .. 6 the objects from the bottom. A tower is discarded when it falls
and should stand, or stands and should fall.

Axes: V views, P = 6 places of a tower from the bottom (unused ones -1 or 0), H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np

from sri_cli.data.simulate.blocks import Block, build_model, stands
from sri_cli.data.simulate.render import render
from sri_cli.data.simulate.scenario import Scenario, check_pictures, in_every_view
from sri_cli.data.simulate.stacking import Plan, draw_plan, stack
from sri_cli.data.simulate.stages import (
    FULL_HALF_WIDTH,
    Stage,
    demo_stage,
    draw_demo_blocks,
    original_stage,
)
from sri_cli.errors import SriError, SriFailure

MAX_HEIGHT = 6
MAX_DRAWS = 1000


@dataclass(frozen=True)
class TowerSettings:
    """What is simulated; with a scenario's index it fixes every byte of that scenario."""

    size_px: int
    views: int
    preset: Literal["original", "demo"]
    seed: int
    full_view: bool = False  # of `original`: the whole picture of 224 px, not its central 196

    def __post_init__(self) -> None:
        check_pictures(self.size_px, self.views, self.seed, "towers")
        if self.preset not in ("original", "demo"):
            raise SriError(f"unknown look of towers: {self.preset!r}", "original or demo")


def scenario_name(settings: TowerSettings, index: int) -> str:
    """The name of scenario `index`, without simulating it."""
    plan = _draw_plan(settings, np.random.default_rng((settings.seed, index)))
    return _name(settings, plan, index)


def _draw_plan(settings: TowerSettings, rng: np.random.Generator) -> Plan:
    """The first thing that is drawn of a scenario."""
    return draw_plan(rng) if settings.preset == "original" else Plan(int(rng.integers(2, 4)))


def _name(settings: TowerSettings, plan: Plan, index: int) -> str:
    return plan.name("ccs-easy" if settings.preset == "original" else "ccs-demo", index)


def simulate_scenario(settings: TowerSettings, index: int) -> Scenario:
    """Scenario `index`: draw, check by physics (redraw what disagrees), render every view."""
    rng = np.random.default_rng((settings.seed, index))
    original = settings.preset == "original"
    full = original and settings.full_view
    plan = _draw_plan(settings, rng)
    draw_stage = original_stage if original else demo_stage
    discarded = -1
    agrees = False
    while not agrees:
        discarded += 1
        if discarded == MAX_DRAWS:
            raise SriFailure(f"physics disagreed with {MAX_DRAWS} towers of {plan}")
        blocks = stack(plan, rng) if original else draw_demo_blocks(plan.height, rng)
        stage = draw_stage(rng, settings.views)
        model = build_model(blocks, stage.planes)
        data = mujoco.MjData(model)
        agrees = stands(model, data) == plan.stable

    look = stage.look([block.colour for block in blocks])
    cameras = stage.cameras
    if full:
        cameras = [replace(camera, half_width=FULL_HALF_WIDTH) for camera in cameras]
    soft = original and not full  # who shrinks the whole picture softens it
    views = [
        render(model, data, camera, light, look, settings.size_px, soft)
        for camera, light in zip(cameras, stage.lights, strict=True)
    ]
    return Scenario(
        name=_name(settings, plan, index),
        images=np.stack([picture for picture, _ in views]),
        masks=np.stack([mask for _, mask in views]),
        factors=tower_factors(blocks, stage, int(plan.stable), plan.vcom, plan.vpsf),
        discarded=discarded,
    )


def tower_factors(
    blocks: list[Block], stage: Stage, stable: int, vcom: int, vpsf: int
) -> dict[str, np.ndarray]:
    """Scalars [V] and, per place of the tower, shapes and colours [V, P] (-1: none), positions
    [V, P, 3] (metres), sizes [V, P, 3] (full extents, metres), rotations [V, P, 4] (w, x, y, z).
    """
    views = len(stage.cameras)

    def places(values: list, empty: float, dtype: type) -> np.ndarray:
        return in_every_view(values, views, MAX_HEIGHT, empty, dtype)

    whole = {
        "height": len(blocks),
        "stable": stable,
        "vcom": vcom,
        "vpsf": vpsf,
        "light": stage.light_id,
        "wall_texture": stage.wall_texture,
        "floor_texture": stage.floor_texture,
    }
    return {
        **{key: np.full(views, value, np.int16) for key, value in whole.items()},
        "camera": np.asarray(stage.camera_ids, np.int16),
        "camera_position": np.stack([c.position for c in stage.cameras]).astype(np.float32),
        "shapes": places([b.shape for b in blocks], -1, np.int16),
        "colours": places([b.colour for b in blocks], -1, np.int16),
        "positions": places([b.position for b in blocks], 0, np.float32),
        "sizes": places([b.extent for b in blocks], 0, np.float32),
        "rotations": places([b.quaternion for b in blocks], 0, np.float32),
    }
