"""Towers whose structure is plausible or has a known flaw, to train and to test judges of S-Acc.

A *plausible* scene is a tower that stands on the floor and whose blocks all touch, whether it would
stay upright or fall. Any other scene has one flaw, made so that the camera sees it:

- floating: a block and all above it lifted
- gapped: the same moved aside, off the block below
- interpenetrating: the same sunk into the block below, by 0.3 to 0.6 of its height
- missing-base: the lowest block or two removed

Flaws are sized in pixels of an image of 64: from MIN_FLAW_PX, just visible, to MAX_FLAW_PX, small
ones more often. At the distance of the axis a pixel is 0.12 to 0.13 m in images of the original
preset and 0.063 m in the demo's, so that the smallest gaps are 0.25 m and 0.13 m. A vertical gap is
larger by what the far edge of the block below hides of it: up to 0.3 m where a camera looks down by
15 degrees, 0.5 m by 20 (demo), 1.3 m by 45.

Even indices are plausible, odd ones have the flaws in turn. Surroundings and colours are those of
the towers; heights 2 to 6, or 2 and 3 of the demo. All blocks are completely inside the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sri_cli.data.simulate.raycast import SUPERSAMPLING, Camera, trace
from sri_cli.data.simulate.render import Sunlight
from sri_cli.data.simulate.stacking import (
    SPHERE,
    Block,
    Plan,
    Preset,
    build_tower,
    draw_blocks,
    draw_plan,
    is_connected,
    outline,
)
from sri_cli.data.simulate.towers import Stage, draw_stage, tower_factors
from sri_cli.data.source import Scenario
from sri_cli.errors import SriFailure
from sri_cli.rng import stream

FLAWS = ("floating", "gapped", "interpenetrating", "missing-base")
MAX_DRAWS = 2000
_STREAM = 1  # separates these random numbers from those of the towers of the same seed and index

SKETCH_PX = 64  # flaws are sized and checked at this size, whatever the size of the image
MIN_FLAW_PX, MAX_FLAW_PX = 2.0, 8.0
MIN_SUNK, MAX_SUNK = 0.3, 0.6  # share of the upper block's height
MIN_OVERLAP_M = {"original": 0.2, "demo": 0.15}  # of two surfaces that touch: about 2 pixels
_PUSHED = {"original": 0.3, "demo": 0.6}  # share of towers; half of the original's fall anyway
_PUSH_M = (0.3, 0.9)
_SIDEWAYS_DEG = 40.0  # largest angle between a shift aside and the image plane
_STICK_OUT_M = 0.12  # both blocks of an interpenetrating pair stick out of each other so far

MIN_CHANGED_PX = 12  # of 64 x 64: two rows of the smallest blocks, 6 pixels wide
MIN_VISIBLE_PX = 5
_BORDER_PX = 1.0
_INSIDE_M = 0.03
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


class FlawedTower(NamedTuple):
    """A tower after a flaw was made: its blocks, and the index `first` of the first block of the
    original tower that is moved, or left."""

    blocks: list[Block]
    first: int


def flaw_of(index: int) -> str | None:
    """The flaw of scene `index`; None for a plausible one."""
    return FLAWS[index // 2 % len(FLAWS)] if index % 2 else None


def simulate_labelled_tower(index: int, *, size_px: int, preset: Preset, seed: int) -> Scenario:
    """Draw scene `index`, plausible or with `flaw_of(index)`, until all of it is inside the image
    and its flaw is visible; render one view.

    Masks label the blocks there are from 1, from the bottom. Factors are those of a tower, but
    `stable`, vcom and vpsf are -1. SriFailure when no scene is visible.
    """
    rng = stream(seed, index, _STREAM)
    flaw = flaw_of(index)
    plan = draw_plan_for(preset, flaw, rng)
    for discarded in range(MAX_DRAWS):
        sound = draw_connected_tower(preset, plan, rng)
        stage = draw_stage(preset, rng, 1)
        tower = _draw_flaw(flaw, sound, stage, rng)
        if tower is None:
            continue
        data = build_tower(tower.blocks, stage.planes)
        images, masks = stage.render(data, tower.blocks, size_px, soft=preset == "original")
        return Scenario(
            name=f"{flaw or 'plausible'}-v={index}",
            images=images,
            masks=masks,
            factors=tower_factors(tower.blocks, stage, stable=-1, vcom=-1, vpsf=-1),
            discarded=discarded,
        )
    raise SriFailure(f"{flaw or 'plausible'}: none of {MAX_DRAWS} towers of {plan} was visible")


def draw_plan_for(preset: Preset, flaw: str | None, rng: np.random.Generator) -> Plan:
    """The kind of a scene's tower; it is drawn once, so that kinds whose flaw is hard to show are
    not rarer. Without its base, at least two blocks are left."""
    min_height = 3 if flaw == "missing-base" else 2
    if preset == "demo":
        return Plan(int(rng.integers(min_height, 4)))
    plan = draw_plan(preset, rng)
    while plan.height < min_height:
        plan = draw_plan(preset, rng)
    return plan


def draw_connected_tower(preset: Preset, plan: Plan, rng: np.random.Generator) -> list[Block]:
    """A tower of its preset, in some cases with a part pushed aside, drawn until its blocks overlap
    visibly."""
    push = rng.random() < _PUSHED[preset]
    while True:
        blocks = draw_blocks(preset, plan, rng)
        if push:
            first = int(rng.integers(1, plan.height))
            length, angle = rng.uniform(*_PUSH_M), rng.uniform(0, 2 * np.pi)
            x, y = length * float(np.cos(angle)), length * float(np.sin(angle))
            blocks = move_upper(blocks, first, x, y, 0.0)
        if is_connected(blocks, MIN_OVERLAP_M[preset]):
            return blocks


def move_upper(blocks: list[Block], first: int, x: float, y: float, z: float) -> list[Block]:
    """The tower with block `first` (0 is the lowest) and all above it moved together."""
    return blocks[:first] + [block.moved(x, y, z) for block in blocks[first:]]


def _draw_flaw(
    flaw: str | None, sound: list[Block], stage: Stage, rng: np.random.Generator
) -> FlawedTower | None:
    """The tower with its flaw; None when the camera does not see what it should."""
    camera = stage.cameras[0]
    tower = _MAKE[flaw](sound, camera, rng) if flaw else FlawedTower(sound, 0)
    if tower is None or not is_inside_image(tower.blocks, camera):
        return None
    if flaw:
        before, after = (Sketch(blocks, stage) for blocks in (sound, tower.blocks))
        if not flaw_is_visible(flaw, before, after, tower, camera, stage.lights[0]):
            return None
    return tower


class _Joint:
    """A random joint of a tower (index `first` and its block `upper`, the block `lower` below it)
    and how the camera sees it: `away` and `right` [2] are horizontal unit vectors, `slope` is the
    tangent of the angle by which the camera looks down there, `pixel_m` a pixel's size of 64."""

    def __init__(self, blocks: list[Block], camera: Camera, rng: np.random.Generator) -> None:
        self.first = int(rng.integers(1, len(blocks)))
        self.lower, self.upper = blocks[self.first - 1 : self.first + 1]
        border = np.array([*self.upper.position[:2], self.upper.bottom_m])
        ray = border - camera.position
        level = float(np.hypot(ray[0], ray[1]))
        self.away = ray[:2] / level
        self.right = np.array([self.away[1], -self.away[0]])
        self.slope = float(-ray[2]) / level
        self.pixel_m = 2 * camera.half_width * float(camera.rotation[2] @ ray) / SKETCH_PX


