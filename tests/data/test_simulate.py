from __future__ import annotations

import re
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from sri_cli.data.simulate import stacking, stages
from sri_cli.data.simulate.blocks import CUBOID, SHAPES, SPHERE, Block, build_model, stands
from sri_cli.data.simulate.render import Camera, Lighting, Look, render
from sri_cli.data.simulate.textures import NUM_TEXTURES, texture
from sri_cli.data.simulate.towers import Scenario, TowerSettings, simulate_scenario
from sri_cli.errors import SriError

NAME = re.compile(r"env_(ccs)-(easy|demo)-h=([2-6])-vcom=([0-5])-vpsf=([0-5])-v=(\d+)")


@pytest.fixture(scope="module")
def towers() -> list[Scenario]:
    return [simulate_scenario(TowerSettings(64, 16, "original", 3), i) for i in range(8)]


@pytest.fixture(scope="module")
def demos() -> list[Scenario]:
    return [simulate_scenario(TowerSettings(32, 4, "demo", 3), i) for i in range(12)]


def rebuilt(scenario: Scenario) -> list[Block]:
    """The blocks, read back from the factors alone."""
    f = {key: value[0] for key, value in scenario.factors.items()}
    blocks = []
    for place in range(f["height"]):
        w, _, c, z = (float(v) for v in f["rotations"][place])
        lying = SHAPES[f["shapes"][place]] == "lying cylinder"
        blocks.append(
            Block(
                shape=int(f["shapes"][place]),
                extent=tuple(float(v) for v in f["sizes"][place]),
                yaw_deg=float(np.rad2deg(2 * np.arctan2(c if lying else z, w))),
                position=tuple(float(v) for v in f["positions"][place]),
                colour=int(f["colours"][place]),
            )
        )
    return blocks


def test_a_scenario_depends_on_seed_and_index_only(towers: list[Scenario]) -> None:
    again = simulate_scenario(TowerSettings(64, 16, "original", 3), 5)
    assert again.name == towers[5].name
    assert np.array_equal(again.images, towers[5].images)
    assert np.array_equal(again.masks, towers[5].masks)
    assert again.factors.keys() == towers[5].factors.keys()
    for key, value in again.factors.items():
        assert np.array_equal(value, towers[5].factors[key]), key
    other = simulate_scenario(TowerSettings(64, 16, "original", 4), 5)
    assert not np.array_equal(other.images, again.images)


def test_shapes_and_names(towers: list[Scenario], demos: list[Scenario]) -> None:
    for scenarios, size, views in ((towers, 64, 16), (demos, 32, 4)):
        for index, scenario in enumerate(scenarios):
            assert scenario.images.shape == (views, size, size, 3)
            assert scenario.masks.shape == (views, size, size)
            assert scenario.images.dtype == scenario.masks.dtype == np.uint8
            parts = NAME.fullmatch(scenario.name)
            assert parts is not None
            height, vcom, vpsf, v = (int(p) for p in parts.groups()[2:])
            f = scenario.factors
            assert all(len(value) == views for value in f.values())
            assert (f["height"] == height).all() and v == index
            assert (f["vcom"] == vcom).all() and (f["vpsf"] == vpsf).all()
            assert (f["stable"] == (vcom == 0 and vpsf == 0)).all()


def test_factors_keep_to_the_rules(towers: list[Scenario]) -> None:
    for scenario in towers:
        f = {key: value[0] for key, value in scenario.factors.items()}
        h = f["height"]
        assert (f["shapes"][:h] >= 0).all() and (f["shapes"][h:] == -1).all()
        assert len(set(f["colours"][:h])) == h and (f["colours"][h:] == -1).all()
        assert (f["sizes"][:h] >= 0.5).all() and (f["sizes"][:h] <= 1).all()
        for place in range(1, h):  # only the top or the violating object is round
            assert (f["shapes"][place - 1] >= 2) == (place == f["vpsf"])
        assert 0 <= f["light"] < 5 and 0 <= f["wall_texture"] < 6 and 0 <= f["floor_texture"] < 6
        assert scenario.factors["camera"].tolist() == list(range(16))
        blocks, top = rebuilt(scenario), 0.0
        for block in blocks:  # each rests on the one below
            assert block.position[2] - block.height_m / 2 == pytest.approx(top, abs=1e-5)
            top += block.height_m


def test_stability_is_what_physics_says(towers: list[Scenario], demos: list[Scenario]) -> None:
    labels = []
    for scenario in towers + demos:
        model = build_model(rebuilt(scenario), '<geom type="plane" size="10 10 1"/>')
        labels.append(bool(scenario.factors["stable"][0]))
        assert stands(model, mujoco.MjData(model)) == labels[-1], scenario.name
    assert set(labels[: len(towers)]) == {True, False}


def test_masks_hold_each_block_and_nothing_else(towers: list[Scenario]) -> None:
    own = total = 0
    for scenario in towers:
        blocks = rebuilt(scenario)
        centres = np.array([block.position for block in blocks])
        for view, camera in enumerate(scenario.factors["camera"]):
            mask, image = scenario.masks[view], scenario.images[view]
            assert mask.max() <= len(blocks)
            at = stages.original_camera(int(camera)).project(centres, 64)
            for label, (column, row) in enumerate(at, start=1):
                if 0 <= column < 64 and 0 <= row < 64:
                    seen = mask[int(row), int(column)]
                    assert seen > 0  # a block's centre is hidden by blocks only
                    own, total = own + (seen == label), total + 1
                missing = stages.COLOURS[blocks[label - 1].colour] == 0
                core = image[1:-1, 1:-1][_core(mask, label)]
                assert (core[:, missing] == 0).all()
    assert total > 300 and own / total > 0.85


