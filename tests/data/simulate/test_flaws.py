"""Labelled towers: plausible ones touch throughout, the others have their one flaw, visibly.

Distances are measured by MuJoCo from the factors alone, not by the code that made the scenes.
"""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from scipy import ndimage

from sri_cli.data.simulate.flaws import (
    FlawedTower,
    Sketch,
    flaw_is_visible,
    flaw_of,
    move_upper,
    simulate_labelled_tower,
)
from sri_cli.data.simulate.stacking import (
    CUBOID,
    CYLINDER,
    LYING_CYLINDER,
    SPHERE,
    Block,
    is_connected,
)
from sri_cli.data.simulate.towers import draw_stage, original_camera
from sri_cli.data.source import Scenario

TYPES = {
    CUBOID: mujoco.mjtGeom.mjGEOM_BOX,
    CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    LYING_CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    SPHERE: mujoco.mjtGeom.mjGEOM_SPHERE,
}
FAR_M = 20.0


@pytest.fixture(scope="module", params=["original", "demo"])
def scenes(request: pytest.FixtureRequest) -> list[Scenario]:
    preset = request.param
    return [simulate_labelled_tower(i, size_px=64, preset=preset, seed=9) for i in range(64)]


def distances(scene: Scenario) -> tuple[float, list[float]]:
    """From the floor to the lowest block, and between neighbours; below 0: how deep inside."""
    factors = {key: value[0] for key, value in scene.factors.items()}
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[20, 20, 1])
    for i in range(int(factors["height"])):
        shape, (x, y, z) = int(factors["shapes"][i]), factors["sizes"][i] / 2
        size = {CUBOID: [x, y, z], SPHERE: [x, 0, 0]}.get(shape, [x, z, 0])
        body = spec.worldbody.add_body(pos=factors["positions"][i], quat=factors["rotations"][i])
        body.add_geom(type=TYPES[shape], size=size)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    gaps = [
        mujoco.mj_geomDistance(model, data, i, i + 1, FAR_M, None) for i in range(model.ngeom - 1)
    ]
    return gaps[0], gaps[1:]


def test_plausible_towers_touch_throughout(scenes: list[Scenario]) -> None:
    for scene in scenes[::2]:
        floor, between = distances(scene)
        assert abs(floor) < 2e-3 and np.abs(between).max() < 2e-3


def test_a_flawed_tower_has_its_flaw_and_no_other(scenes: list[Scenario]) -> None:
    for index, scene in list(enumerate(scenes))[1::2]:
        flaw = flaw_of(index)
        floor, between = distances(scene)
        apart, inside = np.max(between, initial=0.0), np.min(between, initial=0.0)
        if flaw == "missing-base":
            assert floor > 0.05
            assert max(apart, -inside) < 2e-3
            continue
        assert abs(floor) < 2e-3
        assert len([d for d in between if abs(d) > 2e-3]) == 1
        if flaw == "interpenetrating":
            assert inside < -0.05 and apart < 2e-3
        else:
            assert apart > 0.05 and inside > -2e-3


def test_every_block_is_seen_and_gaps_part_the_tower(scenes: list[Scenario]) -> None:
    for index, scene in enumerate(scenes):
        mask = scene.masks[0]
        assert mask.max() == scene.factors["height"][0]
        assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())
        parts, _ = ndimage.label(mask > 0, np.ones((3, 3)))
        pixels = np.bincount(parts.ravel())[1:]
        if (flaw := flaw_of(index)) in ("floating", "gapped"):
            assert len(pixels) >= 2 and min(pixels) >= 5, (index, flaw)
        else:
            assert len(pixels) == 1, (index, flaw)


def visible(flaw: str, sound: list[Block], tower: FlawedTower, camera_id: int = 0) -> bool:
    """To one of the original's cameras."""
    stage = draw_stage("original", np.random.default_rng(0), 1)
    stage.cameras[0] = original_camera(camera_id)
    before, after = Sketch(sound, stage), Sketch(tower.blocks, stage)
    return flaw_is_visible(flaw, before, after, tower, stage.cameras[0], stage.lights[0])


def cubes(side_m: float, aside: tuple[float, float] = (0.0, 0.0)) -> list[Block]:
    """A cube of 1 m and on it one of `side_m`."""
    lower = Block(CUBOID, (1.0, 1.0, 1.0), position=(0.0, 0.0, 0.5))
    return [lower, Block(CUBOID, (side_m,) * 3, position=(*aside, 1 + side_m / 2))]


@pytest.mark.parametrize(
    ("gap_m", "camera", "seen"), [(0.1, 0, False), (1, 0, True), (1, 12, False)]
)
def test_a_lifted_block_needs_background_below_it(gap_m: float, camera: int, seen: bool) -> None:
    """From 45 degrees above a block lifted by 1 m still has the lower one's top behind its foot."""
    sound = cubes(1.0)
    lifted = FlawedTower(move_upper(sound, 1, 0, 0, gap_m), 1)
    assert visible("floating", sound, lifted, camera) == seen


# The camera stands at (-7, -7): what hangs over on the other side is hidden.
@pytest.mark.parametrize(
    ("aside", "seen"), [((0, 0), False), ((0.5, -0.5), True), ((0.1, 0.1), False)]
)
def test_a_block_sunk_completely_looks_sound(aside: tuple[float, float], seen: bool) -> None:
    sound = cubes(0.7, aside)
    sunk = FlawedTower(move_upper(sound, 1, 0, 0, -0.35), 1)
    assert visible("interpenetrating", sound, sunk) == seen


def test_connected_by_hand() -> None:
    assert is_connected(cubes(1.0, (0.75, 0.0)), 0.2)
    assert not is_connected(cubes(1.0, (0.85, 0.0)), 0.2)  # 0.15 m left
    assert not is_connected(move_upper(cubes(1.0), 1, 0, 0, 0.01), 0.2)
    assert not is_connected(move_upper(cubes(1.0), 0, 0, 0, 0.01), 0.2)
    lower = cubes(1.0)[0]
    ball = Block(SPHERE, (0.6,) * 3, position=(0.4, 0.0, 1.3))
    assert is_connected([lower, ball], 0.2)
    assert not is_connected([lower, ball.moved(0.15, 0, 0)], 0.2)  # over the edge
