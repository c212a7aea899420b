"""Stacks for a judge: whole ones touch throughout, the others have the one flaw that they say.

Geometry is measured by MuJoCo from the factors alone, not by what made the scenes.
"""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from sri_cli.data.simulate.blocks import CUBOID, CYLINDER, LYING_CYLINDER, SPHERE
from sri_cli.data.simulate.flawed import FLAWS, Judged, JudgedSettings, simulate_judged
from sri_cli.errors import SriError

LOOKS = ("original", "demo")
TYPES = {
    CUBOID: mujoco.mjtGeom.mjGEOM_BOX,
    CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    LYING_CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    SPHERE: mujoco.mjtGeom.mjGEOM_SPHERE,
}
FAR_M = 20.0


@pytest.fixture(scope="module", params=LOOKS)
def scenes(request: pytest.FixtureRequest) -> list[Judged]:
    return [simulate_judged(JudgedSettings(32, request.param, 9), i) for i in range(64)]


def distances(scene: Judged) -> tuple[float, list[float]]:
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
    found = [
        mujoco.mj_geomDistance(model, data, i, i + 1, FAR_M, None) for i in range(model.ngeom - 1)
    ]
    return found[0], found[1:]


def test_half_are_whole_and_flaws_come_in_turn(scenes: list[Judged]) -> None:
    assert [scene.plausible for scene in scenes] == [i % 2 == 0 for i in range(64)]
    flaws = [scene.flaw for scene in scenes if scene.flaw]
    assert {flaw: flaws.count(flaw) for flaw in FLAWS} == dict.fromkeys(FLAWS, 8)


def test_whole_stacks_touch_throughout(scenes: list[Judged]) -> None:
    for scene in scenes[::2]:
        floor, between = distances(scene)
        assert abs(floor) < 2e-3 and np.abs(between).max() < 2e-3
        assert scene.size_of_flaw == 0


def test_some_whole_stacks_would_fall(scenes: list[Judged]) -> None:
    stable = [int(scene.factors["stable"][0]) for scene in scenes[::2]]
    assert 0 < sum(stable) < len(stable)


def test_a_flawed_stack_has_its_flaw_and_no_other(scenes: list[Judged]) -> None:
    for scene in scenes[1::2]:
        floor, between = distances(scene)
        apart, inside = np.max(between, initial=0.0), np.min(between, initial=0.0)
        if scene.flaw == "missing-base":
            assert floor > 0.05
            assert floor == pytest.approx(scene.size_of_flaw, abs=2e-3)
            assert max(apart, -inside) < 2e-3
            continue
        assert abs(floor) < 2e-3
        wrong = [d for d in between if abs(d) > 2e-3]
        assert len(wrong) == 1
        if scene.flaw == "interpenetrating":
            assert inside < -0.05 and apart < 2e-3
        else:
            assert apart > 0.05 and inside > -2e-3


def test_every_block_is_seen(scenes: list[Judged]) -> None:
    for scene in scenes:
        seen = np.unique(scene.masks)
        assert seen.max() == scene.factors["height"][0]


def test_a_scene_is_a_function_of_its_settings_and_index() -> None:
    settings = JudgedSettings(32, "demo", 3)
    one, again = simulate_judged(settings, 5), simulate_judged(settings, 5)
    np.testing.assert_array_equal(one.images, again.images)
    other = simulate_judged(JudgedSettings(32, "demo", 4), 5)
    assert (one.images != other.images).any()


def test_views_share_a_scene() -> None:
    scene = simulate_judged(JudgedSettings(32, "original", 3, views=2), 1)
    assert scene.images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(*scene.factors["positions"])
    assert (scene.images[0] != scene.images[1]).any()


@pytest.mark.parametrize("wrong", [{"preset": "rooms"}, {"views": 5}, {"size_px": 2}, {"seed": -1}])
def test_settings_that_mean_nothing(wrong: dict) -> None:
    with pytest.raises(SriError):
        JudgedSettings(**{"size_px": 32, "preset": "demo", "seed": 0, **wrong})