def _draw_pixels(rng: np.random.Generator) -> float:
    return MIN_FLAW_PX + (MAX_FLAW_PX - MIN_FLAW_PX) * float(rng.random()) ** 2


def _float(blocks: list[Block], camera: Camera, rng: np.random.Generator) -> FlawedTower:
    """Lift by a gap that is visible."""
    joint = _Joint(blocks, camera, rng)
    # Seen from above the lower block's far edge hides the gap, from below the upper's.
    pair = (joint.lower, joint.upper)
    far, near = pair if joint.slope > 0 else reversed(pair)
    away = joint.away[None]
    hidden = np.subtract(far.position[:2], near.position[:2]) @ joint.away
    hidden += outline(far).reach(away)[0] + outline(near).reach(away)[0]
    visible = _draw_pixels(rng) * joint.pixel_m * np.hypot(1, joint.slope)
    gap = float(visible + max(0.0, hidden) * abs(joint.slope))
    return FlawedTower(move_upper(blocks, joint.first, 0, 0, gap), joint.first)


def _set_apart(blocks: list[Block], camera: Camera, rng: np.random.Generator) -> FlawedTower:
    """Move aside, left or right in the image."""
    joint = _Joint(blocks, camera, rng)
    lower, upper = joint.lower, joint.upper
    side = float(rng.choice([-1.0, 1.0])) * joint.right
    turn = np.deg2rad(rng.uniform(-_SIDEWAYS_DEG, _SIDEWAYS_DEG))
    reach = sum(float(outline(block).reach(side[None])[0]) for block in (lower, upper))
    offset = float(np.subtract(upper.position[:2], lower.position[:2]) @ side)
    visible = _draw_pixels(rng) * joint.pixel_m
    x, y = (visible + reach - offset) * (side + np.tan(turn) * joint.away)
    return FlawedTower(move_upper(blocks, joint.first, float(x), float(y), 0), joint.first)