def _core(mask: np.ndarray, label: int) -> np.ndarray:
    """Inner pixels [S-2, S-2] whose 3 x 3 neighbourhood is all of `label`."""
    windows = np.lib.stride_tricks.sliding_window_view(mask == label, (3, 3))
    return windows.all((2, 3))


def test_demo_towers_stand_whole_in_the_picture(demos: list[Scenario]) -> None:
    for scenario in demos:
        edge = np.ones(scenario.masks.shape[1:], bool)
        edge[1:-1, 1:-1] = False
        assert not scenario.masks[:, edge].any(), scenario.name
        assert 0.03 < (scenario.masks > 0).mean() < 0.40
        assert scenario.factors["height"][0] in (2, 3)


def test_plans_are_half_stable_and_of_all_heights() -> None:
    rng = np.random.default_rng(0)
    plans = [stacking.draw_plan(rng) for _ in range(2000)]
    assert 0.45 < np.mean([p.stable for p in plans]) < 0.55
    assert {p.height for p in plans} == {2, 3, 4, 5, 6}
    assert all(p.vcom < p.height and p.vpsf < p.height and p.vcom * p.vpsf == 0 for p in plans)


@pytest.mark.parametrize("vcom", [0, 1, 2])
def test_centre_of_mass_lies_where_the_rule_puts_it(vcom: int) -> None:
    rng = np.random.default_rng(vcom)
    for _ in range(50):
        blocks = stacking.stack(stacking.Plan(4, vcom=vcom), rng)
        for place, block in enumerate(blocks[:-1], start=1):
            above = blocks[place:]
            mass = np.array([b.volume_m3 for b in above])
            com = (np.array([b.position for b in above]) * mass[:, None]).sum(0) / mass.sum()
            yaw = np.deg2rad(block.yaw_deg)
            dx, dy = (com - block.position)[:2]
            local = np.array([np.cos(yaw) * dx + np.sin(yaw) * dy,
                              np.cos(yaw) * dy - np.sin(yaw) * dx])  # fmt: skip
            half = np.array(block.extent[:2]) / 2
            if block.shape == CUBOID:
                reach = np.abs(local) / half
                beyond = np.abs(local) - half
            else:
                reach = np.linalg.norm(local) / half[:1]
                beyond = np.linalg.norm(local) - half[:1]
            if place == vcom:
                assert beyond.max() == pytest.approx(0.05)
            else:
                assert reach.max() <= 0.5 + 1e-9


def test_a_ball_is_seen_where_geometry_puts_it_and_throws_a_shadow() -> None:
    """Camera 4 m above, looking straight down, 90 degrees wide: 8 m of floor on 64 pixels."""
    model = build_model(
        [Block(SPHERE, (1.0, 1.0, 1.0), position=(2.0, 0.0, 0.5))],
        '<geom type="plane" size="50 50 1"/>',
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera.at(np.array([0.0, 0.0, 4.0]), 90.0, 90.0, half_width=1.0)
    slanted = np.array([[1.0, 0.0, 1.0]]) / np.sqrt(2)  # from +x: the shadow falls towards -x
    light = Lighting(slanted, 0.5, 0.25, (0, 0, 0), (0, 0, 0))
    look = Look(np.array([(1.0, 1, 1), (1, 0, 0)]), np.array([0, 1]), {})
    image, mask = render(model, data, camera, light, look, 64)
    # x to the right at azimuth 90: the centre 2 m off at depth 3.5 m is at 32 + 32 * 2 / 3.5
    assert mask[32, int(32 + 32 * 2 / 3.5)] == 1 and mask[32, 31] == 0
    lit = 255 * (0.25 + 0.5 / np.sqrt(2))
    assert image[5, 5] == pytest.approx(lit, abs=1)
    # The ray through the ball's centre meets the floor at x = 1.5, drawn at 32 + 8 * 1.5 = 44.
    assert mask[32, 42] == 0 and image[32, 42] == pytest.approx(255 * 0.25, abs=1)


def test_cameras_look_at_the_axis_as_the_originals_do() -> None:
    far = np.hypot(7, 7)
    on_axis = np.array([[0.0, 0.0, 5 - far * np.tan(np.deg2rad(15))]])
    assert stages.original_camera(0).project(on_axis, 64)[0] == pytest.approx([32, 32])
    assert len({tuple(stages.original_camera(c).position) for c in range(16)}) == 16


def test_the_rooms_corner_is_where_a_picture_of_the_data_set_shows_it() -> None:
    """Walls and floor meet at column 30 and row 102.5 of 224 in a picture by cam_2."""
    corner = stages.original_camera(1).project(np.array([[10.0, 10.0, 0.0]]), 196)[0]
    assert corner == pytest.approx([30 - 14, 102.5 - 14], abs=1)


def test_six_textures_tiled_with_dark_joints() -> None:
    drawn = [texture(i) for i in range(NUM_TEXTURES)]
    means = [t.texels.mean(0) for t in drawn]
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(means, means[1:], strict=False))
    for t in drawn:
        full = t.texels[: t.side[0] ** 2].reshape(t.side[0], t.side[0], 3)
        assert full[0].max() < 0.1 and full[:, 0].max() < 0.1  # the edge is a joint
        assert full.min() >= 0 and full.max() <= 1


def test_settings_say_what_is_wrong() -> None:
    for views in (0, 17):
        with pytest.raises(SriError, match="views"):
            TowerSettings(64, views, "original", 0)
    with pytest.raises(SriError, match="pixels"):
        TowerSettings(0, 16, "original", 0)
    with pytest.raises(SriError, match="look"):
        TowerSettings(64, 16, "grey", 0)  # type: ignore[arg-type]


def test_simulating_needs_no_torch() -> None:
    code = "import sys, sri_cli.data.simulate.towers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
