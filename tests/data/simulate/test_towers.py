"""Towers follow the rules of ShapeStacks, and images show what the factors say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sri_cli.data.simulate import stacking
from sri_cli.data.simulate.raycast import Camera
from sri_cli.data.simulate.render import Sunlight, Surfaces, render_tower
from sri_cli.data.simulate.stacking import (
    COLOURS,
    CUBOID,
    LYING_CYLINDER,
    SPHERE,
    Block,
    build_tower,
    stands,
)
from sri_cli.data.simulate.towers import original_camera, simulate_tower
from sri_cli.data.source import Scenario

NAME = re.compile(r"env_ccs-(easy|demo)-h=([2-6])-vcom=([0-5])-vpsf=([0-5])-v=(\d+)")


@pytest.fixture(scope="module")
def towers() -> list[Scenario]:
    return [simulate_tower(i, size_px=64, views=16, preset="original", seed=3) for i in range(8)]


@pytest.fixture(scope="module")
def demos() -> list[Scenario]:
    return [simulate_tower(i, size_px=32, views=4, preset="demo", seed=3) for i in range(12)]


def rebuilt(scenario: Scenario) -> list[Block]:
    """The blocks, read back from the factors alone."""
    f = {key: value[0] for key, value in scenario.factors.items()}
    blocks = []
    for level in range(f["height"]):
        w, _, c, z = (float(v) for v in f["rotations"][level])
        lying = f["shapes"][level] == LYING_CYLINDER
        blocks.append(
            Block(
                shape=int(f["shapes"][level]),
                extent=tuple(float(v) for v in f["sizes"][level]),
                yaw_deg=float(np.rad2deg(2 * np.arctan2(c if lying else z, w))),
                position=tuple(float(v) for v in f["positions"][level]),
                colour=int(f["colours"][level]),
            )
        )
    return blocks


def test_names_are_the_originals_and_agree_with_the_factors(
    towers: list[Scenario], demos: list[Scenario]
) -> None:
    for scenarios in (towers, demos):
        for index, scenario in enumerate(scenarios):
            parts = NAME.fullmatch(scenario.name)
            height, vcom, vpsf, v = (int(p) for p in parts.groups()[1:])
            f = scenario.factors
            assert (f["height"] == height).all() and v == index
            assert (f["vcom"] == vcom).all() and (f["vpsf"] == vpsf).all()
            assert (f["stable"] == (vcom == 0 and vpsf == 0)).all()


def test_factors_follow_the_rules(towers: list[Scenario]) -> None:
    for scenario in towers:
        f = {key: value[0] for key, value in scenario.factors.items()}
        h = f["height"]
        assert (f["shapes"][:h] >= 0).all() and (f["shapes"][h:] == -1).all()
        assert len(set(f["colours"][:h])) == h and (f["colours"][h:] == -1).all()
        assert (f["sizes"][:h] >= 0.5).all() and (f["sizes"][:h] <= 1).all()
        for level in range(1, h):  # only the top or the violating object is round
            assert (f["shapes"][level - 1] >= 2) == (level == f["vpsf"])
        assert 0 <= f["light"] < 5 and 0 <= f["wall_texture"] < 6 and 0 <= f["floor_texture"] < 6
        assert scenario.factors["camera"].tolist() == list(range(16))
        top = 0.0
        for block in rebuilt(scenario):  # each rests on the one below
            assert block.bottom_m == pytest.approx(top, abs=1e-5)
            top += block.height_m


def test_stability_is_what_physics_says(towers: list[Scenario], demos: list[Scenario]) -> None:
    labels = []
    for scenario in towers + demos:
        data = build_tower(rebuilt(scenario), '<geom type="plane" size="10 10 1"/>')
        labels.append(bool(scenario.factors["stable"][0]))
        assert stands(data.model) == labels[-1], scenario.name
    assert set(labels[: len(towers)]) == {True, False}


def test_masks_show_each_block_and_nothing_else(towers: list[Scenario]) -> None:
    own = total = 0
    for scenario in towers:
        blocks = rebuilt(scenario)
        centres = np.array([block.position for block in blocks])
        for view, camera in enumerate(scenario.factors["camera"]):
            mask, image = scenario.masks[view], scenario.images[view]
            assert mask.max() <= len(blocks)
            at = original_camera(int(camera)).project(centres, 64)
            for label, (column, row) in enumerate(at, start=1):
                if 0 <= column < 64 and 0 <= row < 64:
                    seen = mask[int(row), int(column)]
                    assert seen > 0  # a block's centre is hidden by blocks only
                    own, total = own + (seen == label), total + 1
                missing = COLOURS[blocks[label - 1].colour] == 0
                windows = np.lib.stride_tricks.sliding_window_view(mask == label, (3, 3))
                core = image[1:-1, 1:-1][windows.all((2, 3))]
                assert (core[:, missing] == 0).all()
    assert total > 300 and own / total > 0.85


def test_demo_towers_are_completely_inside_the_image(demos: list[Scenario]) -> None:
    for scenario in demos:
        edge = np.ones(scenario.masks.shape[1:], bool)
        edge[1:-1, 1:-1] = False
        assert not scenario.masks[:, edge].any(), scenario.name
        assert 0.03 < (scenario.masks > 0).mean() < 0.40
        assert scenario.factors["height"][0] in (2, 3)


def test_plans_are_half_stable_and_of_all_heights() -> None:
    rng = np.random.default_rng(0)
    plans = [stacking.draw_plan("original", rng) for _ in range(2000)]
    assert 0.45 < np.mean([p.stable for p in plans]) < 0.55
    assert {p.height for p in plans} == {2, 3, 4, 5, 6}
    assert all(p.vcom < p.height and p.vpsf < p.height and p.vcom * p.vpsf == 0 for p in plans)


@pytest.mark.parametrize("vcom", [0, 1, 2])
def test_centre_of_mass_lies_where_the_rule_puts_it(vcom: int) -> None:
    rng = np.random.default_rng(vcom)
    for _ in range(50):
        blocks = stacking.draw_blocks("original", stacking.Plan(4, vcom=vcom), rng)
        for level, block in enumerate(blocks[:-1], start=1):
            above = blocks[level:]
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
            if level == vcom:
                assert beyond.max() == pytest.approx(0.05)
            else:
                assert reach.max() <= 0.5 + 1e-9


def test_a_ball_and_its_shadow_are_where_geometry_puts_them() -> None:
    """Camera 4 m above, looking straight down, 90 degrees wide: 8 m of floor on 64 pixels."""
    data = build_tower(
        [Block(SPHERE, (1.0, 1.0, 1.0), position=(2.0, 0.0, 0.5))],
        '<geom type="plane" size="50 50 1"/>',
    )
    camera = Camera.at(np.array([0.0, 0.0, 4.0]), 90.0, 90.0, half_width=1.0)
    slanted = np.array([[1.0, 0.0, 1.0]]) / np.sqrt(2)  # from +x: the shadow falls towards -x
    light = Sunlight(slanted, 0.5, 0.25, (0, 0, 0), (0, 0, 0))
    surfaces = Surfaces(np.array([(1.0, 1, 1), (1, 0, 0)]), np.array([0, 1]), {})
    image, mask = render_tower(data, camera, light, surfaces, 64)
    # x to the right at azimuth 90: the centre 2 m off at depth 3.5 m is at 32 + 32 * 2 / 3.5
    assert mask[32, int(32 + 32 * 2 / 3.5)] == 1 and mask[32, 31] == 0
    lit = 255 * (0.25 + 0.5 / np.sqrt(2))
    assert image[5, 5] == pytest.approx(lit, abs=1)
    # The ray through the ball's centre meets the floor at x = 1.5, drawn at 32 + 8 * 1.5 = 44.
    assert mask[32, 42] == 0 and image[32, 42] == pytest.approx(255 * 0.25, abs=1)


def test_the_rooms_corner_is_where_an_image_of_the_data_set_shows_it() -> None:
    """Walls and floor meet at column 30 and row 102.5 of 224 in an image by cam_2."""
    on_axis = np.array([[0.0, 0.0, 5 - np.hypot(7, 7) * np.tan(np.deg2rad(15))]])
    assert original_camera(0).project(on_axis, 64)[0] == pytest.approx([32, 32])
    corner = original_camera(1).project(np.array([[10.0, 10.0, 0.0]]), 196)[0]
    assert corner == pytest.approx([30 - 14, 102.5 - 14], abs=1)