def _sink(blocks: list[Block], camera: Camera, rng: np.random.Generator) -> FlawedTower | None:
    """Sink.

    A block that is sunk completely looks like a lower block that rests: both must stick out of each
    other on the camera's side. Only a ball on top always shows that a part is missing.
    """
    joint = _Joint(blocks, camera, rng)
    lower, upper = joint.lower, joint.upper
    depth = float(rng.uniform(MIN_SUNK, MAX_SUNK)) * upper.height_m
    if depth > 0.8 * lower.height_m:
        return None
    if upper.shape != SPHERE:
        angles = np.deg2rad(np.arange(-80, 81, 10))[:, None]
        facing = np.sin(angles) * joint.right - np.cos(angles) * joint.away
        offset = facing @ np.subtract(upper.position[:2], lower.position[:2])
        out = offset + outline(upper).reach(facing) - outline(lower).reach(facing)
        if out.max() < _STICK_OUT_M or -out.min() < _STICK_OUT_M:
            return None
    return FlawedTower(move_upper(blocks, joint.first, 0, 0, -depth), joint.first)


def _remove_base(blocks: list[Block], _: Camera, rng: np.random.Generator) -> FlawedTower:
    """Remove the lowest block, or with equal chance the lowest two of four and more."""
    count = int(rng.integers(1, 3)) if len(blocks) > 3 else 1
    return FlawedTower(blocks[count:], count)


_MAKE: dict[str, Callable[[list[Block], Camera, np.random.Generator], FlawedTower | None]] = {
    "floating": _float,
    "gapped": _set_apart,
    "interpenetrating": _sink,
    "missing-base": _remove_base,
}


def is_inside_image(blocks: Sequence[Block], camera: Camera) -> bool:
    """Whether the bounding boxes of all blocks keep a pixel from the image's border."""
    level = [outline(block).reach(np.eye(2)) for block in blocks]
    half = np.array([(x, y, b.height_m / 2) for (x, y), b in zip(level, blocks, strict=True)])
    corners = np.array([block.position for block in blocks])[:, None] + half[:, None] * _CORNERS
    at = camera.project(corners.reshape(-1, 3), SKETCH_PX)
    return bool((at > _BORDER_PX).all() and (at < SKETCH_PX - _BORDER_PX).all())


class Sketch:
    """What a stage's first camera sees at 64 px, one ray per pixel: `labels` [64, 64] (0
    background, 1 .. the blocks) and `height_m` [64, 64] above the floor."""

    def __init__(self, blocks: list[Block], stage: Stage) -> None:
        data = build_tower(blocks, stage.planes)
        hits = trace(data, stage.cameras[0], SKETCH_PX // SUPERSAMPLING)
        side = (SKETCH_PX, SKETCH_PX)
        self.labels = np.maximum(hits.geom - (stage.num_planes - 1), 0).reshape(side)
        self.height_m = hits.points[:, 2].reshape(side)


def flaw_is_visible(
    flaw: str, before: Sketch, after: Sketch, tower: FlawedTower, camera: Camera, light: Sunlight
) -> bool:
    """Whether the flaw changes the image by MIN_CHANGED_PX and can be seen:

    - floating, gapped: no pixel of the upper part is next to one of the lower part, so that the
      background is visible between them all along;
    - interpenetrating: MIN_VISIBLE_PX of the upper block below the lower one's top, and as many of
      the lower above the upper one's bottom (not needed for a ball on top: it is not round);
    - missing-base: the lowest block's shadow on the floor is visible, apart from the block.
    """
    labels = after.labels
    if flaw == "missing-base":  # its labels begin at the lowest block that is left
        labels = np.where(labels > 0, labels + tower.first, 0)
    if int((labels != before.labels).sum()) < MIN_CHANGED_PX:
        return False
    if flaw == "missing-base":
        return _shadow_is_visible(labels, tower.blocks[0], camera, light)
    if flaw == "interpenetrating":
        return _both_stick_out(after, tower)
    above, below = labels > tower.first, (labels > 0) & (labels <= tower.first)
    enough = min(int(above.sum()), int(below.sum())) >= MIN_VISIBLE_PX
    beside = ndimage.binary_dilation(above, np.ones((3, 3), bool))
    return enough and not (beside & below).any()


def _both_stick_out(sketch: Sketch, tower: FlawedTower) -> bool:
    lower, upper = tower.blocks[tower.first - 1 : tower.first + 1]
    if upper.shape == SPHERE:
        return True
    labels, height_m = sketch.labels, sketch.height_m
    upper_low = (labels == tower.first + 1) & (height_m < lower.top_m - _INSIDE_M)
    lower_high = (labels == tower.first) & (height_m > upper.bottom_m + _INSIDE_M)
    return min(int(upper_low.sum()), int(lower_high.sum())) >= MIN_VISIBLE_PX


def _shadow_is_visible(labels: np.ndarray, lowest: Block, camera: Camera, light: Sunlight) -> bool:
    """Whether the centre of the block's shadow and the pixels around it show the floor."""
    towards = light.towards[0]
    x, y, _ = lowest.position
    below = np.array([x, y, 0.0]) - towards / towards[2] * lowest.bottom_m
    below[2] = 0.0
    column, row = (int(v) for v in np.floor(camera.project(below[None], SKETCH_PX)[0]))
    inside = 0 < column < SKETCH_PX - 1 and 0 < row < SKETCH_PX - 1
    return inside and not labels[row - 1 : row + 2, column - 1 : column + 2].any()
