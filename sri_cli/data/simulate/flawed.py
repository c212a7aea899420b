"""Towers that are stacks, and as many that are not: pictures for a judge of structural accuracy.

A *plausible* scene is a tower that stands on the floor and whose blocks all touch, whether it would
stand or fall. Any other has one flaw:

- floating: a block and all above it lifted; its size is the vertical gap, in metres
- gapped: the same moved aside, off the block below; the horizontal gap, in metres
- interpenetrating: the same sunk into the block below; the share of the block's height, 0.3 to 0.6
- missing-base: the lowest block or two taken away; how high the others hang, in metres

Even indices are plausible, odd ones take the flaws in turn. Rooms, floors, cameras, lights and
colours are those of the towers (`stages.py`); heights 2 to 6, or 2 and 3 of the demo. All blocks
are whole in the picture. Axes as in `towers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np

from sri_cli.data.simulate.blocks import Block, build_model
from sri_cli.data.simulate.contact import balanced
from sri_cli.data.simulate.flaws import SPOIL, Spoilt, draw_plan_of, draw_tower
from sri_cli.data.simulate.render import render
from sri_cli.data.simulate.scenario import check_pictures
from sri_cli.data.simulate.stages import NUM_CAMERAS, Stage, demo_stage, original_stage
from sri_cli.data.simulate.towers import tower_factors
from sri_cli.data.simulate.visible import Sketch, flaw_shows, whole_in_picture
from sri_cli.errors import SriError, SriFailure

FLAWS = ("floating", "gapped", "interpenetrating", "missing-base")
MAX_JUDGED_VIEWS = 4  # no flaw shows itself to all cameras
MAX_DRAWS = 2000
_STREAM = 1  # other random numbers than those of the towers of the same seed and index


@dataclass(frozen=True)
class JudgedSettings:
    """With a scene's index it fixes every byte of that scene."""

    size_px: int
    preset: Literal["original", "demo"]
    seed: int
    views: int = 1

    def __post_init__(self) -> None:
        check_pictures(self.size_px, self.views, self.seed, "towers")
        if self.views > MAX_JUDGED_VIEWS:
            raise SriError(
                f"{self.views} views of a judged scene: there are at most {MAX_JUDGED_VIEWS}",
                f"views={MAX_JUDGED_VIEWS}",
            )
        if self.preset not in ("original", "demo"):
            raise SriError(f"unknown look of towers: {self.preset!r}", "original or demo")


@dataclass(frozen=True)
class Judged:
    """One scene. `images` uint8 [V, S, S, 3]; `masks` uint8 [V, S, S], 0 background, 1 .. the
    blocks there are, from the bottom; `flaw` None and `size_of_flaw` 0 where it is plausible;
    `factors` as of a tower, but vcom and vpsf -1, and `stable` by statics of a plausible scene and
    -1 of all others; `discarded`: drawn before it and not usable."""

    images: np.ndarray
    masks: np.ndarray
    plausible: bool
    flaw: str | None
    size_of_flaw: float
    factors: dict[str, np.ndarray]
    discarded: int


def flaw_of(index: int) -> str | None:
    """Of scene `index`; None: it is plausible."""
    return FLAWS[index // 2 % len(FLAWS)] if index % 2 else None


def simulate_judged(settings: JudgedSettings, index: int) -> Judged:
    """Scene `index`: drawn until it is whole in the picture and every view shows its flaw."""
    rng = np.random.default_rng((settings.seed, index, _STREAM))
    flaw = flaw_of(index)
    plan = draw_plan_of(settings.preset, flaw, rng)
    scene, discarded = None, -1
    while scene is None:
        discarded += 1
        if discarded == MAX_DRAWS:
            raise SriFailure(f"{MAX_DRAWS} towers of {plan} did not show: {flaw or 'all of it'}")
        blocks = draw_tower(settings.preset, plan, rng)
        scene = _flawed(settings, flaw, blocks, rng) if flaw else _sound(settings, blocks, rng)
    spoilt, stage, model, data = scene
    look = stage.look([block.colour for block in spoilt.blocks])
    soft = settings.preset == "original"
    views = [
        render(model, data, camera, light, look, settings.size_px, soft)
        for camera, light in zip(stage.cameras, stage.lights, strict=True)
    ]
    stable = -1 if flaw else int(balanced(spoilt.blocks))
    return Judged(
        images=np.stack([picture for picture, _ in views]),
        masks=np.stack([mask for _, mask in views]),
        plausible=flaw is None,
        flaw=flaw,
        size_of_flaw=spoilt.size,
        factors=tower_factors(spoilt.blocks, stage, stable, vcom=-1, vpsf=-1),
        discarded=discarded,
    )


_Scene = tuple[Spoilt, Stage, mujoco.MjModel, mujoco.MjData]


def _draw_stage(settings: JudgedSettings, cameras: int, rng: np.random.Generator) -> Stage:
    return (original_stage if settings.preset == "original" else demo_stage)(rng, cameras)


def _sound(
    settings: JudgedSettings, blocks: list[Block], rng: np.random.Generator
) -> _Scene | None:
    stage = _draw_stage(settings, settings.views, rng)
    if not all(whole_in_picture(blocks, camera) for camera in stage.cameras):
        return None
    return (Spoilt(blocks, 0, 0.0), stage, *_built(blocks, stage))


def _flawed(
    settings: JudgedSettings, flaw: str, blocks: list[Block], rng: np.random.Generator
) -> _Scene | None:
    """The flaw is made for the first camera; further views are those of others that show it."""
    stage = _draw_stage(settings, 1 if settings.views == 1 else NUM_CAMERAS, rng)
    order = rng.permutation(len(stage.cameras))
    spoilt = SPOIL[flaw](blocks, stage.cameras[order[0]], rng)
    if spoilt is None or not whole_in_picture(spoilt.blocks, stage.cameras[order[0]]):
        return None
    model, data = _built(spoilt.blocks, stage)
    sound = _before(model, blocks, stage)
    views: list[int] = []
    for view in order:
        camera, light = stage.cameras[view], stage.lights[view]
        before = Sketch(*sound, camera, stage.num_planes)
        after = Sketch(model, data, camera, stage.num_planes)
        whole = whole_in_picture(spoilt.blocks, camera)
        if whole and flaw_shows(flaw, before, after, spoilt, camera, light):
            views.append(int(view))
        elif not views:
            return None  # the one that it was made for
        if len(views) == settings.views:
            return spoilt, _with_views(stage, sorted(views)), model, data
    return None


def _with_views(stage: Stage, views: list[int]) -> Stage:
    return replace(
        stage,
        cameras=[stage.cameras[view] for view in views],
        camera_ids=[stage.camera_ids[view] for view in views],
        lights=[stage.lights[view] for view in views],
    )


def _built(blocks: list[Block], stage: Stage) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = build_model(blocks, stage.planes)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return model, data


def _before(
    flawed: mujoco.MjModel, blocks: list[Block], stage: Stage
) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The sound tower; where no block was taken away, the same model with its blocks put back, for
    to compile one takes as long as a third of a picture."""
    if flawed.nq != 7 * len(blocks):
        return _built(blocks, stage)
    data = mujoco.MjData(flawed)
    data.qpos.reshape(-1, 7)[:, :3] = [block.position for block in blocks]
    mujoco.mj_kinematics(flawed, data)
    return flawed, data
