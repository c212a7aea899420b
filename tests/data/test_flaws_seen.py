"""What is wrong with a flawed stack is seen in its picture; whole stacks show nothing like it."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from scipy import ndimage

from sri_cli.data.simulate import stages
from sri_cli.data.simulate.blocks import CUBOID, SPHERE, Block, build_model, stands
from sri_cli.data.simulate.contact import balanced, connected
from sri_cli.data.simulate.flawed import Judged, JudgedSettings, simulate_judged
from sri_cli.data.simulate.flaws import Spoilt, above_moved, draw_plan_of, draw_tower
from sri_cli.data.simulate.visible import Sketch, flaw_shows, whole_in_picture


def pieces(area: np.ndarray) -> list[int]:
    """Sizes in pixels of the parts of `area` [H, W] that hang together, at corners too."""
    parts, _ = ndimage.label(area, np.ones((3, 3)))
    return np.bincount(parts.ravel())[1:].tolist()


@pytest.mark.parametrize("preset", ["original", "demo"])
def test_gaps_part_the_stack_in_the_picture(preset: str) -> None:
    scenes = [simulate_judged(JudgedSettings(64, preset, 21), i) for i in range(48)]
    for index, scene in enumerate(scenes):
        parts = pieces(scene.masks[0] > 0)
        if scene.flaw in ("floating", "gapped"):
            assert len(parts) >= 2 and min(parts) >= 5, (index, scene.flaw)
        else:
            assert len(parts) == 1, (index, scene.flaw)
        mask = scene.masks[0]
        assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_further_views_show_the_gap_as_well() -> None:
    for index in (1, 3):
        scene: Judged = simulate_judged(JudgedSettings(64, "original", 4, views=3), index)
        assert all(len(pieces(mask > 0)) >= 2 for mask in scene.masks)
        assert len(set(scene.factors["camera"])) == 3


def shown(flaw: str, sound: list[Block], spoilt: Spoilt, camera_id: int = 0) -> bool:
    """To one of the original's cameras."""
    stage = stages.original_stage(np.random.default_rng(0), 1)
    camera = stages.original_camera(camera_id)
    sketches = []
    for blocks in (sound, spoilt.blocks):
        model = build_model(blocks, stage.planes)
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        sketches.append(Sketch(model, data, camera, stage.num_planes))
    return flaw_shows(flaw, *sketches, spoilt, camera, stage.lights[0])


def on_each_other(side_m: float, aside: tuple[float, float] = (0.0, 0.0)) -> list[Block]:
    """A cube of 1 m and on it one of `side_m`."""
    lower = Block(CUBOID, (1.0, 1.0, 1.0), position=(0.0, 0.0, 0.5))
    return [lower, Block(CUBOID, (side_m,) * 3, position=(*aside, 1 + side_m / 2))]


@pytest.mark.parametrize(
    ("gap_m", "camera", "seen"), [(0.1, 0, False), (1, 0, True), (1, 12, False)]
)
def test_a_lifted_block_needs_background_below_it(gap_m: float, camera: int, seen: bool) -> None:
    """From 45 degrees above a block lifted by 1 m still has the lower one's top behind its foot."""
    sound = on_each_other(1.0)
    assert (
        shown("floating", sound, Spoilt(above_moved(sound, 1, 0, 0, gap_m), 1, gap_m), camera)
        == seen
    )


# The camera stands at (-7, -7): what hangs over on the other side is hidden.
@pytest.mark.parametrize(
    ("aside", "seen"), [((0, 0), False), ((0.5, -0.5), True), ((0.1, 0.1), False)]
)
def test_a_block_sunk_whole_is_a_low_block_on_top(aside: tuple[float, float], seen: bool) -> None:
    sound = on_each_other(0.7, aside)
    sunk = Spoilt(above_moved(sound, 1, 0, 0, -0.35), 1, 0.5)
    assert shown("interpenetrating", sound, sunk) == seen


def test_what_is_not_whole_in_the_picture_is_told() -> None:
    camera = stages.original_camera(0)
    tower = on_each_other(1.0)
    assert whole_in_picture(tower, camera)
    assert not whole_in_picture(above_moved(tower, 1, 0, 0, 8), camera)
    assert not whole_in_picture(above_moved(tower, 0, 9, -9, 0), camera)


def test_touching_by_hand() -> None:
    assert connected(on_each_other(1.0, (0.75, 0.0)), 0.2)
    assert not connected(on_each_other(1.0, (0.85, 0.0)), 0.2)  # 0.15 m left
    assert not connected(above_moved(on_each_other(1.0), 1, 0, 0, 0.01), 0.2)
    assert not connected(above_moved(on_each_other(1.0), 0, 0, 0, 0.01), 0.2)
    lower = on_each_other(1.0)[0]
    ball = Block(SPHERE, (0.6,) * 3, position=(0.4, 0.0, 1.3))
    assert connected([lower, ball], 0.2)
    assert not connected([lower, ball.moved(0.15, 0, 0)], 0.2)  # over the edge: it touches nothing


@pytest.mark.parametrize("preset", ["original", "demo"])
def test_statics_agree_with_physics(preset: str) -> None:
    """Not where the centre of mass is at an edge: a few in a hundred."""
    agree, balance = [], []
    for index in range(30):
        rng = np.random.default_rng((8, index))
        tower = draw_tower(preset, draw_plan_of(preset, None, rng), rng)
        model = build_model(tower, '<geom type="plane" size="20 20 1"/>')
        balance.append(balanced(tower))
        agree.append(stands(model, mujoco.MjData(model)) == balance[-1])
    assert np.mean(agree) > 0.88 and set(balance) == {True, False}
